/**
 * Reads frames of light peers on Node.js, for tests: `light peer <hex>` or `node <hex>`, who sends it, per line; the
 * message as a list, bytes in hex, or "malformed".
 */

import { createInterface } from "node:readline";

import { NotCanonical, same } from "../canonical.ts";
import { hex, unhex } from "../hashing.ts";
import { decodeReply, decodeRequest, encodeRequest } from "../messages.ts";

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return hex(value);
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  return typeof value === "object" && value !== null ? Object.values(value).map(plain) : value;
}

function outcome(sender: string, raw: Uint8Array): unknown {
  try {
    if (sender === "node") return plain(decodeReply(raw));
    const request = decodeRequest(raw);
    return same(encodeRequest(request), raw) ? plain(request) : "not encoded back";
  } catch (error) {
    if (error instanceof NotCanonical) return "malformed";
    throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const at = line.lastIndexOf(" ");
  process.stdout.write(`${JSON.stringify(outcome(line.slice(0, at), unhex(line.slice(at + 1))))}\n`);
}
