/** Frames of `/quorate/light/1` (docs/spec/light.md): what a light peer says, and what a node answers. */

import { bytes, type Codec, decode, double, encode, integer, list, NotCanonical, oneOf, optional, Reader, struct, text, type Value } from "./canonical.ts";

export const PROTOCOL = "/quorate/light/1";
export const FRAME_BYTES_MAX = 1 << 20;

const requests = {
  hello: struct({ invitation: optional(bytes) }, "hello"),
  submit: struct({ ask: bytes, body: text }, "submit"),
  follow: struct({ ask: bytes, after: integer }, "follow"),
  cancel: struct({ ask: bytes }, "cancel"),
};
const Offered = struct({ name: text, cid: text, kind: text, lanes: list(text) });
const replies = {
  welcome: struct({ models: list(Offered), jobs_max: integer, credit_micro: integer, left_micro: integer }, "welcome"),
  taken: struct({ budget_micro: integer }, "taken"),
  event: struct({ seq: integer, body: text }, "event"),
  part: struct({ of: oneOf("output", "receipt"), data: bytes }, "part"),
  done: struct({ state: text, cost_micro: integer, code: text, reason: text }, "done"),
  refused: struct({ code: text, reason: text, retry_s: double }, "refused"),
};

type Tagged<T extends Record<string, Codec<any>>> = { [K in keyof T]: { tag: K } & Value<T[K]> }[keyof T]; // one of T's structs
export type Request = Tagged<typeof requests>;
export type Reply = Tagged<typeof replies>;
export type Model = Value<typeof Offered>;
export type Welcome = Extract<Reply, { tag: "welcome" }>;

export function encodeRequest(request: Request): Uint8Array {
  return encode(requests[request.tag] as Codec<Request>, request);
}

/** Throws NotCanonical. */
export function decodeReply(frame: Uint8Array): Reply {
  return tagged(replies, frame) as Reply;
}

/** For tests: what a node reads. Throws NotCanonical. */
export function decodeRequest(frame: Uint8Array): Request {
  const request = tagged(requests, frame) as Request;
  const ask = request.tag === "hello" ? 16 : request.ask.length;
  const invitation = request.tag === "hello" && request.invitation !== null ? request.invitation.length : 32;
  if (ask !== 16 || invitation !== 32) throw new NotCanonical("an ask or an invitation of another length");
  return request;
}

function tagged(kinds: Record<string, Codec<any>>, frame: Uint8Array): unknown {
  const from = new Reader(frame);
  from.byte(); // of the array; the struct's own reader looks at it again
  const tag = text.read(from);
  const kind = Object.hasOwn(kinds, tag) ? kinds[tag] : undefined;
  if (kind === undefined) throw new NotCanonical(`${tag.slice(0, 40)}: no such message`);
  return { tag, ...decode(kind, frame, FRAME_BYTES_MAX) };
}
