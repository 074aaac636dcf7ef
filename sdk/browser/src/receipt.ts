/**
 * Offline verification of receipts: no node, no network, only the bytes and what is in them.
 *
 * The checks are those of docs/spec/receipt.md, in its order; the first that fails names the fault. To every input it
 * gives the same verdict or fault as the Python verifiers; tests hold it to that.
 */

import { type Codec, compare, decode, encode, NotCanonical, same } from "./canonical.ts";
import { drawOrder } from "./draw.ts";
import { digest, hex, included, peerText, sorted } from "./hashing.ts";
import { possessed, signed, signedByAll } from "./signatures.ts";
import * as structs from "./structs.ts";

const RECEIPT_BYTES_MAX = 512 << 10;
const ENVELOPE_BYTES_MAX = 256 << 10;
const INPUT_BYTES_MAX = 64 << 10;
const STEPS_DRAWN_MAX = 4096n;
const WINDOW_TOKENS = 32n;
const JURY_MAX = 21n;
const POOL_MAX = 64;
const DISTANCES_MAX = 16;
const NAME_BYTES_MAX = 64;
const UTF8 = new TextEncoder();

export type Verdict = "accept" | "reject" | "unaudited";

/** `fault` is the stable name of the first check that failed. */
export class InvalidReceipt extends Error {
  constructor(
    readonly fault: string,
    readonly detail = "",
  ) {
    super(detail === "" ? fault : `${fault}: ${detail}`);
  }
}

/** One drawn juror: its rank in the draw (0 is first), what it said (or `silent`), and what it measured. */
export interface Juror {
  peer: string;
  rank: number;
  verdict: string;
  distances: Map<string, number>;
}

/** What a valid receipt proves; the names are those of `quorate.receipt.ReceiptSummary`. */
export interface Summary {
  job: string;
  verdict: Verdict;
  kind: string;
  model: string;
  lane: string;
  numeric: string;
  fingerprint: string;
  calibration: string;
  requester: string;
  worker: string;
  jury_size: number;
  spots: number;
  jurors: Juror[];
  replaced: number;
  output: string;
  output_checked: boolean;
  price_micro: bigint;
  fee_micro: bigint;
  created_ms: bigint;
}

/** A group of checks, for people: what was checked, and whether it held. */
export type Stage = "form" | "question" | "commitment" | "answer" | "jury" | "votes" | "certificate";
export type Passed = (stage: Stage) => void;

export interface Verified {
  summary: Summary;
  spec: structs.JobSpec;
}

/**
 * Verify a receipt.
 *
 * `output`: the canonical bytes of the answer, compared with the digest in the receipt if given.
 * `passed`: told of each stage that held, in order. Throws InvalidReceipt.
 */
export function verifyReceipt(raw: Uint8Array, output?: Uint8Array, passed: Passed = () => undefined): Verified {
  const receipt = read(raw);
  passed("form");
  const reading = new Reading(receipt);
  passed("question");
  reading.checkCommitment();
  passed("commitment");
  reading.checkJury();
  passed("jury");
  reading.checkReveals();
  passed("votes");
  reading.checkCertificate();
  passed("certificate");
  if (output !== undefined) {
    require(same(digest("output", output), receipt.output), "answer", "these bytes are not what was committed to");
    passed("answer");
  }
  return { summary: reading.summary(output !== undefined), spec: reading.spec };
}

function require(holds: boolean, fault: string, detail = ""): asserts holds {
  if (!holds) throw new InvalidReceipt(fault, detail);
}

function faulty<T>(fault: string, reading: () => T): T {
  try {
    return reading();
  } catch (error) {
    if (error instanceof NotCanonical) throw new InvalidReceipt(fault, error.message);
    throw error;
  }
}

function read(raw: Uint8Array): structs.Receipt {
  const receipt = faulty("encoding", () => decode(structs.Receipt, raw, RECEIPT_BYTES_MAX));
  require(receipt.version === 1n, "version", String(receipt.version));
  return receipt;
}

/** The body of an envelope of `domain` whose signature holds; else `fault`. */
function open<T>(fault: string, envelope: structs.Envelope, domain: string, body: Codec<T>): T {
  require(envelope.domain === domain, fault, `domain ${envelope.domain.slice(0, 40)} instead of ${domain}`);
  const sized = envelope.author.length === 32 && envelope.signature.length === 64;
  require(sized && envelope.body.length <= ENVELOPE_BYTES_MAX, fault, "author, signature or body of a wrong length");
  const message = digest("envelope", UTF8.encode(domain), envelope.author, envelope.body);
  require(signed(envelope.author, message, envelope.signature), fault, "the signature does not verify");
  return faulty(fault, () => decode(body, envelope.body, ENVELOPE_BYTES_MAX));
}

function isVote(verdict: string): boolean {
  return verdict === "accept" || verdict === "reject";
}

/** One receipt being checked; each step relies on the steps before it. */
class Reading {
  readonly spec: structs.JobSpec;
  private readonly job: Uint8Array;
  private readonly worker: Uint8Array;
  private promise!: structs.Commitment;
  private jury: Uint8Array[] = [];
  private seals: Uint8Array[] = [];
  private ranks: number[] = [];
  private juryHash!: Uint8Array;
  /** By the juror in hex, as are `reveals`. */
  private readonly keys = new Map<string, Uint8Array>();
  private readonly reveals = new Map<string, structs.JurorReveal>();

  constructor(private readonly receipt: structs.Receipt) {
    this.spec = open("spec", receipt.spec, "job", structs.JobSpec);
    require(same(receipt.spec.author, this.spec.requester), "spec.requester");
    require(this.spec.version === 1n, "spec.version", String(this.spec.version));
    const size = this.spec.jury_size;
    require(size === 0n || (size > 0n && size <= JURY_MAX && size % 2n === 1n), "spec.jury_size", String(size));
    const spots = this.spec.spots;
    require(spots === 0n || (spots > 0n && spots <= this.parts()), "spec.spots", String(spots));
    this.job = digest("job", receipt.spec.body);
    this.worker = receipt.commitment.author;
  }

  /** How many can be drawn: steps of an image's run in the tolerant lane, windows of a text's; else none. */
  private parts(): bigint {
    const { kind, inputs, lane } = this.spec;
    if (kind === "embed.text") return 0n;
    const parts = faulty("spec.spots", () => {
      if (kind === "image.generate") {
        const { steps } = decode(structs.ImageInput, inputs, INPUT_BYTES_MAX);
        return lane === "tolerant" ? steps : 0n;
      }
      const asked = decode(structs.TextInput, inputs, INPUT_BYTES_MAX);
      const windows = asked.tokens_max / WINDOW_TOKENS; // towards 0, and 1 is the least
      return asked.method === "beam" ? 0n : windows < 1n ? 1n : windows;
    });
    return parts <= STEPS_DRAWN_MAX ? parts : 0n;
  }

  /** Checks 8 to 12: the worker committed to this output, and the beacon was fixed before. */
  checkCommitment(): void {
    const { receipt } = this;
    this.promise = open("commitment", receipt.commitment, "commitment", structs.Commitment);
    require(same(this.promise.job, this.job), "commitment.job");
    require(!same(this.worker, this.spec.requester), "commitment.worker");
    const leaf = digest("leaf", receipt.salt, UTF8.encode("output"), receipt.output);
    const opened = included(leaf, 0n, this.promise.leaves, receipt.proof, this.promise.root);
    require(receipt.salt.length === 32 && receipt.output.length === 32 && opened, "output");
    const fixed = same(digest("beacon.secret", receipt.secret), this.spec.beacon_hash);
    require(receipt.secret.length === 32 && fixed, "beacon");
  }

  /** Checks 13 to 18: the pool is the one that was fixed, the jury was drawn from it, and its keys are its own. */
  checkJury(): void {
    const { receipt } = this;
    this.checkPool();
    require(BigInt(receipt.commits.length) <= this.spec.jury_size, "commit", "more than the jury");
    this.seals = receipt.commits.map((sealed) => this.sealOf(sealed));
    this.jury = receipt.commits.map((sealed) => sealed.author);
    const beacon = digest("beacon", this.job, this.promise.root, receipt.secret);
    const drawn = receipt.pool.filter(({ peer }) => !same(peer, this.spec.requester) && !same(peer, this.worker));
    const place = new Map(drawOrder(beacon, drawn).map((peer, rank) => [hex(peer), rank]));
    this.ranks = this.jury.map((juror) => place.get(hex(juror)) ?? -1);
    const ascending = this.ranks.every((rank, at) => rank > (at === 0 ? -1 : (this.ranks[at - 1] as number)));
    require(ascending, "jury", "not drawn in this order");
    this.checkKeys();
  }

  private checkPool(): void {
    const { pool } = this.receipt;
    const wellFormed =
      pool.length <= POOL_MAX &&
      pool.every(({ peer }) => peer.length === 32) &&
      pool.every(({ peer }, at) => at === 0 || compare((pool[at - 1] as structs.PoolMember).peer, peer) < 0) &&
      pool.every(({ weight }) => weight >= 1n && weight < 1n << 32n);
    require(wellFormed && same(digest("pool", encode(structs.Pool, pool)), this.spec.pool), "pool");
  }

  private checkKeys(): void {
    const { keys } = this.receipt;
    require(keys.length === this.jury.length, "key", `${keys.length} keys for ${this.jury.length} jurors`);
    this.jury.forEach((juror, at) => {
      const envelope = keys[at] as structs.Envelope;
      const record = open("key", envelope, "keys", structs.KeyRecord);
      require(same(envelope.author, juror), "key", "of another peer");
      require(possessed(juror, record.bls, record.possession), "key.possession");
      this.keys.set(hex(juror), record.bls);
    });
  }

  private sealOf(sealed: structs.Envelope): Uint8Array {
    const commit = open("commit", sealed, "juror.commit", structs.JurorCommit);
    require(this.ofThisAnswer(commit), "commit.job");
    return commit.seal;
  }

  private ofThisAnswer(said: { job: Uint8Array; root: Uint8Array }): boolean {
    return same(said.job, this.job) && same(said.root, this.promise.root);
  }

  /** Checks 19 to 24: each juror opened what it had sealed, and signed its own vote. */
  checkReveals(): void {
    let next = 0;
    for (const opened of this.receipt.reveals) {
      const reveal = open("reveal", opened, "juror.reveal", structs.JurorReveal);
      const at = this.jury.findIndex((juror, index) => index >= next && same(juror, opened.author));
      require(at >= 0, "reveal.juror");
      next = at + 1;
      require(this.ofThisAnswer(reveal), "reveal.job");
      require(distancesFit(reveal.distances), "reveal.distances");
      require(same(seal(opened.author, reveal), this.seals[at] as Uint8Array), "reveal.seal");
      this.reveals.set(hex(opened.author), reveal);
    }
    this.juryHash = digest("jury", encode(structs.Peers, this.jury));
    for (const [juror, reveal] of this.reveals) this.checkVote(juror, reveal);
  }

  private checkVote(juror: string, reveal: structs.JurorReveal): void {
    const votes = isVote(reveal.verdict);
    const right = reveal.signature.length === (votes ? 96 : 0);
    require(right, "reveal.vote", "a signature of a wrong length");
    const covered = this.receipt.certificate?.statement.verdict === reveal.verdict;
    if (votes && !covered) {
      const key = this.keys.get(juror) as Uint8Array;
      const holds = signedByAll([key], message(this.statement(reveal.verdict)), reveal.signature);
      require(holds, "reveal.vote", "the signature does not verify");
    }
  }

  private statement(verdict: structs.Statement["verdict"]): structs.Statement {
    return { job: this.job, root: this.promise.root, verdict, lane: this.spec.lane, jury: this.juryHash };
  }

  /** Checks 25 to 30: a majority signed this verdict, or there was none to be had. */
  checkCertificate(): void {
    const { certificate } = this.receipt;
    const size = Number(this.spec.jury_size);
    const said = [...this.reveals.values()].map(({ verdict }) => verdict);
    if (certificate === null) {
      const most = Math.max(...["accept", "reject"].map((vote) => said.filter((each) => each === vote).length));
      require(2 * most <= size || this.jury.length < size, "certificate.missing");
      return;
    }
    const { statement } = certificate;
    const expected = encode(structs.Statement, this.statement(statement.verdict));
    const stated = same(encode(structs.Statement, statement), expected) && isVote(statement.verdict);
    require(stated, "certificate.statement");
    require(this.jury.length === size && size > 0, "certificate.jury");
    const agreeing = sorted(this.jury.filter((juror) => this.reveals.get(hex(juror))?.verdict === statement.verdict));
    const keys = agreeing.map((juror) => this.keys.get(hex(juror)) as Uint8Array);
    const named = same(encode(structs.Peers, certificate.signers), encode(structs.Peers, agreeing));
    require(named && new Set(keys.map(hex)).size === keys.length, "certificate.signers");
    require(2 * agreeing.length > size, "certificate.quorum");
    require(signedByAll(keys, message(statement), certificate.signature), "certificate.signature");
  }

  /** What the checks have shown. */
  summary(outputChecked: boolean): Summary {
    const { spec, receipt, ranks } = this;
    const verdict = receipt.certificate?.statement.verdict;
    return {
      job: hex(this.job),
      verdict: verdict === undefined ? "unaudited" : verdict === "accept" ? "accept" : "reject",
      kind: spec.kind,
      model: spec.model,
      lane: spec.lane,
      numeric: spec.numeric,
      fingerprint: spec.fingerprint,
      calibration: hex(spec.calibration),
      requester: peerText(spec.requester),
      worker: peerText(this.worker),
      jury_size: Number(spec.jury_size),
      spots: Number(spec.spots),
      jurors: this.jury.map((peer, at) => this.juror(peer, ranks[at] as number)),
      replaced: ranks.length === 0 ? 0 : (ranks.at(-1) as number) + 1 - ranks.length,
      output: hex(receipt.output),
      output_checked: outputChecked,
      price_micro: spec.price_micro,
      fee_micro: spec.fee_micro,
      created_ms: spec.created_ms,
    };
  }

  private juror(peer: Uint8Array, rank: number): Juror {
    const reveal = this.reveals.get(hex(peer));
    return {
      peer: peerText(peer),
      rank,
      verdict: reveal?.verdict ?? "silent",
      distances: reveal?.distances ?? new Map<string, number>(),
    };
  }
}

function message(statement: structs.Statement): Uint8Array {
  return digest("statement", encode(structs.Statement, statement));
}

function seal(juror: Uint8Array, reveal: structs.JurorReveal): Uint8Array {
  const unsigned = { ...reveal, signature: new Uint8Array() };
  return digest("juror.seal", juror, encode(structs.JurorReveal, unsigned));
}

function distancesFit(distances: Map<string, number>): boolean {
  return (
    distances.size <= DISTANCES_MAX &&
    [...distances].every(
      ([name, value]) => UTF8.encode(name).length <= NAME_BYTES_MAX && Number.isFinite(value) && value >= 0,
    )
  );
}
