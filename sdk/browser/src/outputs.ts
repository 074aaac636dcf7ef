/** Answers, from their canonical bytes: a text, or a grey picture. */

import { decode, NotCanonical } from "./canonical.ts";
import * as structs from "./structs.ts";

const OUTPUT_BYTES_MAX = 16 * (512 << 10) + (64 << 10);
const SIDE_MAX = 4096;

export type Answer = { text: string } | { width: number; height: number; grey: Uint8Array };

function tensor(raw: Uint8Array, name: string, dtype: string, dimensions: number): structs.Tensor {
  const found = decode(structs.Output, raw, OUTPUT_BYTES_MAX).tensors.get(name);
  if (found === undefined || found.dtype !== dtype || found.shape.length !== dimensions) {
    throw new NotCanonical(`no tensor ${name} of ${dtype} with ${dimensions} sides`);
  }
  const items = found.shape.reduce((product, side) => product * side, 1n);
  const size = dtype === "u1" ? 1n : 4n;
  if (found.shape.some((side) => side < 0n) || items * size !== BigInt(found.data.length)) {
    throw new NotCanonical("as many bytes as the shape says do not follow");
  }
  return found;
}

/** Throws NotCanonical. */
export function answerOf(kind: string, raw: Uint8Array): Answer {
  if (kind === "text.generate") {
    const { data } = tensor(raw, "tokens", "i4", 1);
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const ids = Array.from({ length: data.length / 4 }, (_, at) => view.getInt32(4 * at, true));
    const known = ids.filter((id) => id >= 0 && id < 256);
    return { text: new TextDecoder().decode(Uint8Array.from(known.at(-1) === 0 ? known.slice(0, -1) : known)) };
  }
  if (kind !== "image.generate") throw new NotCanonical(`an answer of kind ${kind} is not shown here`);
  const { shape, data } = tensor(raw, "pixels", "u1", 2);
  const [height, width] = shape.map(Number) as [number, number];
  if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX) throw new NotCanonical("no picture");
  return { width, height, grey: data };
}
