"""What a training step costs beside the bare networks, method by method.

`python -m benchmarks.step` (or `make bench`) times everything in turns, round after round, so that
a slow moment of the machine falls on all of it alike, and writes medians to `runs/bench`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from detdistill import data, detectors, methods
from detdistill.evaluate.run import evaluating
from detdistill.files import write_json, write_text
from detdistill.interop import checkpoint
from detdistill.structures import EVERYTHING, Batch
from detdistill.train import engine, environment
from detdistill.train.assembly import build
from detdistill.train.experiment import Experiment
from detdistill.train.trainer import Trainer

BARE = "student, forward and backward"
ALONE = "step without a teacher"
IMAGES = 64
"""Pictures that are drawn once and used over and over: their making is not measured."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Milliseconds of one thing."""

    name: str
    median: float
    low: float
    """10th percentile."""
    high: float
    """90th percentile."""
    ratio: float
    """To a step without a teacher."""


def main() -> None:
    """Measures and writes."""
    options = _options()
    experiment = Experiment(student=options.student, data=options.data, images=IMAGES, steps=10**6)
    with tempfile.TemporaryDirectory() as folder:
        teacher = _save_teacher(options.teacher, experiment, Path(folder))
        cases = _cases(experiment, teacher, options.methods or methods.names())
    rows = _rows(_measure(cases, options.rounds))
    found = {
        "student": options.student,
        "teacher": options.teacher,
        "data": options.data,
        "batch_size": experiment.batch_size,
        "rounds": options.rounds,
        "environment": environment.describe(),
        "rows": [asdict(row) for row in rows],
    }
    write_json(options.out / "step.json", found)
    write_text(options.out / "step.md", _markdown(rows, options, experiment))
    print(_markdown(rows, options, experiment))  # noqa: T201 - the table is the point


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--student", default="gfl-mini-w8")
    parser.add_argument("--teacher", default="gfl-mini-w32", help="a detector's name")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--methods", nargs="*", help="names, also joined by a plus; all if missing")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    return parser.parse_args()


def _save_teacher(name: str, experiment: Experiment, folder: Path) -> str:
    """A fresh teacher costs as much as a trained one."""
    classes = data.open(experiment.data, "train", 1).classes
    file = folder / checkpoint.STUDENT
    checkpoint.save(detectors.build(name, classes), file)
    return str(file)


def _cases(
    experiment: Experiment, teacher: str, names: list[str]
) -> dict[str, Callable[[], object]]:
    """Everything that is timed, each on a detector of its own."""
    alone = _trainer(experiment)
    batch = alone.place(next(_endless(experiment)))
    cases = {
        "teacher, forward": _forward(checkpoint.load(teacher), alone, batch),
        BARE: lambda: _forward_backward(alone, batch),
        ALONE: _advance(experiment),
    }
    for name in names:
        chosen: dict[str, dict[str, object]] = {part: {} for part in name.split("+")}
        distilled = Experiment(**{**vars(experiment), "teacher": teacher, "methods": chosen})
        cases[f"step with {name}"] = _advance(distilled)
    return cases


def _trainer(experiment: Experiment) -> Trainer:
    return Trainer(build(experiment).step, experiment, engine.start(experiment))


def _advance(experiment: Experiment) -> Callable[[], object]:
    trainer, batches = _trainer(experiment), _endless(experiment)
    return lambda: trainer.advance(batches)


def _forward(detector: detectors.Detector, like: Trainer, batch: Batch) -> Callable[[], object]:
    device = next(like.detector.parameters()).device
    detector.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward() -> None:
        with evaluating(detector):
            detector(batch.images, batch.truth.sizes, EVERYTHING)

    return forward


def _forward_backward(trainer: Trainer, batch: Batch) -> None:
    """The network alone: no assignment, no losses, no optimizer."""
    output = trainer.step.student(batch.images, batch.truth.sizes, EVERYTHING)
    outputs = (*output.dense.logits, *output.dense.boxes)
    torch.stack([level.mean() for level in outputs]).sum().backward()


def _endless(experiment: Experiment) -> Iterator[Batch]:
    return data.stream(
        data.open(experiment.data, "train", experiment.images),
        seed=0,
        batch_size=experiment.batch_size,
        steps=experiment.steps,
    )


def _measure(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds by case; the first two rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-2, rounds):
        for name, run in cases.items():
            took = _milliseconds(run)
            if number >= 0:
                times[name].append(took)
    return times


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def _rows(times: dict[str, list[float]]) -> list[Row]:
    alone = statistics.median(times[ALONE])
    rows = []
    for name, values in times.items():
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        middle = statistics.median(values)
        rows.append(
            Row(name=name, median=middle, low=tenths[0], high=tenths[-1], ratio=middle / alone)
        )
    return rows


def _markdown(rows: list[Row], options: argparse.Namespace, experiment: Experiment) -> str:
    setting = (
        f"Student {options.student}, teacher {options.teacher}, {options.data}, batches of "
        f"{experiment.batch_size}, {torch.get_num_threads()} threads, medians of "
        f"{options.rounds} rounds."
    )
    lines = [
        setting,
        "",
        "| | ms | 10 to 90 % | of a step without a teacher |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.median:.0f} | {row.low:.0f} to {row.high:.0f} | {row.ratio:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
