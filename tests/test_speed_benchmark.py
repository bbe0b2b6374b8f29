"""The benchmark of speed: what it counts as unavoidable, and that its ratios are what they say."""

import itertools
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from benchmarks.speed import __main__ as benchmark
from benchmarks.speed import bare, evaluation, overhead, pages, targets
from benchmarks.speed.sizes import SIZES, Size
from benchmarks.speed.timing import Spread, in_turns

from detdistill.evaluate import coco

SMALL = replace(SIZES["demo"], image=(64, 64), images=2, rounds=1)


def ticking(*milliseconds: float) -> Iterator[float]:
    """What a clock shows before and after each thing that it times, in seconds."""
    now = 0.0
    for took in milliseconds:
        yield now
        now += took / 1e3
        yield now


def test_everything_is_timed_once_in_every_round_and_warming_up_does_not_count() -> None:
    order: list[str] = []
    clock = ticking(9, 9, 1, 2, 3, 4).__next__
    cases = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = in_turns(cases, 2, clock)
    assert order == ["a", "b"] * 3
    assert times["a"] == pytest.approx([1, 3])
    assert times["b"] == pytest.approx([2, 4])


def test_an_overhead_is_the_ratio_to_what_was_timed_in_the_same_round() -> None:
    times = {"student": [1.0, 10.0], "teacher": [1.0, 10.0], "step with a": [3.0, 30.0]}
    found = overhead._ratio(times, "step with a", ("student", "teacher"))
    assert found == Spread(median=1.5, low=1.5, high=1.5)


@pytest.fixture(scope="module")
def measured() -> dict[str, object]:
    return overhead.measure(SMALL, "gfl", ("crosskd", "pkd"), iter(range(10**6)).__next__)


def test_a_method_cannot_avoid_the_parts_that_it_reads(measured: dict) -> None:
    crosskd, pkd = (measured["methods"][name] for name in ("crosskd", "pkd"))
    assert crosskd["unavoidable"] == [
        "student",
        "optimizer",
        "teacher, neck and head",
        "layers run by crosskd",
    ]
    assert pkd["unavoidable"] == ["student", "optimizer", "teacher, neck"]
    assert (crosskd["overhead"], pkd["overhead"]) == (0.25, round(1 / 3, 4))
    assert measured["detector_overhead"] == 0.5
    assert measured["detector_own"]["overhead"] == 1.5
    assert crosskd["peak_mb"] > pkd["peak_mb"] > 0


def test_the_tables_have_every_method(measured: dict) -> None:
    found = {
        "machine": {"cpu": "a", "cores": 1, "threads": 1, "gpu": None, "torch": "2"},
        "clock": "wall",
        "sizes": {"demo": {"gfl": measured}},
        "growth": {"7": measured, "100": measured},
        "loading": [{"name": "pictures", "median": 9.0, "low": 8.0, "high": 10.0}],
    }
    text = pages.page(json.loads(json.dumps(found)))
    assert "| crosskd | 1000 | 0.250 (0.250 to 0.250) | 0 (0 to 0) | 1.000 | 1.00 |" in text
    assert "| pkd | 0.333, 1.333 | 0.333, 1.333 |" in text
    assert "| pictures | 9.0 (8.0 to 10.0) |" in text


@pytest.mark.parametrize("methods", ["", "crosskd", "fgd"])
def test_a_step_that_finds_outputs_at_hand_computes_the_same_losses(methods: str) -> None:
    bench = overhead.Bench.of(SMALL, "gfl")
    trainer = bench.trainer(methods)
    advance = bench.advance(trainer)
    beside = bare.beside(trainer.step, trainer.place(SMALL.batch()), advance, bench.autocast)
    advance()
    whole, _ = trainer.read()
    weights = [parameter.clone() for parameter in trainer.step.student.parameters()]
    beside()
    rest, _ = trainer.read()
    assert rest == pytest.approx(whole, rel=1e-5)
    assert all(map(torch.equal, trainer.step.student.parameters(), weights))


def test_layers_that_a_method_runs_are_run_again_without_their_past() -> None:
    bench = overhead.Bench.of(SMALL, "gfl")
    trainer = bench.trainer("crosskd")
    batch = trainer.place(SMALL.batch())
    (call,) = bare.reentries(trainer.step, batch)
    assert call.run == trainer.step.teacher.head.resume
    assert call.with_gradient
    bare.replay([call])
    assert all(weight.grad is None for weight in bench.student.parameters())
    assert "resume" not in vars(trainer.step.teacher.head)


def test_layers_of_a_methods_own_are_counted() -> None:
    trainer = overhead.Bench.of(SMALL, "gfl").trainer("fgd")
    calls = bare.reentries(trainer.step, trainer.place(SMALL.batch()))
    assert {call.run.__self__ for call in calls} == {
        layer for part in (trainer.step.methods["fgd"].student_context,) for layer in part
    } | set(trainer.step.methods["fgd"].teacher_context)


def test_nearly_every_prior_is_a_candidate_where_suppression_is_timed() -> None:
    bench = overhead.Bench.of(SMALL, "gfl")
    batch = SMALL.batch()
    finder = targets._finder(bench)
    output = finder(batch.images, batch.truth.sizes)
    least = finder.architecture.selection.min_score
    assert (output.dense.flat_logits().sigmoid() > least).float().mean() > 0.9
    assert torch.all(finder.detect(output, batch.truth.sizes).counts == 100)


def test_the_official_numbers_are_those_of_a_machine_as_fast_as_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = dict.fromkeys(targets.OFFICIAL, lambda: None)
    monkeypatch.setattr(targets, "_works", lambda bench: works)  # noqa: ARG005
    monkeypatch.setattr(targets, "_processes", dict)
    found = targets.measure(SMALL, itertools.count().__next__, {"defaults": {}})
    assert found["slower"] == round(2000 / (340 + 462), 3)
    rows = {(row["work"], row["lever"]): row for row in found["rows"]}
    step = rows["student step", "defaults"]
    assert step["times_as_fast"] == round(2000 / (340 + 462) * step["official"] / 1000, 3)
    assert {work for work, lever in rows if lever == "plain"} == set(targets.BARE)
    assert {work for work, lever in rows if lever in targets.CACHED} == set(targets.DISTILLED)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_lever_also_holds_for_the_detector_that_predicts(channels_last: bool) -> None:
    finder = targets._finder(overhead.Bench.of(SMALL, "gfl", channels_last=channels_last))
    assert all(weight.is_contiguous() for weight in finder.parameters()) != channels_last


def test_growth_is_timed_in_the_precision_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overhead, "measure", lambda *_, **settings: settings["precision"])
    options = Namespace(rounds=1, clock="wall", precision="bf16")
    assert set(benchmark._growth(options).values()) == {"bf16"}


def test_made_up_detections_can_be_evaluated() -> None:
    metrics = coco.evaluate(*evaluation.made_up(20))
    assert 0 <= metrics.AP < 0.1


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_a_batch_is_what_its_size_says(size: Size) -> None:
    batch = size.batch()
    assert batch.images.shape[0] == size.images
    assert batch.images.shape[2] >= size.image[0]
    assert batch.truth.boxes.shape == (size.images, size.objects, 4)
    assert (batch.truth.boxes[..., 2:] > batch.truth.boxes[..., :2]).all()
