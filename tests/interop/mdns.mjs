// A js-libp2p node that finds peers by multicast DNS, and says whom it found.
import { mdns } from '@libp2p/mdns'
import { say, serve, started } from './node.mjs'

const [listen] = process.argv.slice(2)
const node = await started({}, { listen: [listen], peerDiscovery: [mdns({ interval: 1000 })] })
node.addEventListener('peer:discovery', ({ detail }) => {
  say({ discovered: detail.id.toString(), at: detail.multiaddrs.map(String) })
})
await serve(node, async () => {})
