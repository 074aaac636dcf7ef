/**
 * Ed25519 and BLS verification; no signing.
 *
 * Both say what the node says to every input, also to keys and signatures that only an attacker would make: a receipt
 * that holds here and not there would be worth an attack. Ed25519 is libsodium's: canonical points that are not of
 * small order, S below the group order, and the equation without the cofactor. BLS is that of
 * draft-irtf-cfrg-bls-signature, minimal public keys, proof of possession.
 */

import { bls12_381 } from "@noble/curves/bls12-381.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { concatBytes } from "@noble/hashes/utils.js";

import { same } from "./canonical.ts";
import { hex } from "./hashing.ts";

const DST = "BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
const POSSESSION_DST = "BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

const Point = ed25519.Point;
const G1 = bls12_381.G1.Point;
const G2 = bls12_381.G2.Point;

function number(raw: Uint8Array): bigint {
  return raw.reduceRight((sum, each) => (sum << 8n) | BigInt(each), 0n);
}

/** Whether `signature` (64 bytes) over `message` is that of `author` (32 bytes). */
export function signed(author: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const [r, s] = [signature.slice(0, 32), number(signature.slice(32))];
  if (author.length !== 32 || signature.length !== 64 || s >= Point.Fn.ORDER) return false;
  try {
    const key = Point.fromBytes(author);
    const nonce = Point.fromBytes(r);
    if (key.isSmallOrder() || nonce.isSmallOrder()) return false;
    const challenge = Point.Fn.create(number(sha512(concatBytes(r, author, message))));
    const expected = Point.BASE.multiplyUnsafe(s).subtract(key.multiplyUnsafe(challenge));
    return same(expected.toBytes(), r);
  } catch {
    return false; // not the canonical encoding of a point
  }
}

function verified(keys: Uint8Array[], message: Uint8Array, signature: Uint8Array, domain: string): boolean {
  if (keys.length === 0 || signature.length !== 96 || keys.some((key) => key.length !== 48)) return false;
  try {
    const points = keys.map((key) => G1.fromBytes(key));
    const given = G2.fromBytes(signature);
    for (const point of points) point.assertValidity();
    given.assertValidity();
    const total = points.reduce((sum, each) => sum.add(each));
    if (total.is0() || points.some((each) => each.is0())) return false;
    const hashed = G2.fromAffine(bls12_381.G2.hashToCurve(message, { DST: domain }).toAffine());
    const product = bls12_381.pairingBatch([
      { g1: total, g2: hashed },
      { g1: G1.BASE.negate(), g2: given },
    ]);
    return bls12_381.fields.Fp12.eql(product, bls12_381.fields.Fp12.ONE);
  } catch {
    return false; // not the canonical encoding of a point in the subgroup, or the point at infinity
  }
}

/** Proofs that held; the same jurors sit again and again, and each proof costs a pairing. */
const proven = new Set<string>();
const PROVEN_MAX = 256;

/** Whether `proof` (96 bytes) proves that `owner` (32 bytes) possesses the secret of `key` (48 bytes). */
export function possessed(owner: Uint8Array, key: Uint8Array, proof: Uint8Array): boolean {
  const claim = [owner, key, proof].map(hex).join(" ");
  if (proven.has(claim)) return true;
  const holds = verified([key], concatBytes(owner, key), proof, POSSESSION_DST);
  if (holds && proven.size >= PROVEN_MAX) proven.clear();
  if (holds) proven.add(claim);
  return holds;
}

/** FastAggregateVerify: whether all `keys` signed `message`; each key's possession was proven before. */
export function signedByAll(keys: Uint8Array[], message: Uint8Array, signature: Uint8Array): boolean {
  return verified(keys, message, signature, DST);
}
