/** Cuts streams into frames on Node.js, for tests: hex per line, fed in pieces of 1, 2, 3 ... bytes; the frames in hex, or "too large". */

import { createInterface } from "node:readline";

import { Unframer } from "../frames.ts";
import { hex, unhex } from "../hashing.ts";

function outcome(stream: Uint8Array): unknown {
  const unframer = new Unframer();
  const frames: string[] = [];
  try {
    for (let at = 0, size = 1; at < stream.length; at += size, size += 1) {
      frames.push(...unframer.feed(stream.slice(at, at + size)).map(hex));
    }
  } catch {
    return "too large";
  }
  return frames;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(outcome(unhex(line)))}\n`);
}
