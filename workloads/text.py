"""`text.generate`: decoding with a key-value cache, and re-checking by one teacher-forced pass."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire import text_sketch
from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.job import Expected, Output, TextInput, Trace
from wire.tensor import Tensor, from_numpy
from workloads import attention, claims
from workloads.executor import CancelCheck, Cancelled, Emit, Progress, Token, never
from workloads.forward import Floats
from workloads.sampler import END, UNIT_BITS, BeamSearch, Chooser, log_softmax, margins


class Network(Protocol):
    """`workloads.forward.TextNetwork` or `workloads.ort.TextNetwork`."""

    def __call__(
        self, tokens: NDArray[np.int64], cos: Floats, sin: Floats, mask: Floats, past: Floats
    ) -> tuple[Floats, Floats, Floats]: ...


class Decoder:
    """A network and its cache of the last `window - 1` positions."""

    def __init__(self, network: Network, config: Mapping[str, int], dtype: np.dtype[np.floating]) -> None:
        self.network, self.config = network, config
        self.pairs = config["width"] // config["heads"] // 2
        self.past: Floats = np.zeros((2 * config["layers"], 1, config["heads"], 0, 2 * self.pairs), dtype)
        self.position = 0

    def read(self, tokens: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Feed tokens i8[b, t]; returns logits [b, t, vocabulary] and last hidden states [b, t, width]."""
        count, window = tokens.shape[1], self.config["window"]
        cos, sin = attention.rotary(self.position, count, self.pairs)
        mask = attention.mask(self.past.shape[3], count, window)
        logits, hidden, present = self.network(tokens, cos, sin, mask, self.past)
        self.past = present[:, :, :, -(window - 1) :]
        self.position += count
        return logits, hidden

    def reorder(self, parents: list[int]) -> None:
        """Keep the caches of these rows, in this order."""
        self.past = self.past[:, parents]


class TextModel:
    """The language model in one numeric class."""

    def __init__(self, network: Network, config: Mapping[str, int], *, exact: bool, sequential: bool = False) -> None:
        self.network, self.config, self.exact, self.sequential = network, config, exact, sequential
        self.dtype: np.dtype[np.floating] = np.dtype(np.float64 if exact else np.float32)

    def run(self, given: TextInput, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """Generate; text is emitted as it comes, or at the end for beam search."""
        return answer(given, seed, *self.generate(given, seed, emit, cancelled))

    def generate(
        self, given: TextInput, seed: int, emit: Emit, cancelled: CancelCheck
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The tokens of a run, and the last hidden states f4[n, width] from which they were chosen."""
        generate = self._beam if given.method == "beam" else self._sample
        tokens, hidden = generate(given, seed, emit, cancelled)
        return tokens, np.stack(hidden).astype(np.float32)

    def _start(self, given: TextInput) -> tuple[Decoder, Floats, Floats]:
        decoder = Decoder(self.network, self.config, self.dtype)
        logits, hidden = decoder.read(np.array([prompt_tokens(given)], dtype=np.int64))
        return decoder, logits[:, -1], hidden[:, -1]

    def _sample(
        self, given: TextInput, seed: int, emit: Emit, cancelled: CancelCheck
    ) -> tuple[list[int], list[Floats]]:
        stream = _Stream(emit)
        tokens: list[int] = []
        hidden: list[Floats] = []
        stop_at(cancelled)
        chooser = Chooser(given, seed)
        decoder, logits, states = self._start(given)
        while True:
            token = chooser.choose(len(tokens), logits[0])
            tokens.append(token)
            hidden.append(states[0])
            stream.feed(token)
            if token == END or len(tokens) == given.tokens_max:
                stream.end()
                return tokens, hidden
            stop_at(cancelled)
            rows, after = decoder.read(np.array([[token]], dtype=np.int64))
            logits, states = rows[:, -1], after[:, -1]

    def _beam(self, given: TextInput, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[list[int], list[Floats]]:
        search = BeamSearch(given.beams)
        stop_at(cancelled)
        decoder, logits, states = self._start(given)
        for done in range(1, given.tokens_max + 1):
            parents = search.extend(logits, states)
            emit(Progress(done, given.tokens_max))
            if search.done or done == given.tokens_max:
                break
            stop_at(cancelled)
            decoder.reorder(parents)
            last = np.array([[beam.tokens[-1]] for beam in search.live], dtype=np.int64)
            rows, after = decoder.read(last)
            logits, states = rows[:, -1], after[:, -1]
        stream = _Stream(emit)
        for token in search.best.tokens:
            stream.feed(token)
        stream.end()
        return search.best.tokens, search.best.hidden

    def recheck(
        self,
        given: TextInput,
        seed: int,
        output: Output,
        trace: Trace,
        emit: Emit,
        cancelled: CancelCheck,
        steps: Sequence[int] = (),
    ) -> Expected:
        """Margins, and projections of own hidden states; in the exact lane own tokens and sketch.

        One pass over the claimed tokens says at each place what follows. Where every token is the one that follows, the
        text is that of a run, by induction; beam search is run again.

        Args:
            steps: which windows of 32 tokens were drawn: only what is up to the end of the last one is computed. Empty:
                all. All is computed in any case of a beam search, and of a text that ends before `tokens_max`: who
                ends it early saves more than the window in which that shows.
        """
        tokens = claimed_tokens(given, output)
        rows = len(tokens) * text_sketch.rows_per_token(len(tokens))
        claims.array(claims.only(trace, "sketch")["sketch"], "sketch", "u1", (rows, text_sketch.ROW_BYTES))
        if self.exact and given.method == "beam":
            own, own_trace = self.run(given, seed, emit, cancelled)
            return Expected({**own.tensors, **own_trace.tensors})
        if given.method != "beam" and len(tokens) == given.tokens_max:
            tokens = tokens[: text_sketch.prefix(len(tokens), steps)]
        logits, hidden = self.prefill(given, tokens, cancelled)
        if self.exact:
            chooser = Chooser(given, seed)
            following = [chooser.choose(at, row) for at, row in enumerate(logits)]
            own, own_trace = answer(given, seed, following, hidden)
            return Expected({**own.tensors, **own_trace.tensors})
        if given.method == "beam":
            margin = self._beam_margin(given, seed, tokens, logits, cancelled)
        else:
            margin = margins(given, seed, logits, np.array(tokens))
        projections, dither = text_sketch.project(hidden, text_sketch.seed_of(given, seed))
        computed = {"margin": margin, "projections": projections, "dither": dither}
        return Expected({name: from_numpy(value) for name, value in computed.items()})

    def recompute(self, given: Wire, seed: int, step: int, state: Tensor) -> Tensor:
        """The tokens after step `step`, from those before it; after the end nothing is added.

        The tokens are read one by one, as a run reads them, so that every bit of the logits is the run's.
        """
        assert isinstance(given, TextInput), "checked with the spec"
        if not self.exact or given.method == "beam":
            raise LocalError("a text has steps in the exact lane, and unless it is searched with beams")
        count = state.shape[0] if len(state.shape) == 1 else 0
        tokens: list[int] = claims.array(state, "state", "i4", (count,)).tolist()
        done = tokens[-1:] == [END]
        if not 0 <= step < given.tokens_max or (len(tokens) != step and not (done and len(tokens) < step)):
            raise Malformed(f"{len(tokens)} tokens before step {step} of {given.tokens_max}")
        if END in tokens[:-1] or any(not 0 <= token <= 255 for token in tokens):
            raise Malformed("tokens outside 0..255, or after the end")
        if done:
            return state
        decoder, logits, _ = self._start(given)
        for token in tokens:
            rows, _ = decoder.read(np.array([[token]], dtype=np.int64))
            logits = rows[:, -1]
        following = Chooser(given, seed).choose(len(tokens), logits[0])
        return from_numpy(np.array([*tokens, following], dtype=np.int32))

    def recheck_steps(
        self, given: TextInput, seed: int, output: Output, trace: Trace, steps: Sequence[int]
    ) -> Expected:
        """`recheck` of which these windows were drawn."""
        return self.recheck(given, seed, output, trace, lambda event: None, never, steps)

    def prefill(
        self, given: TextInput, tokens: list[int], cancelled: CancelCheck
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Logits [n, vocabulary] and hidden states f4[n, width] of claimed tokens, in one pass over all positions."""
        stop_at(cancelled)
        prompt = prompt_tokens(given)
        text = np.array([prompt + tokens[:-1]], dtype=np.int64)
        decoder = Decoder(self.network, self.config, self.dtype)
        parts = np.split(text, text.shape[1], axis=1) if self.sequential else [text]
        read = [decoder.read(part) for part in parts]
        start = len(prompt) - 1
        logits = np.concatenate([part[0] for part in read], axis=1)[0, start:]
        hidden = np.concatenate([part[1] for part in read], axis=1)[0, start:]
        return logits, hidden.astype(np.float32)

    def _beam_margin(
        self, given: TextInput, seed: int, tokens: list[int], logits: Floats, cancelled: CancelCheck
    ) -> NDArray[np.int64]:
        """All zero but the last: how far the text's log probability is from that of our own search's text, in units."""
        own, _ = self._beam(given, seed, lambda event: None, cancelled)
        margin = np.zeros(len(tokens), dtype=np.int64)
        if own != tokens:
            claimed = log_softmax(logits)[np.arange(len(tokens)), tokens].sum()
            theirs, _ = self.prefill(given, own, cancelled)
            apart = abs(log_softmax(theirs)[np.arange(len(own)), own].sum() - claimed)
            margin[-1] = round(apart * 2.0**UNIT_BITS)
        return margin


def answer(given: TextInput, seed: int, tokens: list[int], hidden: NDArray[np.floating]) -> tuple[Output, Trace]:
    """Output and trace from the tokens and their hidden states [n, width]."""
    sketch = text_sketch.sketch(hidden, text_sketch.seed_of(given, seed))
    return Output({"tokens": from_numpy(np.array(tokens, dtype=np.int32))}), Trace({"sketch": from_numpy(sketch)})


def prompt_tokens(given: TextInput) -> list[int]:
    """The prompt's bytes after the mark that begins a text."""
    return [END, *given.prompt.encode(errors="replace")]


def claimed_tokens(given: TextInput, output: Output) -> list[int]:
    """The claimed tokens.

    Raises:
        Malformed: no run gives them: too many, too few without an end mark, or no bytes.
    """
    tensor = claims.only(output, "tokens")["tokens"]
    count = tensor.shape[0] if len(tensor.shape) == 1 else 0
    tokens: list[int] = claims.array(tensor, "tokens", "i4", (count,)).tolist()
    if not 1 <= count <= given.tokens_max or any(not 0 <= token <= 255 for token in tokens):
        raise Malformed(f"{count} tokens; 1 to {given.tokens_max} bytes are expected")
    if END in tokens[:-1] or (tokens[-1] != END and count < given.tokens_max):
        raise Malformed("the text ends too early or goes on past its end")
    return tokens


def stop_at(cancelled: CancelCheck) -> None:
    """Raises: Cancelled if asked to stop."""
    if cancelled():
        raise Cancelled("the job was cancelled")


class _Stream:
    """Turns tokens into pieces of text: bytes of one character are held until it is whole."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> None:
        if token != END and (piece := self._decode.decode(bytes([token]))):
            self._emit(Token(piece))

    def end(self) -> None:
        if piece := self._decode.decode(b"", final=True):
            self._emit(Token(piece))
