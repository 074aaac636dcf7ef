// A js-libp2p node with kad-dht as a server, driven by lines of JSON on its standard input.
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { multiaddr, say, serve, started } from './node.mjs'

const KAD = '/ipfs/kad/1.0.0'
const any = { quorate: async () => {} }
const first = { quorate: () => 0 }
const node = await started({
  ping: ping(),
  kad: kadDHT({ protocol: KAD, clientMode: false, peerInfoMapper: passthroughMapper, validators: any, selectors: first })
})
node.addEventListener('peer:identify', ({ detail }) => { say({ identified: detail.peerId.toString(), protocols: detail.protocols }) })
node.services.kad.routingTable?.addEventListener?.('peer:add', ({ detail }) => { say({ seated: detail.toString() }) })
await serve(node, async (ask) => {
  try {
    if (ask.dial) await node.dial(multiaddr(ask.dial))
    if (ask.kad) {
      await node.dialProtocol(multiaddr(ask.kad), KAD)
      say({ refused: 'no' })
    }
    if (ask.put) {
      await node.contentRouting.put(Buffer.from(ask.put), Buffer.from(ask.value))
      say({ put: ask.put })
    }
    if (ask.get) say({ got: Buffer.from(await node.contentRouting.get(Buffer.from(ask.get))).toString() })
  } catch (error) {
    say({ refused: error.name, why: error.message })
  }
})
