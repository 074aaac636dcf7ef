/**
 * What a light peer does with a node: introduces itself, and has one job run (docs/spec/light.md).
 *
 * A job that was begun is followed to its end over as many connections as it takes: the node keeps it, and its name
 * (`ask`) is ours.
 */

import type { Connection, Libp2p, Stream } from "@libp2p/interface";

import { NotCanonical } from "./canonical.ts";
import { framesOf, sendFrame } from "./frames.ts";
import { decodeReply, encodeRequest, PROTOCOL, type Reply, type Request, type Welcome } from "./messages.ts";
import { connect, type Door } from "./peer.ts";

const HELLO_MS = 15_000;
const OUTPUT_BYTES_MAX = 9 << 20;
const RECEIPT_BYTES_MAX = 512 << 10;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];

/** The node said no. */
export class Refusal extends Error {
  constructor(
    readonly code: string,
    reason: string,
    readonly retryS: number,
  ) {
    super(reason);
  }
}

/** The node broke the protocol: nothing it says counts. */
export class Misbehaviour extends Error {}

export interface Ended {
  state: string;
  costMicro: bigint;
  code: string;
  reason: string;
  output: Uint8Array;
  receipt: Uint8Array;
}

export interface Watcher {
  connected(connection: Connection): void;
  /** What may be spent on the job, once the node has it. */
  taken(budgetMicro: bigint): void;
  event(event: Record<string, unknown>): void;
  /** The connection is gone; it is tried again after so many milliseconds, or as soon as `hurry` is called. */
  lost(why: string, againMs: number, hurry: () => void): void;
}

export class LightPeer {
  constructor(
    readonly peer: Libp2p,
    readonly door: Door,
  ) {}

  /** Introduce ourselves. Throws Refusal, Misbehaviour, or an Error of the connection. */
  async hello(): Promise<{ welcome: Welcome; connection: Connection }> {
    const connection = await connect(this.peer, this.door);
    const stream = await this.ask(connection, { tag: "hello", invitation: this.door.invitation });
    const limit = setTimeout(() => stream.abort(new Error("no answer")), HELLO_MS);
    try {
      for await (const reply of replies(stream)) {
        if (reply.tag === "welcome") return { welcome: reply, connection };
        throw new Misbehaviour(`${reply.tag} instead of a welcome`);
      }
      throw new Error("the node closed the stream without a word");
    } finally {
      clearTimeout(limit);
      stream.abort(new Error("done"));
    }
  }

  /**
   * Have a job run and follow it to its end; `body` null follows one that was submitted before.
   *
   * Throws Refusal or Misbehaviour; whatever happens to connections is told to `watcher` and tried again until `stop`.
   */
  async run(ask: Uint8Array, body: string | null, watcher: Watcher, stop: AbortSignal): Promise<Ended> {
    const job = new Following(ask, body);
    for (let failures = 0; ; ) {
      stop.throwIfAborted();
      const seen = job.after;
      try {
        const connection = await connect(this.peer, this.door);
        watcher.connected(connection);
        return await job.attend(await this.ask(connection, job.request()), watcher, stop);
      } catch (error) {
        if (error instanceof Refusal && error.code === "busy") failures = Math.max(failures, 2);
        else if (error instanceof Refusal || error instanceof Misbehaviour || stop.aborted) throw error;
        failures = job.after > seen ? 0 : failures;
        const againMs = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)] as number;
        failures += 1;
        await pause(againMs, stop, (hurry) => watcher.lost(said(error), againMs, hurry));
      }
    }
  }

  async cancel(ask: Uint8Array): Promise<void> {
    const stream = await this.ask(await connect(this.peer, this.door), { tag: "cancel", ask });
    for await (const _ of replies(stream)) break;
    stream.abort(new Error("done"));
  }

  private async ask(connection: Connection, request: Request): Promise<Stream> {
    const stream = await connection.newStream(PROTOCOL, {
      signal: AbortSignal.timeout(HELLO_MS),
      runOnLimitedConnection: true, // one through a relay
    });
    await sendFrame(stream, encodeRequest(request));
    return stream;
  }
}

/** One job as far as it was seen. */
class Following {
  after = -1;
  private taken = false;

  constructor(
    private readonly name: Uint8Array,
    private readonly body: string | null,
  ) {}

  request(): Request {
    if (this.body === null || this.taken) return { tag: "follow", ask: this.name, after: BigInt(this.after) };
    return { tag: "submit", ask: this.name, body: this.body };
  }

  async attend(stream: Stream, watcher: Watcher, stop: AbortSignal): Promise<Ended> {
    const parts = { output: new Gathered(OUTPUT_BYTES_MAX), receipt: new Gathered(RECEIPT_BYTES_MAX) };
    const abort = (): void => stream.abort(new Error("stopped"));
    stop.addEventListener("abort", abort);
    try {
      for await (const reply of replies(stream)) {
        if (reply.tag === "taken") {
          this.taken = true;
          watcher.taken(reply.budget_micro);
        } else if (reply.tag === "event") {
          if (Number(reply.seq) <= this.after) continue;
          this.after = Number(reply.seq);
          watcher.event(eventOf(reply.body));
        } else if (reply.tag === "part") {
          parts[reply.of].add(reply.data);
        } else if (reply.tag === "done") {
          const { state, cost_micro: costMicro, code, reason } = reply;
          return { state, costMicro, code, reason, output: parts.output.whole(), receipt: parts.receipt.whole() };
        } else {
          throw new Misbehaviour(`${reply.tag} about a job`);
        }
      }
      throw new Error("the node closed the connection before the job was over");
    } finally {
      stop.removeEventListener("abort", abort);
      stream.abort(new Error("done"));
    }
  }
}

/** Pieces of bytes, up to a bound. */
class Gathered {
  private readonly parts: Uint8Array[] = [];
  private size = 0;

  constructor(private readonly max: number) {}

  add(part: Uint8Array): void {
    this.size += part.length;
    if (this.size > this.max) throw new Misbehaviour(`more than ${this.max} bytes`);
    this.parts.push(part);
  }

  whole(): Uint8Array {
    const joined = new Uint8Array(this.size);
    let at = 0;
    for (const part of this.parts) {
      joined.set(part, at);
      at += part.length;
    }
    return joined;
  }
}

function eventOf(body: string): Record<string, unknown> {
  try {
    const found: unknown = JSON.parse(body);
    if (typeof found === "object" && found !== null && !Array.isArray(found)) return found as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new Misbehaviour("an event that is no JSON object");
}

async function* replies(stream: Stream): AsyncGenerator<Exclude<Reply, { tag: "refused" }>> {
  for await (const frame of framesOf(stream)) {
    let reply: Reply;
    try {
      reply = decodeReply(frame);
    } catch (error) {
      if (error instanceof NotCanonical) throw new Misbehaviour(`a frame that is none: ${error.message}`);
      throw error;
    }
    if (reply.tag === "refused") throw new Refusal(reply.code, reply.reason, reply.retry_s);
    yield reply;
  }
}

async function pause(ms: number, stop: AbortSignal, told: (hurry: () => void) => void): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    const hurry = (): void => {
      clearTimeout(timer);
      resolve();
    };
    stop.addEventListener("abort", hurry, { once: true });
    told(hurry);
  });
}

/** The reason of an error, of several at once where libp2p tried several ways. */
export function said(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return said(error.errors[0]);
  return error instanceof Error ? error.message : String(error);
}
