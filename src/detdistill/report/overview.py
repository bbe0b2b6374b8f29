"""What was run, what it cost, and on which machine: terms with their values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detdistill import run_files
from detdistill.files import read_json
from detdistill.report.arms import Arm, Comparison
from detdistill.report.numbers import counted, duration, joined, sample
from detdistill.report.runs import Run

Terms = list[tuple[str, str]]

_PROGRAM = "detdistill"
_ENVIRONMENT = {
    "detdistill": "detdistill",
    "commit": "Commit",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "platform": "System",
    "cpu": "Processor",
    "cores": "Cores",
    "threads": "Threads",
    "gpu": "GPU",
    "started": "Started",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run's folder and everything that decides its result, as YAML."""

    folder: str
    experiment: str


def what_was_run(comparison: Comparison) -> Terms:
    """Data, detectors, budget and seeds of a comparison."""
    first = comparison.students[0].first
    data, split, images = first.test
    few = counted(comparison.images, "labelled image") if comparison.images else "all images"
    elsewhere = "" if data == comparison.data else f" of {data}"
    terms = [
        ("Data", f"{comparison.data}, {few}; measured on {images:,} {split} images{elsewhere}"),
        ("Student", comparison.student),
    ]
    if comparison.teacher:
        terms.append(("Teacher", _teacher(comparison.teacher)))
    terms += [("Trainings", joined([arm.label for arm in comparison.students]))]
    return [*terms, ("Budget", _budget(comparison)), *_how(first), ("Seeds", _seeds(comparison))]


def _teacher(arm: Arm) -> str:
    run = arm.first
    if run.is_checkpoint:
        return f"{run.student}, the weights in {run.folder}"
    return f"{run.student}, {counted(run.steps, 'step')} on {run.data}"


def _budget(comparison: Comparison) -> str:
    steps: dict[int, list[str]] = {}
    for arm in comparison.students:
        steps.setdefault(arm.first.steps, []).append(arm.label)
    batch = counted(int(comparison.students[0].first.experiment.get("batch_size", 0)), "image")
    if len(steps) == 1:
        return f"{counted(next(iter(steps)), 'step')} of {batch}"
    parts = [f"{counted(n, 'step')} for {joined(labels)}" for n, labels in steps.items()]
    return f"{'; '.join(parts)}; {batch} a step"


def _how(run: Run) -> Terms:
    optimizer: dict[str, Any] = run.experiment.get("optimizer") or {}
    if not optimizer:
        return []
    rate, schedule = optimizer.get("lr"), optimizer.get("schedule")
    warmup = counted(int(optimizer.get("warmup_steps", 0)), "warm-up step")
    name = {"adamw": "AdamW", "sgd": "SGD"}.get(str(optimizer.get("name")), optimizer.get("name"))
    precision = run.experiment.get("precision", "fp32")
    return [("Optimizer", f"{name}, learning rate {rate}, {schedule}, {warmup}, {precision}")]


def _seeds(comparison: Comparison) -> str:
    seeds = {arm.label: sorted(set(arm.seeds)) for arm in comparison.arms}
    if len({tuple(found) for found in seeds.values()}) == 1:
        return ", ".join(map(str, next(iter(seeds.values()))))
    return "; ".join(f"{label}: {', '.join(map(str, found))}" for label, found in seeds.items())


def cost(comparisons: Sequence[Comparison]) -> list[str]:
    """What all runs took, and what a distilled step costs beside a plain one."""
    every = (run for comparison in comparisons for run in _runs(comparison))
    runs = {run.folder: run for run in every}.values()
    wall = sum(run.cost("seconds") or 0.0 for run in runs)
    if not wall:
        return []
    cpu = sum(run.cost("cpu_seconds") or 0.0 for run in runs)
    total = (
        f"Training took {duration(wall)} by the clock"
        f"{f' and {duration(cpu)} of CPU time' if cpu else ''}, "
        f"added up over {counted(len(runs), 'run')}; evaluation is not included."
    )
    return [total, *(text for comparison in comparisons for text in _dearer(comparison))]


def _dearer(comparison: Comparison) -> Iterator[str]:
    for arm in comparison.distilled:
        base = comparison.baseline(arm)
        plain = sample([run.cost("step_ms") for run in base.runs]) if base else None
        taught = sample([run.cost("step_ms") for run in arm.runs])
        if plain and taught and plain.mean:
            yield (
                f"A step with {arm.label} takes {taught.mean:.0f} ms, "
                f"{taught.mean / plain.mean:.1f} times a step of the student alone "
                f"({plain.mean:.0f} ms): the teacher looks at every image too. "
                "The teacher's own training is not counted."
            )


def _runs(comparison: Comparison) -> Iterator[Run]:
    for arm in comparison.arms:
        yield from arm.runs


def environment(runs: Sequence[Run]) -> Terms:
    """Versions and machine; several values where the runs differ."""
    found = []
    for key, name in _ENVIRONMENT.items():
        values = dict.fromkeys(
            str(run.environment[key]) for run in runs if run.environment.get(key) is not None
        )
        shown = [min(values), max(values)] if key == "started" and len(values) > 1 else list(values)
        if shown:
            found.append((name, (" to " if key == "started" else "; ").join(shown)))
    return found


def commands(runs: Sequence[Run]) -> list[str]:
    """What started the runs, oldest first, each once; what made several at once before all."""
    ordered = chronological(runs)
    several = [_demo(run.folder.parent) or _comparison(run.folder.parent) for run in ordered]
    typed = [_typed(run) for run in ordered if not _comparison(run.folder.parent)]
    return list(dict.fromkeys(filter(None, (*several, *typed))))


def _comparison(folder: Path) -> str:
    """The command of the comparison whose runs lie in `folder`; empty if there was none."""
    config = folder / "comparison.yaml"
    if not config.exists():
        return ""
    return shlex.join([_PROGRAM, "compare", "--config", str(config), "--out", str(folder)])


def chronological(runs: Sequence[Run]) -> list[Run]:
    """The runs in the order in which they were started."""
    return sorted(runs, key=lambda run: str(run.environment.get("started", "")))


def _demo(folder: Path) -> str:
    """The command of the demo whose runs lie in `folder`; empty if there was none."""
    path = folder / run_files.SUMMARY
    found = read_json(path) if path.exists() else {}
    budget = found.get("budget") if isinstance(found, dict) else None
    if not budget:
        return ""
    return f"{_PROGRAM} demo --budget {shlex.quote(str(budget))} --out {shlex.quote(str(folder))}"


def _typed(run: Run) -> str:
    """A run's command, with the program's name instead of the path of its file."""
    words = str(run.environment.get("command") or "").split(" ")
    if Path(words[0]).name in {_PROGRAM, "__main__.py"}:
        words[0] = _PROGRAM
    return " ".join(words)


def recipes(runs: Sequence[Run]) -> list[Recipe]:
    """Every run's resolved experiment, oldest run first."""
    return [
        Recipe(
            folder=str(run.folder),
            experiment=yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True).strip(),
        )
        for run in chronological(runs)
    ]
