"""What an executor promises: determinism, honest re-checks that pass, cheats that show, refusals that help."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.workloads.specs import NAMES, all_kinds, spec, text
from verify.fingerprints import text_prefill
from wire import codec
from wire.errors import LocalError, Malformed
from wire.job import EmbedInput, Expected, ImageInput, JobSpec, Output, TextInput, Trace, check_spots, parts
from wire.tensor import from_numpy
from workloads.executor import Cancelled, Event, Executor, Progress, Token, never, text_of
from workloads.variants import make_executor, variants

HONEST = 1e-4
"""Above every honest distance and below every cheat's in these tests; verify calibrates its own thresholds."""


@functools.cache
def executor(variant: str = "default", cheat: str | None = None) -> Executor:
    return make_executor(variant, cheat=cheat)


def run(job: JobSpec, by: Executor | None = None) -> tuple[Output, Trace]:
    return (by or executor()).run(job, emit=lambda event: None, cancelled=never)


def distance(output: Output, trace: Trace, expected: Expected) -> float:
    """The largest difference between a claim and what a juror computed."""
    if "margin" in expected.tensors:
        return text_distance(output, trace, expected)
    claimed = {name: tensor.numpy() for name, tensor in {**output.tensors, **trace.tensors}.items()}
    if "latents" in claimed:
        claimed["noise"], claimed["steps"] = claimed["latents"][0], claimed["latents"][1:]
    worst = 0.0
    for name, tensor in expected.tensors.items():
        own = tensor.numpy().astype(np.float64)
        worst = max(worst, float(np.abs(own - claimed[name].astype(np.float64)).max()))
    return worst


def text_distance(output: Output, trace: Trace, expected: Expected) -> float:
    """Relative L2 of hidden states as the sketch shows it, or logits by which a token lacks more than two units."""
    found = text_prefill.compare(output, trace, expected)
    return max(found["token"], found["block"], found["units"] / 4096 if found["units"] > 2 else 0.0)


def label(job: JobSpec) -> str:
    given = job.input()
    return given.method if isinstance(given, TextInput) else job.kind


@pytest.mark.parametrize("lane", ["tolerant", "exact"])
@pytest.mark.parametrize("index", range(5), ids=[label(job) for job in all_kinds()])
def test_the_same_job_gives_the_same_bytes(lane: Any, index: int) -> None:
    job = all_kinds(lane=lane)[index]
    assert run(job) == run(job)


@pytest.mark.parametrize("job", [all_kinds()[1], all_kinds()[3]], ids=["sample", "image"])
def test_another_seed_gives_another_answer(job: JobSpec) -> None:
    assert run(job)[0] != run(spec(job.kind, job.input(), seed=6))[0]


@pytest.mark.parametrize("variant", variants)
def test_the_exact_lane_has_equal_bytes_in_every_numeric_variant(variant: str) -> None:
    for job in all_kinds(lane="exact", steps=4):
        assert run(job, executor(variant)) == run(job), label(job)


@pytest.mark.parametrize("variant", variants)
def test_the_tolerant_lane_accepts_honest_work_of_every_variant(variant: str) -> None:
    for job in all_kinds():
        output, trace = run(job, executor(variant))
        assert distance(output, trace, executor().recheck(job, output, trace)) < HONEST, label(job)


def test_variants_differ_in_the_last_bits_of_the_tolerant_lane() -> None:
    job = all_kinds()[3]
    assert len({codec.encode(run(job, executor(name))[1]) for name in ("default", "ort-noopt", "numpy")}) > 1


@pytest.mark.parametrize(
    ("cheat", "index"),
    [
        ("fewer-steps", 3),
        ("one-step-less", 3),
        ("int8-weights", 0),
        ("int8-weights", 3),
        ("int8-weights", 4),
        ("bf16-weights", 0),
        ("bf16-weights", 3),
        ("bf16-weights", 4),
        ("wrong-seed", 1),
        ("wrong-seed", 3),
        ("random-embedding", 4),
    ],
)
def test_a_cheat_keeps_the_shapes_and_shows_in_the_distance(cheat: str, index: int) -> None:
    job = all_kinds()[index]
    output, trace = run(job, executor(cheat=cheat))
    assert distance(output, trace, executor().recheck(job, output, trace)) > 4 * HONEST


@pytest.mark.parametrize("variant", ["default", "ort-single", "numpy", "numpy-shifted"])
def test_a_recheck_of_some_steps_is_that_of_all_at_these_steps(variant: str) -> None:
    job = all_kinds()[3]
    output, trace = run(job)
    whole = executor(variant).recheck(job, output, trace).tensors
    for steps in ((0,), (9,), (2, 3, 7), tuple(range(10))):
        some = executor(variant).recheck(job, output, trace, steps=steps).tensors
        assert some["steps"].numpy() == pytest.approx(whole["steps"].numpy()[list(steps)], abs=1e-5)
        assert (some["noise"], some["pixels"]) == (whole["noise"], whole["pixels"])


@pytest.mark.parametrize("steps", [(-1,), (10,), (3, 3), (4, 2), (0, 1 << 40)])
def test_steps_that_a_run_does_not_have_are_refused(steps: tuple[int, ...]) -> None:
    job = all_kinds()[3]
    with pytest.raises(LocalError):
        executor().recheck(job, *run(job), steps=steps)


WHOLE = [all_kinds()[2], all_kinds()[4], *all_kinds(lane="exact", steps=4)[2:4]]


@pytest.mark.parametrize("job", WHOLE, ids=label)
def test_beam_searches_embeddings_and_exact_runs_are_checked_whole(job: JobSpec) -> None:
    with pytest.raises(LocalError, match="checked whole"):
        executor().recheck(job, *run(job), steps=(0,))
    with pytest.raises(LocalError, match="0 to 0, the parts of the run"):
        run(spec(job.kind, job.input(), lane=job.lane, spots=1))


@pytest.mark.parametrize("spots", [-1, 11, 1 << 40])
def test_spots_outside_the_run_are_refused(spots: int) -> None:
    with pytest.raises(LocalError, match="0 to 10, the parts of the run"):
        run(spec("image.generate", ImageInput(3, 10), spots=spots))


@pytest.mark.parametrize(("tokens", "most"), [(1, 1), (63, 1), (64, 2), (200, 6)])
def test_a_text_has_a_part_for_every_32_tokens_that_were_asked_for(tokens: int, most: int) -> None:
    job = spec("text.generate", text(tokens_max=tokens), spots=most)
    assert parts(job.lane, job.input()) == most
    check_spots(job)
    with pytest.raises(Malformed, match=f"0 to {most}, the parts"):
        check_spots(spec("text.generate", text(tokens_max=tokens), spots=most + 1))


def test_a_shortened_prompt_shows_in_the_hidden_states() -> None:
    job = spec("text.generate", text("A long beginning that matters. Return the list of "))
    output, trace = run(job, executor(cheat="short-prompt"))
    assert distance(output, trace, executor().recheck(job, output, trace)) > 4 * HONEST


def test_a_cheater_who_computed_exactly_differs_in_the_exact_lane() -> None:
    job = all_kinds(lane="exact")[3]
    output, trace = run(job, executor(cheat="fewer-steps"))
    expected = executor().recheck(job, output, trace)
    assert expected.tensors["latents"] != trace.tensors["latents"]


def test_beam_search_finds_a_text_at_least_as_probable_as_greedy() -> None:
    prompt, length = "Return the number of ", 24
    jobs = {m: spec("text.generate", text(prompt, length, method=m, beams=6)) for m in ("greedy", "beam")}
    answers = {method: run(job) for method, job in jobs.items()}
    beam = executor().recheck(jobs["beam"], *answers["beam"])
    greedy_as_beam = executor().recheck(jobs["beam"], *answers["greedy"])
    assert distance(*answers["beam"], beam) < HONEST
    assert answers["greedy"] == answers["beam"] or greedy_as_beam.tensors["margin"].numpy().max() > 2


def test_one_beam_is_greedy() -> None:
    greedy, beam = (spec("text.generate", text(method=method, beams=1)) for method in ("greedy", "beam"))
    assert run(greedy)[0] == run(beam)[0]


def test_top_k_of_one_is_greedy() -> None:
    sampled = spec("text.generate", text(method="sample", temperature=2.0, top_k=1))
    assert run(sampled)[0] == run(all_kinds()[0])[0]


def test_text_streams_in_order_and_adds_up_to_the_output() -> None:
    for job in all_kinds()[:3]:
        events: list[Event] = []
        output, _ = executor().run(job, emit=events.append, cancelled=never)
        assert "".join(event.text for event in events if isinstance(event, Token)) == text_of(output)


def test_progress_rises_to_its_total() -> None:
    events: list[Event] = []
    executor().run(spec("image.generate", ImageInput(1, 7)), emit=events.append, cancelled=never)
    assert events == [Progress(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("job", [*all_kinds(steps=50), *all_kinds(lane="exact")[3:]], ids=label)
def test_a_cancelled_run_stops_at_the_next_step(job: JobSpec) -> None:
    events: list[Event] = []
    looks = iter([False, True])
    total = 2
    if job.kind == "embed.text":
        job = spec(job.kind, EmbedInput(["text"] * 64), lane=job.lane)
    with pytest.raises(Cancelled):
        executor().run(job, emit=events.append, cancelled=lambda: next(looks))
    assert len(events) < total


def test_cancelling_by_job_id_stops_that_job_only() -> None:
    job = spec("image.generate", ImageInput(1, 50))
    mine = make_executor()
    with pytest.raises(Cancelled):
        mine.run(job, emit=lambda event: mine.cancel(job.id), cancelled=never)
    mine.run(job, emit=lambda event: mine.cancel(bytes(32)), cancelled=never)


BAD: list[tuple[JobSpec, str]] = [
    (spec("text.generate", text(tokens_max=0)), "1 to 256"),
    (spec("text.generate", text(tokens_max=257)), "1 to 256"),
    (spec("text.generate", text("x" * 1025)), "0 to 1024"),
    (spec("text.generate", text("a\0b")), "NUL"),
    (spec("text.generate", text(method="sample", temperature=0.0)), "0.05 to 5"),
    (spec("text.generate", text(method="sample", temperature=float("nan"))), "not a number"),
    (spec("text.generate", text(top_k=-1)), "0 to 256"),
    (spec("text.generate", text(method="beam", beams=9)), "1 to 8"),
    (spec("text.generate", {"no": "struct"}), "do not decode"),
    (spec("text.generate", ["p", 3, "magic", 1.0, 0, 4]), "magic"),
    (spec("image.generate", ImageInput(10, 5)), "0 to 9"),
    (spec("image.generate", ImageInput(-1, 5)), "0 to 9"),
    (spec("image.generate", ImageInput(1, 0)), "1 to 100"),
    (spec("image.generate", ImageInput(1, 101)), "1 to 100"),
    (spec("embed.text", EmbedInput([])), "1 to 64"),
    (spec("embed.text", EmbedInput(["a"] * 65)), "1 to 64"),
    (spec("embed.text", EmbedInput([""])), "1 to 4096"),
    (spec("embed.text", EmbedInput(["é" * 2049])), "1 to 4096"),
    (spec("embed.text", EmbedInput(["a"]), model="nobody"), "ngram-embed"),
    (spec("embed.text", EmbedInput(["a"]), model=NAMES["text.generate"]), "ngram-embed"),
    (spec("embed.text", EmbedInput(["a"]), numeric="bf16"), "f32"),
    (spec("embed.text", EmbedInput(["a"]), lane="loose"), "tolerant, exact"),
    (spec("video.generate", text()), "embed.text"),
    (spec("text.generate", text(), seed=-1), "seed"),
]


@pytest.mark.parametrize(("job", "said"), BAD, ids=[f"{i}-{said}" for i, (_, said) in enumerate(BAD)])
def test_a_job_that_cannot_be_run_is_refused_with_what_is_allowed(job: JobSpec, said: str) -> None:
    with pytest.raises(LocalError, match=said):
        run(job)
    with pytest.raises(LocalError, match=said):
        executor().recheck(job, Output({}), Trace({}))


def replaced(answer: tuple[Output, Trace], name: str, value: np.ndarray[Any, Any] | None) -> tuple[Output, Trace]:
    """The answer with one tensor changed, or left out."""

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        kept = {key: tensor for key, tensor in tensors.items() if key != name}
        return {**kept, name: from_numpy(value)} if name in tensors and value is not None else kept

    return Output(change(answer[0].tensors)), Trace(change(answer[1].tensors))


@pytest.mark.parametrize("lane", ["tolerant", "exact"])
@pytest.mark.parametrize(
    ("index", "name", "value"),
    [
        (0, "tokens", None),
        (0, "tokens", np.full(24, 256, np.int32)),
        (0, "tokens", np.full(23, 97, np.int32)),
        (0, "tokens", np.full(25, 97, np.int32)),
        (0, "tokens", np.zeros(24, np.int32)),
        (0, "tokens", np.full((4, 6), 97, np.int32)),
        (0, "tokens", np.full(24, 97, np.int64)),
        (0, "sketch", np.zeros((23, 8), np.uint8)),
        (0, "sketch", np.zeros((24, 8), np.float32)),
        (0, "sketch", None),
        (3, "latents", None),
        (3, "latents", np.zeros((10, 16, 16), np.float32)),
        (3, "latents", np.full((11, 16, 16), np.inf, np.float32)),
        (3, "pixels", np.zeros((16, 8), np.uint8)),
        (4, "vectors", np.zeros((2, 64), np.float32)),
        (4, "vectors", None),
    ],
)
def test_a_claim_of_another_shape_is_the_workers_fault(lane: Any, index: int, name: str, value: Any) -> None:
    job = all_kinds(lane=lane)[index]
    with pytest.raises(Malformed):
        executor().recheck(job, *replaced(run(job), name, value))


def test_a_tampered_token_lacks_margin() -> None:
    job = all_kinds()[0]
    answer = run(job)
    tokens = np.array(answer[0].tensors["tokens"].numpy())
    tokens[5] = ord("Z")
    margin = executor().recheck(job, *replaced(answer, "tokens", tokens)).tensors["margin"].numpy().astype(float)
    assert margin[5] > 4096
    assert (margin[:5] == 0).all()


def test_expected_tensors_are_those_of_the_specification() -> None:
    tolerant = [
        {"margin": ("i8", [24]), "projections": ("f8", [24, 7]), "dither": ("f8", [24, 7])},
        {"noise": ("f4", [16, 16]), "steps": ("f4", [10, 16, 16]), "pixels": ("u1", [16, 16])},
        {"vectors": ("f4", [3, 64])},
    ]
    exact = [
        {"tokens": ("i4", [24]), "sketch": ("u1", [24, 8])},
        {"latents": ("f4", [11, 16, 16]), "pixels": ("u1", [16, 16])},
        {"vectors": ("f4", [3, 64])},
    ]
    for lane, wanted in (("tolerant", tolerant), ("exact", exact)):
        jobs = all_kinds(lane=lane)
        for job, names in zip([jobs[0], jobs[3], jobs[4]], wanted, strict=True):
            found = executor().recheck(job, *run(job)).tensors
            assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == names


def test_a_text_longer_than_the_attention_window_rechecks() -> None:
    job = spec("text.generate", text("Return a list. " * 20, 200))
    answer = run(job)
    assert distance(*answer, executor().recheck(job, *answer)) < HONEST


def test_health_counts_answers_and_names_loaded_models() -> None:
    mine = make_executor()
    assert mine.health().loaded == []
    run(all_kinds()[4], mine)
    assert (mine.health().ready, mine.health().loaded, mine.health().runs) == (True, ["ngram-embed"], 1)


def test_unknown_variants_and_cheats_are_refused() -> None:
    with pytest.raises(LocalError, match="ort-noopt"):
        make_executor("gpu")
    with pytest.raises(LocalError, match="fewer-steps"):
        make_executor(cheat="politeness")


def test_latents_move_in_small_steps() -> None:
    """The trace is a trajectory: from noise to an image without jumps."""
    _, trace = run(spec("image.generate", ImageInput(3, 50)))
    latents = trace.tensors["latents"].numpy().astype(np.float64)
    assert max(float(np.sqrt(((b - a) ** 2).mean())) for a, b in pairwise(latents)) < 0.2


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("variant", ["default", "ort-f64"])
def test_an_exact_text_rechecks_to_the_bytes_of_the_run(index: int, variant: str) -> None:
    job = all_kinds(lane="exact")[index]
    output, trace = run(job)
    own = executor(variant).recheck(job, output, trace).tensors
    assert own == {**output.tensors, **trace.tensors}


@pytest.mark.parametrize("at", [0, 7, 23])
def test_an_edited_exact_text_differs_where_it_was_edited(at: int) -> None:
    job = all_kinds(lane="exact")[1]
    answer = run(job)
    tokens = np.array(answer[0].tensors["tokens"].numpy())
    right, tokens[at] = tokens[at], ord("Z")
    own = executor().recheck(job, *replaced(answer, "tokens", tokens)).tensors["tokens"].numpy()
    assert own[: at + 1].tolist() == [*tokens[:at].tolist(), int(right)]
