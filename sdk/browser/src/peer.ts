/**
 * This page as a libp2p peer: it dials one node and serves nothing.
 *
 * By WebSocket; a node behind a router through its relay's WebSocket, and over that by WebRTC straight to the node
 * (docs/spec/webrtc.md). Where WebRTC does not come through, the relay carries everything, sealed.
 */

import { noise, pureJsCrypto } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import type { Connection, Libp2p, PrivateKey } from "@libp2p/interface";
import { circuitRelayTransport } from "@libp2p/circuit-relay-v2";
import { identify } from "@libp2p/identify";
import { webRTC } from "@libp2p/webrtc";
import { webSockets } from "@libp2p/websockets";
import { peerIdFromString } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";

const DIAL_MS = 15_000;
const CIRCUIT = "/p2p-circuit/";

/** Where a node is, and what lets us in: `<multiaddr>/p2p/<peer id>~<invitation>`, the second part only the first time. */
export interface Door {
  address: string;
  /** The node's peer id, which the handshake must prove. */
  node: string;
  invitation: Uint8Array | null;
}

/** Throws an Error that says what is wrong with it. */
export function doorOf(pasted: string): Door {
  const [address = "", invitation] = pasted.trim().split("~");
  const node = /\/p2p\/(12D3KooW[1-9A-HJ-NP-Za-km-z]{44})$/.exec(address)?.[1];
  if (node === undefined) throw new Error("An address ends in /p2p/ and the peer id of the node. Copy all of what `quorate light invite` printed.");
  if (!/\/(ws|wss)(\/|$)/.test(address)) throw new Error("A browser reaches a node by WebSocket: the address must have /ws or /wss in it.");
  try {
    multiaddr(address);
  } catch {
    throw new Error("That is no address of a node.");
  }
  if (invitation === undefined) return { address, node, invitation: null };
  if (!/^[A-Za-z0-9_-]{43}$/.test(invitation)) throw new Error("The invitation behind the ~ is not whole. Copy all of it.");
  const raw = atob(`${invitation.replaceAll("-", "+").replaceAll("_", "/")}=`);
  return { address, node, invitation: Uint8Array.from(raw, (each) => each.charCodeAt(0)) };
}

export async function openPeer(privateKey: PrivateKey): Promise<Libp2p> {
  return await createLibp2p({
    privateKey,
    transports: [webSockets(), circuitRelayTransport(), webRTC({ rtcConfiguration: { iceServers: [] } })],
    connectionEncrypters: [noise({ crypto: pureJsCrypto })],
    streamMuxers: [yamux()],
    // the user names the node: it may well be on this machine or in this house
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify({ runOnConnectionOpen: false }) },
    connectionManager: { maxIncomingPendingConnections: 0, maxConnections: 4 },
  });
}

/** A connection with the node, made anew if there is none. */
export async function connect(peer: Libp2p, door: Door): Promise<Connection> {
  const standing = peer.getConnections(peerIdFromString(door.node)).filter(({ status }) => status === "open");
  const direct = standing.find(({ limits }) => limits === undefined) ?? standing[0];
  if (direct !== undefined) return direct;
  const ways = door.address.includes(CIRCUIT) ? [door.address.replace(CIRCUIT, `${CIRCUIT}webrtc/`), door.address] : [door.address];
  let last: unknown;
  for (const way of ways) {
    try {
      return await peer.dial(multiaddr(way), { signal: AbortSignal.timeout(DIAL_MS) });
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** How a connection runs, in words. */
export function pathOf(connection: Connection): string {
  const address = connection.remoteAddr.toString();
  if (address.includes("/webrtc")) return "WebRTC";
  const kind = /\/(wss|tls\/ws|tls\/sni\/[^/]+\/ws)/.test(address) ? "WebSocket with TLS" : "WebSocket";
  return `${kind}${address.includes(CIRCUIT) ? " through a relay" : ""}`;
}
