"""What training costs beside the arithmetic of the networks: for a detector and for each method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from benchmarks.speed import bare
from benchmarks.speed.sizes import Size
from benchmarks.speed.timing import Case, Clock, Spread, Times, in_turns
from torch import Tensor
from torch.utils import _pytree as pytree

from detdistill.detectors import Detector
from detdistill.evaluate.speed import MEGABYTE, peak_tensor_bytes
from detdistill.methods import Method, combine, names
from detdistill.methods.method import UnsuitablePairError
from detdistill.structures import Reads
from detdistill.train import engine, optim
from detdistill.train.experiment import Experiment
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer

BARE, OPTIMIZER, ALONE = "student", "optimizer", "step"
AGAIN = "layers run by "
BESIDE = "all but the networks of a step"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The detectors, the batch and the settings that all cases of a size share."""

    student: Detector
    teacher: Detector
    experiment: Experiment
    engine: Accelerator
    size: Size

    @classmethod
    def of(cls, size: Size, family: str, **settings: object) -> Bench:
        """Fresh detectors on the best device; `settings` are those of an experiment."""
        experiment = size.experiment(**settings)
        return cls(
            student=size.detector(family, size.student),
            teacher=size.detector(family, size.teacher),
            experiment=experiment,
            engine=engine.start(experiment),
            size=size,
        )

    def trainer(self, methods: str = "") -> Trainer:
        """A training with these methods, or without a teacher."""
        fold = self.experiment.fold_teacher
        step = TrainStep(self.student, self.teacher, _parsed(methods), fold=fold)
        trainer = Trainer(step, self.experiment, self.engine)
        if methods and self.experiment.teacher_cache:
            trainer.use_cache(Path(self.experiment.teacher_cache), math.inf)
        return trainer

    def advance(self, trainer: Trainer) -> Case:
        """Whole steps on one batch."""
        batches = repeat(self.size.batch())
        return lambda: trainer.advance(batches)

    @property
    def autocast(self) -> Callable[[], Any]:
        """The precision of the experiment."""
        if self.experiment.precision == "fp32":
            return nullcontext
        return partial(torch.autocast, self.engine.device.type, torch.bfloat16)


def measure(
    size: Size,
    family: str,
    wanted: Sequence[str],
    clock: Clock,
    *,
    memory: bool = True,
    **settings: object,
) -> dict[str, Any]:
    """Times and ratios of a detector, and of every method that fits the pair, ready for JSON.

    Args:
        size: detectors and batches.
        family: of both detectors.
        wanted: methods, also joined by a plus; all if there are none.
        clock: tells seconds.
        memory: also find out how much memory each step takes, which costs two steps.
        settings: of the experiment, such as `precision`.
    """
    bench = Bench.of(size, family, **settings)
    trainers = _trainers(bench, wanted or names())
    cases, shares = _cases(bench, trainers)
    times = in_turns(cases, size.rounds, clock)
    alone = _ratio(times, ALONE, (BARE, OPTIMIZER))
    found: dict[str, Any] = {
        "detector_overhead": alone.median,
        "detector_overhead_spread": [alone.low, alone.high],
        "detector_own": _own(times, BESIDE, (BARE, OPTIMIZER)),
        "milliseconds": {name: asdict(Spread.of(values)) for name, values in times.items()},
        "methods": {name: _method(times, name, shares[name]) for name in trainers},
    }
    if memory:
        found["peak_mb"] = _peak(bench, bench.trainer())
        for name, trainer in trainers.items():
            found["methods"][name]["peak_mb"] = _peak(bench, trainer)
    return found


def _trainers(bench: Bench, wanted: Sequence[str]) -> dict[str, Trainer]:
    """Those of the methods that fit the pair."""
    found = {}
    for name in wanted:
        try:
            found[name] = bench.trainer(name)
        except UnsuitablePairError:
            continue
    return found


def _cases(
    bench: Bench, trainers: Mapping[str, Trainer]
) -> tuple[dict[str, Case], dict[str, list[str]]]:
    """What is timed; and for each method the cases that it cannot do without."""
    alone = bench.trainer()
    batch = alone.place(bench.size.batch())
    cases: dict[str, Case] = {
        BARE: partial(bare.forward_backward, bench.student, batch, bench.autocast),
        OPTIMIZER: _optimizer_step(bench),
        ALONE: bench.advance(alone),
        BESIDE: bare.beside(alone.step, batch, bench.advance(alone), bench.autocast),
    }
    shares: dict[str, list[str]] = {}
    for name, trainer in trainers.items():
        step = trainer.step
        teacher, again = f"teacher, {_words(step.reads)}", f"{AGAIN}{name}"
        if step.teacher:
            cases[teacher] = partial(bare.forward, step.teacher, batch, step.reads, bench.autocast)
        calls = bare.reentries(step, batch)
        if calls:
            cases[again] = partial(bare.replay, calls)
        cases[_step(name)] = bench.advance(trainer)
        cases[_beside(name)] = bare.beside(step, batch, cases[_step(name)], bench.autocast)
        shares[name] = [BARE, OPTIMIZER, teacher, *([again] if calls else [])]
    return cases, shares


def _optimizer_step(bench: Bench) -> Case:
    """The student's optimizer alone, with gradients of zero."""
    step = TrainStep(bench.student)
    optimizer = optim.build(step, bench.experiment.optimizer)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def run() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        optimizer.zero_grad()

    gradients = [weight.detach().clone().zero_() for weight in weights]
    return run


def _method(times: Times, name: str, parts: Sequence[str]) -> dict[str, Any]:
    """A method's ratio to what it cannot avoid, and its cost in steps of the student alone."""
    overhead, cost = _ratio(times, _step(name), parts), _ratio(times, _step(name), (ALONE,))
    return {
        "overhead": overhead.median,
        "spread": [overhead.low, overhead.high],
        "step_ms": Spread.of(times[_step(name)]).median,
        "steps_alone": cost.median,
        "own": _own(times, _beside(name), parts),
        "unavoidable": list(parts),
    }


def _own(times: Times, beside: str, parts: Sequence[str]) -> dict[str, Any]:
    """What is neither a network's nor the optimizer's, timed alone, and the ratio that it makes.

    It scatters less than the ratio of two long times.
    """
    again = [times[part] for part in parts if part.startswith(AGAIN)]
    own = Spread.of([a - sum(rest) for a, *rest in zip(times[beside], *again, strict=True)])
    unavoidable = sum(Spread.of(times[part]).median for part in parts)
    return {"ms": asdict(own), "overhead": round(1 + own.median / unavoidable, 4)}


def _ratio(times: Times, whole: str, parts: Sequence[str]) -> Spread:
    """Of what was timed in the same round."""
    sums = [sum(rounds) for rounds in zip(*(times[part] for part in parts), strict=True)]
    return Spread.of([a / b for a, b in zip(times[whole], sums, strict=True)])


def _peak(bench: Bench, trainer: Trainer) -> float:
    """The most megabytes of tensors alive at once in a step, beside weights and momentum."""
    advance = bench.advance(trainer)
    advance()
    held = pytree.tree_leaves([trainer.state(), list(trainer.step.parameters())])
    tensors = [leaf for leaf in held if isinstance(leaf, Tensor)]
    return round(peak_tensor_bytes(advance, tensors) / MEGABYTE, 1)


def _step(method: str) -> str:
    return f"step with {method}"


def _beside(method: str) -> str:
    return f"{BESIDE} with {method}"


def _words(reads: Reads) -> str:
    """The parts of a teacher that are run."""
    parts = ["neck"]
    if reads.predictions or reads.towers:
        parts.append("head")
    return " and ".join(parts)


def _parsed(methods: str) -> Mapping[str, Method]:
    return combine.parse(methods) if methods else {}
