"""Looks at the machine, and tries one step of an experiment before hours are spent on it.

Nothing is written. What is printed answers: do teacher and student fit, is every loss finite and
does it reach the student, does one of them drown the others, how long and how much memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from detdistill import data, rehearsal
from detdistill.detectors import Detector, parameter_count
from detdistill.device import best_device
from detdistill.evaluate.run import evaluating
from detdistill.evaluate.speed import wait
from detdistill.levels import Levels, unflatten
from detdistill.machine import cores
from detdistill.profiling import Share, shares
from detdistill.recipes import Recipe
from detdistill.structures import (
    Batch,
    DetectorOutput,
    EncoderTrace,
    Reads,
    Towers,
)
from detdistill.train import engine, reach
from detdistill.train import environment as surroundings
from detdistill.train.assembly import Assembly, build
from detdistill.train.experiment import Experiment, check
from detdistill.train.step import TrainStep
from detdistill.train.trainer import Trainer

TIMED_STEPS = 4
"""Optimizer steps of the dry run; the first one is slower and does not count."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A map of the student and the map of the teacher that it is compared with."""

    what: str
    student: Shape | None
    teacher: Shape | None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss on the first batch."""

    name: str
    value: float
    gradient: float | None
    """Norm of its gradient over the student's parameters; None if it does not reach them."""
    share: float
    """Of the sum of these norms."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one tried step tells."""

    origin: str
    """Where the student's first weights come from."""
    images: int
    """Training images."""
    classes: tuple[str, ...]
    """Which classes the teacher knows, in words; nothing if they are the student's."""
    parameters: Mapping[str, int]
    """Of the student, of the teacher, and of the methods' own layers."""
    pairs: tuple[Pair, ...]
    terms: tuple[Term, ...]
    complaint: str | None
    """What would stop the training."""
    step_ms: float
    seconds: float
    """What all steps would take, without evaluation."""
    memory_mb: float | None
    device: str
    made_up: tuple[str, ...] = ()
    """What was not at hand and had to be made up, a sentence each."""
    shares: tuple[Share, ...] = ()
    """What each part of a step costs, if that was asked for."""


def environment() -> dict[str, str]:
    """Versions and hardware, in words."""
    found = surroundings.describe()
    facts = {name: found[name] for name in ("detdistill", "python", "torch")}
    needed, optional = surroundings.requirements()
    return {
        **{name: str(value) for name, value in facts.items()},
        **{name: surroundings.installed(name) or "missing" for name in needed if name not in facts},
        **{
            f"{name} (optional)": surroundings.installed(name) or "not installed"
            for name in optional
        },
        "system": found["platform"],
        "processor": found["cpu"],
        "cores": f"{cores()} usable of {found['cores']}",
        "threads": f"{found['threads']} for one training",
        "computes on": found["gpu"] or str(best_device()),
        "bf16": "yes" if _has_bf16() else "no",
    }


def dry_run(
    experiment: Experiment, recipe: Recipe | None = None, *, profile: bool = False
) -> DryRun:
    """Builds everything and takes a few steps on the first training images, in memory only.

    Args:
        experiment: what is tried.
        recipe: what the experiment was made of; if its data was not named, it is rehearsed.
        profile: find out what each part of a step costs, too.

    Raises:
        UserError: the experiment cannot be trained; the message is what training would say.
    """
    if recipe and rehearsal.is_needed(experiment, recipe):
        few = rehearsal.shortened(experiment)
        run = _tried(few, rehearsal.assembly(few, recipe), profile=profile)
        share = experiment.batch_size / few.batch_size
        return replace(run, seconds=run.seconds * share, made_up=rehearsal.made_up(few, recipe))
    check(experiment)
    return _tried(experiment, build(experiment), profile=profile)


def _tried(experiment: Experiment, parts: Assembly, *, profile: bool) -> DryRun:
    trainer = Trainer(parts.step, experiment, engine.start(experiment))
    batch = trainer.place(next(_batches(experiment, parts)))
    pairs = tuple(_pairs(parts, batch))
    found = reach.arrivals(parts.step, batch)
    step_ms = _step_ms(trainer, _batches(experiment, parts))
    device = batch.images.device
    return DryRun(
        origin=parts.origin,
        images=len(parts.data),
        classes=tuple(parts.classes.in_words()) if parts.classes else (),
        parameters=_parameters(parts),
        pairs=pairs,
        terms=_terms(found),
        complaint=reach.complaint(found),
        step_ms=step_ms,
        seconds=step_ms * experiment.steps / 1e3,
        memory_mb=surroundings.peak_memory_mb(device),
        device=str(device),
        shares=shares(trainer, _batches(experiment, parts), TIMED_STEPS) if profile else (),
    )


def _batches(experiment: Experiment, parts: Assembly) -> Iterator[Batch]:
    return data.stream(
        parts.data,
        seed=experiment.seed,
        batch_size=experiment.batch_size,
        steps=TIMED_STEPS,
        accumulate=experiment.accumulate,
        flip=experiment.flip,
        change=parts.change,
        on_damage=data.Ledger(parts.data, experiment.skippable).note,
    )


def _step_ms(trainer: Trainer, batches: Iterator[Batch]) -> float:
    """Median time of an optimizer step."""
    ready = iter(list(batches))
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        trainer.advance(ready)
        wait(next(trainer.step.student.parameters()).device)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


def _pairs(parts: Assembly, batch: Batch) -> Iterator[Pair]:
    """Neck levels, and what the methods read of towers, encoder and backbone."""
    output = _output(parts.student, batch, parts.step.reads)
    student = _maps(output)
    teacher = _maps(_taught(parts.step, batch, output.neck)) if parts.teacher else {}
    for what in dict.fromkeys([*student, *teacher]):
        levels = zip_longest(student.get(what, ()), teacher.get(what, ()))
        for level, (mine, other) in enumerate(levels):
            yield Pair(what=f"{what}, level {level}", student=_shape(mine), teacher=_shape(other))


def _taught(step: TrainStep, batch: Batch, neck: Levels) -> DetectorOutput:
    """The teacher's output, with its neck even if no method reads it."""
    return step.taught(batch, neck, step.ask(batch, replace(step.reads, neck=True)))


def _output(detector: Detector, batch: Batch, reads: Reads) -> DetectorOutput:
    with evaluating(detector):
        output: DetectorOutput = detector(batch.images, batch.truth.sizes, reads)
        return output


def _maps(output: DetectorOutput) -> dict[str, tuple[Tensor, ...]]:
    maps = {"neck": output.neck}
    if isinstance(output.trace, Towers):
        for cut in sorted(output.trace.cls):
            maps[f"classification tower after block {cut}"] = output.trace.cls[cut]
            maps[f"box tower after block {cut}"] = output.trace.reg[cut]
    if isinstance(output.trace, EncoderTrace):
        maps["encoder memory"] = unflatten(output.trace.memory, output.neck)
    return maps | ({"backbone": output.backbone} if output.backbone else {})


def _shape(tensor: Tensor | None) -> Shape | None:
    return None if tensor is None else tuple(tensor.shape)


def _terms(found: Mapping[str, reach.Arrival]) -> tuple[Term, ...]:
    total = sum(arrival.gradient or 0.0 for arrival in found.values()) or 1.0
    return tuple(
        Term(
            name=name,
            value=arrival.value,
            gradient=arrival.gradient,
            share=(arrival.gradient or 0.0) / total,
        )
        for name, arrival in found.items()
    )


def _parameters(parts: Assembly) -> dict[str, int]:
    return {
        "student": parameter_count(parts.student),
        **({"teacher": parts.teacher.parameters} if parts.teacher else {}),
        "methods": parameter_count(parts.step.methods),
    }


def _has_bf16() -> bool:
    """Whether the device computes in bf16 itself, instead of imitating it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = surroundings.cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags
