/** The structs inside a receipt, field for field as docs/spec/receipt.md lists them, and those of inputs and answers. */

import { bytes, type Codec, double, integer, list, map, oneOf, optional, struct, text, type Value } from "./canonical.ts";

export const Lane = oneOf("exact", "tolerant");
export const Kind = oneOf("text.generate", "image.generate", "embed.text");
export const Word = oneOf("accept", "reject", "abstain", "inconclusive");

export const Envelope = struct({ domain: text, author: bytes, body: bytes, signature: bytes });
export const PoolMember = struct({ peer: bytes, weight: integer });
export const Pool = list(PoolMember);
export const Peers = list(bytes);

export const JobSpec = struct({
  version: integer,
  kind: Kind,
  model: text,
  inputs: bytes,
  lane: Lane,
  numeric: text,
  fingerprint: text,
  calibration: bytes,
  seed: integer,
  jury_size: integer,
  spots: integer,
  price_micro: integer,
  fee_micro: integer,
  requester: bytes,
  pool: bytes,
  beacon_hash: bytes,
  nonce: bytes,
  created_ms: integer,
  deadline_ms: integer,
});

export const TextInput = struct({
  prompt: text,
  tokens_max: integer,
  method: oneOf("greedy", "beam", "sample"),
  temperature: double,
  top_k: integer,
  beams: integer,
});
export const ImageInput = struct({ label: integer, steps: integer });
export const EmbedInput = struct({ texts: list(text) });

export const Commitment = struct({ job: bytes, root: bytes, leaves: integer });
export const KeyRecord = struct({ bls: bytes, possession: bytes });
export const JurorCommit = struct({ job: bytes, root: bytes, seal: bytes });
export const JurorReveal = struct({
  job: bytes,
  root: bytes,
  verdict: Word,
  distances: map(double),
  sketch: bytes,
  salt: bytes,
  signature: bytes,
});
export const Statement = struct({ job: bytes, root: bytes, verdict: Word, lane: Lane, jury: bytes });
export const Certificate = struct({ statement: Statement, signers: list(bytes), signature: bytes });

export const Receipt = struct({
  version: integer,
  spec: Envelope,
  commitment: Envelope,
  secret: bytes,
  salt: bytes,
  output: bytes,
  proof: list(bytes),
  pool: Pool,
  keys: list(Envelope),
  commits: list(Envelope),
  reveals: list(Envelope),
  certificate: optional(Certificate),
});

export const Tensor = struct({
  dtype: oneOf("u1", "i4", "i8", "f4", "f8"),
  shape: list(integer),
  data: bytes,
});
export const Output = struct({ tensors: map(Tensor) });

export type Envelope = Value<typeof Envelope>;
export type JobSpec = Value<typeof JobSpec>;
export type Commitment = Value<typeof Commitment>;
export type JurorCommit = Value<typeof JurorCommit>;
export type JurorReveal = Value<typeof JurorReveal>;
export type Statement = Value<typeof Statement>;
export type Receipt = Value<typeof Receipt>;
export type Tensor = Value<typeof Tensor>;
export type PoolMember = Value<typeof PoolMember>;
export type { Codec };
