/**
 * Canonical MessagePack: one spelling per value (docs/spec/encoding.md, "Canonical encoding").
 *
 * A codec reads exactly one type. It refuses every other spelling while it reads, so a value that was read encodes
 * back to the bytes it came from, NaNs apart, whose bits JavaScript does not keep. Integers are bigint: they reach 2^64.
 */

export class NotCanonical extends Error {}

export interface Codec<T> {
  read(from: Reader): T;
  write(to: Writer, value: T): void;
}

export type Value<C> = C extends Codec<infer T> ? T : never;

const FATAL = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const UTF8 = new TextEncoder();

/** A tag, the bytes of the length behind it, and the least length that has no shorter form. */
type Form = readonly [tag: number, size: 1 | 2 | 4, least: number];

/** Types that begin with a length: short ones carry it in the tag itself. */
interface Family {
  readonly fixed: number;
  readonly fixedMax: number;
  readonly forms: readonly Form[];
}

const BIN: Family = { fixed: 0, fixedMax: -1, forms: [[0xc4, 1, 0], [0xc5, 2, 0x100], [0xc6, 4, 0x10000]] };
const STR: Family = { fixed: 0xa0, fixedMax: 31, forms: [[0xd9, 1, 32], [0xda, 2, 0x100], [0xdb, 4, 0x10000]] };
const ARRAY: Family = { fixed: 0x90, fixedMax: 15, forms: [[0xdc, 2, 16], [0xdd, 4, 0x10000]] };
const MAP: Family = { fixed: 0x80, fixedMax: 15, forms: [[0xde, 2, 16], [0xdf, 4, 0x10000]] };

export class Reader {
  private at = 0;
  private readonly view: DataView;

  constructor(private readonly raw: Uint8Array) {
    this.view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  }

  get ended(): boolean {
    return this.at === this.raw.length;
  }

  peek(): number {
    this.need(1);
    return this.raw[this.at] as number;
  }

  byte(): number {
    const found = this.peek();
    this.at += 1;
    return found;
  }

  take(length: number): Uint8Array {
    this.need(length);
    this.at += length;
    return this.raw.slice(this.at - length, this.at);
  }

  /** An unsigned number of 1, 2, 4 or 8 bytes. */
  unsigned(size: 1 | 2 | 4 | 8): bigint {
    this.need(size);
    let found = 0n;
    for (let i = 0; i < size; i += 1) found = (found << 8n) | BigInt(this.raw[this.at + i] as number);
    this.at += size;
    return found;
  }

  double(): number {
    this.need(8);
    this.at += 8;
    return this.view.getFloat64(this.at - 8);
  }

  length(family: Family): number {
    const tag = this.byte();
    if (tag >= family.fixed && tag <= family.fixed + family.fixedMax) return tag - family.fixed;
    for (const [known, size, least] of family.forms) {
      if (tag !== known) continue;
      const found = Number(this.unsigned(size));
      if (found < least) throw new NotCanonical("a length spelled longer than it need be");
      return found;
    }
    throw new NotCanonical(`tag ${tag} where another type belongs`);
  }

  private need(length: number): void {
    if (this.raw.length - this.at < length) throw new NotCanonical("it ends too soon");
  }
}

export class Writer {
  private readonly parts: number[] = [];

  byte(value: number): void {
    this.parts.push(value);
  }

  bytes(value: Uint8Array): void {
    for (const each of value) this.parts.push(each);
  }

  unsigned(value: bigint, size: number): void {
    for (let shift = BigInt(8 * (size - 1)); shift >= 0n; shift -= 8n) this.parts.push(Number((value >> shift) & 0xffn));
  }

  double(value: number): void {
    const raw = new Uint8Array(8);
    new DataView(raw.buffer).setFloat64(0, value);
    this.bytes(raw);
  }

  length(family: Family, value: number): void {
    if (value <= family.fixedMax) return this.byte(family.fixed + value);
    const [tag, size] = family.forms.findLast(([, , least]) => value >= least) as Form;
    this.byte(tag);
    this.unsigned(BigInt(value), size);
  }

  done(): Uint8Array {
    return Uint8Array.from(this.parts);
  }
}

/** Signed forms: tag, size, and the least value that the next shorter form cannot carry. */
const SIGNED: Record<number, [1 | 2 | 4 | 8, bigint]> = {
  0xd0: [1, -33n],
  0xd1: [2, -(1n << 7n) - 1n],
  0xd2: [4, -(1n << 15n) - 1n],
  0xd3: [8, -(1n << 31n) - 1n],
};
const UNSIGNED: Record<number, [1 | 2 | 4 | 8, bigint]> = {
  0xcc: [1, 0x80n],
  0xcd: [2, 0x100n],
  0xce: [4, 0x10000n],
  0xcf: [8, 0x100000000n],
};

export const integer: Codec<bigint> = {
  read(from) {
    const tag = from.byte();
    if (tag <= 0x7f) return BigInt(tag);
    if (tag >= 0xe0) return BigInt(tag) - 256n;
    const up = UNSIGNED[tag];
    const down = SIGNED[tag];
    if (up !== undefined) {
      const found = from.unsigned(up[0]);
      if (found < up[1]) throw new NotCanonical("an integer spelled longer than it need be");
      return found;
    }
    if (down === undefined) throw new NotCanonical(`tag ${tag} where an integer belongs`);
    const found = BigInt.asIntN(8 * down[0], from.unsigned(down[0]));
    if (found > down[1]) throw new NotCanonical("an integer spelled longer than it need be");
    return found;
  },
  write(to, value) {
    if (value >= 0n) {
      if (value <= 0x7fn) return to.byte(Number(value));
      for (const [tag, [size]] of Object.entries(UNSIGNED)) {
        if (value >> BigInt(8 * size) === 0n) {
          to.byte(Number(tag));
          return to.unsigned(value, size);
        }
      }
      throw new NotCanonical("an integer beyond 2^64 - 1");
    }
    if (value >= -32n) return to.byte(Number(value + 256n));
    for (const [tag, [size]] of Object.entries(SIGNED)) {
      if (value >= -(1n << BigInt(8 * size - 1))) {
        to.byte(Number(tag));
        return to.unsigned(BigInt.asUintN(8 * size, value), size);
      }
    }
    throw new NotCanonical("an integer below -2^63");
  },
};

export const double: Codec<number> = {
  read(from) {
    if (from.byte() !== 0xcb) throw new NotCanonical("no float of 64 bits");
    return from.double();
  },
  write(to, value) {
    to.byte(0xcb);
    to.double(value);
  },
};

export const bytes: Codec<Uint8Array> = {
  read: (from) => from.take(from.length(BIN)),
  write(to, value) {
    to.length(BIN, value.length);
    to.bytes(value);
  },
};

export const text: Codec<string> = {
  read(from) {
    const raw = from.take(from.length(STR));
    try {
      return FATAL.decode(raw);
    } catch {
      throw new NotCanonical("a text that is not UTF-8");
    }
  },
  write(to, value) {
    const raw = UTF8.encode(value);
    to.length(STR, raw.length);
    to.bytes(raw);
  },
};

export function oneOf<const W extends string>(...words: readonly W[]): Codec<W> {
  return {
    read(from) {
      const found = text.read(from);
      if (!(words as readonly string[]).includes(found)) throw new NotCanonical(`${found.slice(0, 40)}: not one of ${words.join(", ")}`);
      return found as W;
    },
    write: (to, value) => text.write(to, value),
  };
}

export function list<T>(item: Codec<T>): Codec<T[]> {
  return {
    read(from) {
      const length = from.length(ARRAY);
      const found: T[] = [];
      for (let i = 0; i < length; i += 1) found.push(item.read(from)); // each takes a byte at least
      return found;
    },
    write(to, value) {
      to.length(ARRAY, value.length);
      for (const each of value) item.write(to, each);
    },
  };
}

export function map<T>(item: Codec<T>): Codec<Map<string, T>> {
  return {
    read(from) {
      const length = from.length(MAP);
      const found = new Map<string, T>();
      let before: Uint8Array | undefined;
      for (let i = 0; i < length; i += 1) {
        const key = text.read(from);
        const spelled = UTF8.encode(key);
        if (before !== undefined && compare(before, spelled) >= 0) throw new NotCanonical("keys that do not ascend");
        before = spelled;
        found.set(key, item.read(from));
      }
      return found;
    },
    write(to, value) {
      const keys = [...value.keys()].sort((a, b) => compare(UTF8.encode(a), UTF8.encode(b)));
      to.length(MAP, keys.length);
      for (const key of keys) {
        text.write(to, key);
        item.write(to, value.get(key) as T);
      }
    },
  };
}

export function optional<T>(inner: Codec<T>): Codec<T | null> {
  return {
    read(from) {
      if (from.peek() !== 0xc0) return inner.read(from);
      from.byte();
      return null;
    },
    write(to, value) {
      if (value === null) to.byte(0xc0);
      else inner.write(to, value);
    },
  };
}

type Fields = Record<string, Codec<any>>; // each field has a type of its own
type Struct<F extends Fields> = { [K in keyof F]: Value<F[K]> };

/** An array of the fields in their order; with a tag, a text in front. */
export function struct<const F extends Fields>(fields: F, tag?: string): Codec<Struct<F>> {
  const names = Object.keys(fields);
  const size = names.length + (tag === undefined ? 0 : 1);
  return {
    read(from) {
      const length = from.length(ARRAY);
      if (length !== size) throw new NotCanonical(`${length} fields instead of ${size}`);
      if (tag !== undefined && text.read(from) !== tag) throw new NotCanonical(`not a ${tag}`);
      const found: Record<string, unknown> = {};
      for (const name of names) found[name] = (fields[name] as Codec<unknown>).read(from);
      return found as Struct<F>;
    },
    write(to, value) {
      to.length(ARRAY, size);
      if (tag !== undefined) text.write(to, tag);
      for (const name of names) (fields[name] as Codec<unknown>).write(to, value[name]);
    },
  };
}

export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const to = new Writer();
  codec.write(to, value);
  return to.done();
}

/** Throws NotCanonical if `raw` is too long or not exactly the encoding of one value. */
export function decode<T>(codec: Codec<T>, raw: Uint8Array, bytesMax: number): T {
  if (raw.length > bytesMax) throw new NotCanonical(`${raw.length} bytes, at most ${bytesMax}`);
  const from = new Reader(raw);
  const found = codec.read(from);
  if (!from.ended) throw new NotCanonical("bytes behind the value");
  return found;
}

/** Order of byte strings, as of numbers in base 256. */
export function compare(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i += 1) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return compare(a, b) === 0;
}
