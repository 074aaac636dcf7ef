/**
 * Verifies receipts on Node.js: one in hex per line of stdin, a space and the answer in hex behind it if it is to be
 * compared; one line of JSON each on stdout. For tests and scripts; the page does not contain it.
 */

import { createInterface } from "node:readline";

import { unhex } from "../hashing.ts";
import { InvalidReceipt, verifyReceipt } from "../receipt.ts";

function outcome(line: string): unknown {
  const [receipt = "", output] = line.split(" ");
  try {
    return verifyReceipt(unhex(receipt), output === undefined ? undefined : unhex(output)).summary;
  } catch (error) {
    if (error instanceof InvalidReceipt) return { fault: error.fault };
    throw error;
  }
}

function plain(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Map ? Object.fromEntries(value) : value;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(outcome(line), plain)}\n`);
}
