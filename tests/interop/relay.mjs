// A js-libp2p node as a relay, or behind one, driven by lines of JSON on its standard input.
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { bytesOf, echo, framed, multiaddr, say, serve, started } from './node.mjs'

const [protocol, options] = process.argv.slice(2)
const { relay, listen, punch } = JSON.parse(options)
const services = {
  ...(relay ? { relay: circuitRelayServer() } : {}),
  ...(punch ? { dcutr: dcutr() } : {})
}
const limited = { runOnLimitedConnection: true }
const node = await started(services, { ...(listen ? { listen } : {}), transports: [circuitRelayTransport()] })
node.addEventListener('peer:identify', ({ detail }) => { say({ identified: detail.peerId.toString() }) })
await node.handle(protocol, echo, limited)

const ways = (peer) => node.getConnections().filter((each) => each.remotePeer.toString() === peer && each.status === 'open')
  .map((each) => each.remoteAddr.toString().includes('/p2p-circuit') ? 'relayed' : 'direct')

// A frame of `size` bytes there and back; says over which kind of connection.
async function call (address, size) {
  const target = multiaddr(address)
  const connection = await node.dial(target)
  const stream = await connection.newStream(protocol, limited)
  let left = 4 + size
  const reading = (async () => {
    for await (const chunk of stream) {
      left -= bytesOf(chunk).byteLength
      if (left <= 0) break
    }
  })()
  if (!stream.send(framed(Buffer.alloc(size)))) await stream.onDrain()
  await reading
  await stream.close()
  say({ called: connection.remotePeer.toString(), missing: left, relayed: connection.remoteAddr.toString().includes('/p2p-circuit') })
}

await serve(node, async (ask) => {
  try {
    if (ask.call) await call(ask.call, ask.size)
    if (ask.ways) say({ ways: ways(ask.ways) })
    if (ask.addresses) say({ at: node.getMultiaddrs().map(String) })
  } catch (error) {
    say({ refused: error.name, why: error.message })
  }
})
