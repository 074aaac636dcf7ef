// What the scripts share: a js-libp2p node on TCP or WebSocket, Noise and Yamux, and lines of JSON in and out.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
globalThis.WebSocket ??= (await import('ws')).WebSocket
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { webSockets } = await import('@libp2p/websockets')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { multiaddr } = await import('@multiformats/multiaddr')
const readline = await import('node:readline')

export { multiaddr }

export const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')

export const started = (services, { listen = ['/ip4/127.0.0.1/tcp/0'], transports = [], ...more } = {}) => createLibp2p({
  addresses: { listen },
  transports: [tcp(), webSockets(), ...transports],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ...services },
  ...more
})

// Whatever comes on the stream goes back, without regard to frames.
export async function echo (stream) {
  for await (const chunk of stream) {
    if (!stream.send(bytesOf(chunk))) await stream.onDrain()
  }
  await stream.close()
}

export const bytesOf = (chunk) => (chunk instanceof Uint8Array ? chunk : chunk.subarray())

// Behind its length of four bytes.
export function framed (bytes) {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(bytes.byteLength)
  return Buffer.concat([head, bytes])
}

// Says who and where the node is, then does what each line of standard input asks for, to its end.
export async function serve (node, act) {
  say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
  for await (const line of readline.createInterface({ input: process.stdin })) await act(JSON.parse(line))
  await node.stop()
}
