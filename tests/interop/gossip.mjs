// A js-libp2p node with gossipsub, driven by lines of JSON on its standard input.
import { gossipsub } from '@libp2p/gossipsub'
import { multiaddr, say, serve, started } from './node.mjs'

const [topic] = process.argv.slice(2)
const node = await started({ pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, emitSelf: false }) })
const { pubsub } = node.services
pubsub.addEventListener('message', ({ detail }) => {
  say({ got: Buffer.from(detail.data).toString('hex'), from: detail.from.toString(), type: detail.type })
})
pubsub.addEventListener('subscription-change', ({ detail }) => {
  say({ subscribed: detail.peerId.toString(), topics: detail.subscriptions.filter((each) => each.subscribe).map((each) => each.topic) })
})
pubsub.addEventListener('gossipsub:graft', ({ detail }) => { say({ graft: detail.peerId }) })
pubsub.subscribe(topic)
await serve(node, async (ask) => {
  if (ask.dial) await node.dial(multiaddr(ask.dial))
  if (ask.publish) await pubsub.publish(topic, Buffer.from(ask.publish, 'hex'))
})
