/** What was asked, and whether a receipt is about that: a valid receipt of another question proves nothing here. */

import { encode, same } from "./canonical.ts";
import type { Verified } from "./receipt.ts";
import { InvalidReceipt } from "./receipt.ts";
import * as structs from "./structs.ts";

export interface Question {
  kind: "text.generate" | "image.generate";
  /** Content id of the model. */
  model: string;
  lane: "exact" | "tolerant";
  jury: 3 | 5 | 7;
  /** Below 2^53, so that JSON carries it. */
  seed: number;
  input: { prompt: string; tokens_max: number } | { label: number; steps: number };
}

/** The body of a submission (docs/reference/api.md). */
export function bodyOf(question: Question): string {
  const { kind, model, lane, seed, input, jury } = question;
  return JSON.stringify({ kind, model, lane, seed, input, policy: `quorum:${jury}` });
}

/** The canonical input that the job's specification must have, defaults filled in (docs/spec/market.md). */
function inputsOf(question: Question): Uint8Array {
  if ("prompt" in question.input) {
    const { prompt, tokens_max } = question.input;
    const rest = { method: "greedy", temperature: 1, top_k: 0n, beams: 4n } as const;
    return encode(structs.TextInput, { prompt, tokens_max: BigInt(tokens_max), ...rest });
  }
  const { label, steps } = question.input;
  return encode(structs.ImageInput, { label: BigInt(label), steps: BigInt(steps) });
}

/** Throws InvalidReceipt (`asked`, `requester`) unless a receipt answers this question, asked of this node (a peer id). */
export function checkAsked({ spec, summary }: Verified, question: Question, node: string): void {
  const differs =
    (spec.kind !== question.kind && "kind") ||
    (spec.model !== question.model && "model") ||
    (!same(spec.inputs, inputsOf(question)) && "input") ||
    (spec.lane !== question.lane && "lane") ||
    (spec.seed !== BigInt(question.seed) && "seed") ||
    (spec.jury_size !== BigInt(question.jury) && "jury size");
  if (differs) throw new InvalidReceipt("asked", `the receipt is of another ${differs}`);
  if (summary.requester !== node) throw new InvalidReceipt("requester", `another node asked: ${summary.requester}`);
}
