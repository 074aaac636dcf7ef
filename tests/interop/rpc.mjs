// Unary calls of docs/spec/rpc.md, written from that page alone, both ways over js-libp2p; driven by lines of JSON.
import { inflateRawSync } from 'node:zlib'
import { bytesOf, framed, multiaddr, say, serve, started } from './node.mjs'

const PROTOCOL = '/quorate/rpc/1'
const OPEN = 1, BEGIN = 2, MORE = 3, ERROR = 5
const LAST = 0x80, ZIPPED = 0x40
const CHUNK = 65536

const u32 = (number) => { const raw = Buffer.alloc(4); raw.writeUInt32BE(number); return raw }
const frame = (kind, flags, request, ...parts) => {
  const payload = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([kind | flags]), u32(request), u32(payload.length), payload])
}

// A struct of one text, as canonical MessagePack, with no tensors.
function message (text) {
  const raw = Buffer.from(text)
  const head = raw.length < 32 ? [0xa0 | raw.length]
    : raw.length < 256 ? [0xd9, raw.length]
      : raw.length < 65536 ? [0xda, raw.length >> 8, raw.length & 255]
        : [0xdb, ...u32(raw.length)]
  return Buffer.concat([Buffer.from([0, 0x91, ...head]), raw])
}

function textOf (message) {
  const [tensors, array, mark] = message
  if (tensors !== 0 || array !== 0x91) throw new Error('not a struct of one field')
  const skip = { 0xd9: 4, 0xda: 5, 0xdb: 7 }[mark] ?? 3
  return message.subarray(skip).toString()
}

// The frames of one message that is the last of its sender.
function * spoken (request, body) {
  yield frame(BEGIN, LAST, request, u32(body.length), body.subarray(0, CHUNK))
  for (let at = CHUNK; at < body.length; at += CHUNK) yield frame(MORE, 0, request, body.subarray(at, at + CHUNK))
}

// Reads batches from a stream and gives their frames.
async function * frames (stream) {
  let held = Buffer.alloc(0)
  for await (const chunk of stream) {
    held = Buffer.concat([held, bytesOf(chunk)])
    while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
      let batch = held.subarray(4, 4 + held.readUInt32BE(0))
      held = held.subarray(4 + batch.length)
      while (batch.length > 0) {
        const length = batch.readUInt32BE(5)
        yield { kind: batch[0] & 0x0f, flags: batch[0] & 0xc0, request: batch.readUInt32BE(1), payload: batch.subarray(9, 9 + length) }
        batch = batch.subarray(9 + length)
      }
    }
  }
}

// Puts the chunks of a message together; the whole once it is there.
function gather (into, { kind, flags, payload }) {
  if (kind === BEGIN) {
    into.size = payload.readUInt32BE(0)
    into.parts = []
    payload = payload.subarray(4)
  }
  into.parts.push(flags & ZIPPED ? inflateRawSync(payload) : payload)
  into.zipped ||= (flags & ZIPPED) !== 0
  const whole = Buffer.concat(into.parts)
  return whole.length === into.size ? whole : undefined
}

const send = async (stream, bytes) => { if (!stream.send(framed(bytes))) await stream.onDrain() }

// Calls one after the other on one channel, all of them sent before the first answer is awaited.
async function call (address, method, texts) {
  const stream = await node.dialProtocol(multiaddr(address), PROTOCOL)
  const left = new Map()
  for (const [at, text] of texts.entries()) {
    await send(stream, frame(OPEN, 0, at + 1, u32(60_000), Buffer.from(method)))
    for (const each of spoken(at + 1, message(text))) await send(stream, each)
    left.set(at + 1, {})
  }
  const answers = []
  for await (const each of frames(stream)) {
    if (each.kind === ERROR) {
      const size = each.payload[4]
      answers[each.request - 1] = { error: each.payload.subarray(5, 5 + size).toString() }
      left.delete(each.request)
    } else if (each.kind === BEGIN || each.kind === MORE) {
      const into = left.get(each.request)
      const whole = gather(into, each)
      if (whole !== undefined) {
        answers[each.request - 1] = { text: textOf(whole), ...(into.zipped ? { zipped: true } : {}) }
        left.delete(each.request)
      }
    }
    if (left.size === 0) break
  }
  await stream.close()
  say({ answers })
}

// Answers `js.upper`, and refuses whatever else.
async function answer (stream) {
  const open = new Map()
  for await (const each of frames(stream)) {
    if (each.kind === OPEN) {
      open.set(each.request, { method: each.payload.subarray(4).toString() })
    } else if (open.has(each.request) && (each.kind === BEGIN || each.kind === MORE)) {
      const into = open.get(each.request)
      const whole = gather(into, each)
      if (whole === undefined) continue
      open.delete(each.request)
      if (into.method === 'js.upper') {
        for (const one of spoken(each.request, message(textOf(whole).toUpperCase()))) await send(stream, one)
      } else {
        const code = Buffer.from('unknown')
        await send(stream, frame(ERROR, 0, each.request, u32(0), Buffer.from([code.length]), code, Buffer.from(into.method)))
      }
    }
  }
}

const node = await started({})
await node.handle(PROTOCOL, answer)
await serve(node, async (ask) => {
  try {
    await call(ask.call, ask.method, ask.texts)
  } catch (error) {
    say({ failed: error.message })
  }
})
