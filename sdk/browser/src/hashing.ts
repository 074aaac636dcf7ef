/** Tagged hashes, Merkle paths and peer ids (docs/spec/encoding.md, "Hashes" and "Names"). */

import { sha256 } from "@noble/hashes/sha2.js";
import { concatBytes } from "@noble/hashes/utils.js";

import { compare, same } from "./canonical.ts";

const UTF8 = new TextEncoder();
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const PEER_PREFIX = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);

function length(part: Uint8Array): Uint8Array {
  const raw = new Uint8Array(8);
  new DataView(raw.buffer).setBigUint64(0, BigInt(part.length));
  return raw;
}

/** SHA-256 tagged with `domain`; two or more parts are preceded by their lengths. */
export function digest(domain: string, ...parts: Uint8Array[]): Uint8Array {
  const tag = sha256(UTF8.encode(`quorate/1/${domain}`));
  if (parts.length === 1) return sha256(concatBytes(tag, tag, parts[0] as Uint8Array));
  return sha256(concatBytes(tag, tag, ...parts.flatMap((part) => [length(part), part])));
}

/** Whether `leaf` stands at `index` of `size` leaves under `root` (RFC 9162, 2.1.3.2). */
export function included(leaf: Uint8Array, index: bigint, size: bigint, path: Uint8Array[], root: Uint8Array): boolean {
  if (index < 0n || index >= size) return false;
  let [fn, sn] = [index, size - 1n];
  let node = sha256(concatBytes(Uint8Array.of(0), leaf));
  for (const step of path) {
    if (sn === 0n) return false;
    if (fn % 2n === 1n || fn === sn) {
      node = sha256(concatBytes(Uint8Array.of(1), step, node));
      while (fn !== 0n && fn % 2n === 0n) [fn, sn] = [fn / 2n, sn / 2n];
    } else {
      node = sha256(concatBytes(Uint8Array.of(1), node, step));
    }
    [fn, sn] = [fn / 2n, sn / 2n];
  }
  return sn === 0n && same(node, root);
}

export function hex(raw: Uint8Array): string {
  return Array.from(raw, (each) => each.toString(16).padStart(2, "0")).join("");
}

export function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** The libp2p peer id of a 32-byte Ed25519 key: base58btc of the identity multihash. */
export function peerText(peer: Uint8Array): string {
  const raw = concatBytes(PEER_PREFIX, peer);
  let number = BigInt(`0x${hex(raw)}`);
  let text = "";
  for (; number > 0n; number /= 58n) text = (ALPHABET[Number(number % 58n)] as string) + text;
  const zeros = raw.findIndex((each) => each !== 0);
  return "1".repeat(zeros) + text;
}

export function sorted(all: Uint8Array[]): Uint8Array[] {
  return [...all].sort(compare);
}
