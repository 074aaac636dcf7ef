// A js-libp2p node that pings, identifies and echoes, driven by lines of JSON on its standard input.
import { createHash } from 'node:crypto'
import { ping } from '@libp2p/ping'
import { bytesOf, echo, framed, multiaddr, say, serve, started } from './node.mjs'

const [protocol, listen] = process.argv.slice(2)
const node = await started({ ping: ping() }, { listen: [listen] })
node.addEventListener('peer:identify', ({ detail }) => {
  say({ identified: detail.peerId.toString(), agent: detail.agentVersion, protocols: detail.protocols })
})
await node.handle(protocol, echo)

// A frame is a length of four bytes and as many bytes; sends `count` of `size` and hashes those that come back.
async function call (address, count, size) {
  const stream = await node.dialProtocol(multiaddr(address), protocol)
  const hash = createHash('sha256')
  let left = count * (4 + size)
  const reading = (async () => {
    for await (const chunk of stream) {
      const bytes = bytesOf(chunk)
      hash.update(bytes)
      left -= bytes.byteLength
      if (left <= 0) break
    }
  })()
  for (let i = 0; i < count; i++) {
    if (!stream.send(framed(Buffer.alloc(size, i)))) await stream.onDrain()
  }
  await reading
  await stream.close()
  say({ echoed: hash.digest('hex'), missing: left })
}

await serve(node, async (ask) => {
  try {
    if (ask.ping) say({ pong: await node.services.ping.ping(multiaddr(ask.ping)) })
    if (ask.call) await call(ask.call, ask.count, ask.size)
    if (ask.refuse) {
      await node.dialProtocol(multiaddr(ask.refuse), '/nobody/serves/this')
      say({ refused: 'no' })
    }
  } catch (error) {
    say({ refused: error.name })
  }
})
