/**
 * Checks single signatures on Node.js, for tests: JSON lines with hex, `{ed25519: [author, message, signature]}` or
 * `{bls: [[key, ...], message, signature]}`; `true` or `false` each.
 */

import { createInterface } from "node:readline";

import { unhex } from "../hashing.ts";
import { signed, signedByAll } from "../signatures.ts";

for await (const line of createInterface({ input: process.stdin })) {
  const { ed25519, bls } = JSON.parse(line) as { ed25519?: [string, string, string]; bls?: [string[], string, string] };
  if (ed25519 !== undefined) {
    const [author, message, signature] = ed25519.map(unhex) as [Uint8Array, Uint8Array, Uint8Array];
    process.stdout.write(`${signed(author, message, signature)}\n`);
  } else if (bls !== undefined) {
    process.stdout.write(`${signedByAll(bls[0].map(unhex), unhex(bls[1]), unhex(bls[2]))}\n`);
  }
}
