// A js-libp2p node with gossipsub, driven by lines of JSON on its standard input.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { gossipsub } = await import('@libp2p/gossipsub')
const { multiaddr } = await import('@multiformats/multiaddr')
const readline = await import('node:readline')

const [topic] = process.argv.slice(2)
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, emitSelf: false }) }
})
const { pubsub } = node.services
pubsub.addEventListener('message', ({ detail }) => {
  say({ got: Buffer.from(detail.data).toString('hex'), from: detail.from.toString(), type: detail.type })
})
pubsub.addEventListener('subscription-change', ({ detail }) => {
  say({ subscribed: detail.peerId.toString(), topics: detail.subscriptions.filter((each) => each.subscribe).map((each) => each.topic) })
})
pubsub.addEventListener('gossipsub:graft', ({ detail }) => { say({ graft: detail.peerId }) })
pubsub.subscribe(topic)
say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
for await (const line of readline.createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line)
  if (ask.dial) await node.dial(multiaddr(ask.dial))
  if (ask.publish) await pubsub.publish(topic, Buffer.from(ask.publish, 'hex'))
}
await node.stop()
