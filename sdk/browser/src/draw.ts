/** The order in which a jury is drawn: weighted rendezvous in integers (docs/spec/receipt.md, "Draw order"). */

import { compare } from "./canonical.ts";
import { digest } from "./hashing.ts";

const FRACTION_BITS = 48n;

/** floor(log2 x) to 48 fractional bits, for 1 <= x < 2^64. */
export function log2Fixed(x: bigint): bigint {
  const whole = BigInt(x.toString(2).length - 1);
  let mantissa = x << (63n - whole);
  let fraction = 0n;
  for (let i = 0n; i < FRACTION_BITS; i += 1n) {
    mantissa = (mantissa * mantissa) >> 63n;
    fraction <<= 1n;
    if (mantissa >> 64n) {
      mantissa >>= 1n;
      fraction |= 1n;
    }
  }
  return (whole << FRACTION_BITS) + fraction;
}

export interface Member {
  peer: Uint8Array;
  weight: bigint;
}

/** Peers in draw order; `members` without requester and worker, weights at least 1. */
export function drawOrder(beacon: Uint8Array, members: Member[]): Uint8Array[] {
  const costs = members.map(({ peer, weight }) => {
    const ticket = new DataView(digest("draw", beacon, peer).buffer).getBigUint64(0);
    return { cost: (64n << FRACTION_BITS) - log2Fixed(ticket | 1n), weight, peer };
  });
  costs.sort((a, b) => {
    const difference = a.cost * b.weight - b.cost * a.weight;
    return difference === 0n ? compare(a.peer, b.peer) : difference < 0n ? -1 : 1;
  });
  return costs.map(({ peer }) => peer);
}
