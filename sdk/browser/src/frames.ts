/** Frames on a libp2p stream: length (4 bytes, big-endian), then that many bytes (docs/spec/transport.md, "Frames"). */

import type { Stream } from "@libp2p/interface";

import { FRAME_BYTES_MAX } from "./messages.ts";

/** What reading needs of a stream's pieces: both libp2p's lists of arrays and plain arrays have it. */
export interface Piece {
  subarray(): Uint8Array;
}

/** Cuts pieces into frames; throws on a frame past the limit, before it is there. */
export class Unframer {
  private held: Uint8Array = new Uint8Array();

  feed(piece: Uint8Array): Uint8Array[] {
    const joined = new Uint8Array(this.held.length + piece.length);
    joined.set(this.held);
    joined.set(piece, this.held.length);
    const frames: Uint8Array[] = [];
    let at = 0;
    while (joined.length - at >= 4) {
      const length = new DataView(joined.buffer, at).getUint32(0);
      if (length > FRAME_BYTES_MAX) throw new Error(`the node sent a frame of ${length} bytes`);
      if (joined.length - at - 4 < length) break;
      frames.push(joined.slice(at + 4, at + 4 + length));
      at += 4 + length;
    }
    this.held = joined.slice(at);
    return frames;
  }
}

export async function sendFrame(stream: Stream, payload: Uint8Array): Promise<void> {
  const frame = new Uint8Array(4 + payload.length);
  new DataView(frame.buffer).setUint32(0, payload.length);
  frame.set(payload, 4);
  if (!stream.send(frame)) await stream.onDrain();
}

/** The frames that come, until the other side closes. */
export async function* framesOf(stream: Stream): AsyncGenerator<Uint8Array> {
  const unframer = new Unframer();
  for await (const piece of stream) yield* unframer.feed(piece instanceof Uint8Array ? piece : piece.subarray());
}
