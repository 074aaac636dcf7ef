/** What the page says: checks, states and refusals in words, with what to do. */

import { Refusal, said } from "./light.ts";
import type { Stage } from "./receipt.ts";

export type Line = Stage | "asked" | "requester";

/** One line for each group of checks, in the order in which they are made. */
export const CHECKS: Record<Line, string> = {
  form: "It is a receipt, spelled in the one allowed way.",
  question: "A job specification, signed by the node that asked.",
  commitment: "The worker signed what it would answer before it could know its jury.",
  jury: "The jury is the one that the draw gives, each juror with a key of its own.",
  votes: "Each juror opened the vote that it had sealed, and signed it.",
  certificate: "The verdict, if there is one, is signed by a majority of the jury.",
  answer: "This answer is the one the worker committed to.",
  asked: "It is about what you asked: model, input, comparison, seed, size of the jury.",
  requester: "Your node asked, and nobody else.",
};

const FAULTS: Record<string, Line> = {
  encoding: "form",
  version: "form",
  commitment: "commitment",
  output: "commitment",
  beacon: "commitment",
  spec: "question",
  pool: "jury",
  commit: "jury",
  jury: "jury",
  key: "jury",
  reveal: "votes",
  certificate: "certificate",
  answer: "answer",
  asked: "asked",
  requester: "requester",
};

/** The group of checks in which a fault was found. */
export function lineOf(fault: string): Line {
  return FAULTS[fault.split(".")[0] as string] ?? "form";
}

const STATES: Record<string, string> = {
  queued: "The node has your question.",
  matched: "A worker was found.",
  running: "The worker is at it.",
  auditing: "The jury is checking the answer.",
  settled: "Done.",
  failed: "It failed.",
  cancelled: "Cancelled.",
};

export function stateWords(state: string): string {
  return STATES[state] ?? state;
}

const REMEDIES: Record<string, string> = {
  not_allowed: "This node does not know your browser. Ask its owner for an invitation (quorate light invite) and paste all of it.",
  invitation: "This invitation has ended or was used by another browser. Ask the node's owner for a new one.",
  credit: "What you may spend at this node today is spent. Come back tomorrow (UTC), or ask its owner for more.",
  busy: "The node is busy.",
  not_found: "The node no longer knows this question. Ask again.",
  insufficient_credit: "It would cost more than what is left for you. Ask for less, or come back tomorrow (UTC).",
  no_providers: "Nobody offers this model now. Try again later, or take another model.",
  not_enough_providers: "Too few peers are there to make up a jury. Try again later, or with fewer jurors.",
  interrupted: "The node was stopped while your question was under way. Ask again.",
  timeout: "It took too long. Ask again.",
};

/** A code of the node in words; its own words where we know none. */
export function remedy(code: string, reason: string): string {
  const known = REMEDIES[code];
  return known === undefined ? reason || code : `${known}${reason === "" ? "" : ` (${reason})`}`;
}

/** Why there is no connection, and what to do. */
export function failure(error: unknown): string {
  if (error instanceof Refusal) return remedy(error.code, error.message);
  const why = said(error);
  if (/timeout|timed out|aborted/i.test(why)) return `The node did not answer in time. Is it running, and is the address right? (${why})`;
  if (/unsupported|protocol selection/i.test(why)) return `This node serves no light peers: its owner turns that on with the setting light = true. (${why})`;
  if (location.protocol === "https:") return `No connection with the node. A page that came by https reaches only addresses with wss. (${why})`;
  return `No connection with the node. Is it running, and is the address right? (${why})`;
}
