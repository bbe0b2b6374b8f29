"""The results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.speed.overhead import ALONE
from benchmarks.speed.sizes import SIZES


def page(found: dict[str, Any]) -> str:
    """All tables of a run."""
    sections = [_machine(found)]
    sections += [
        _overheads(size, family, measured)
        for size, families in found["sizes"].items()
        for family, measured in families.items()
    ]
    sections += [_growth(found["growth"])] if found.get("growth") else []
    sections += [_targets(found["targets"])] if found.get("targets") else []
    sections += [_evaluation(found["evaluation"])] if found.get("evaluation") else []
    sections += [_loading(found["loading"])] if found.get("loading") else []
    return "\n\n".join(sections) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, GPU "
        f"{machine['gpu'] or 'none'}, torch {machine['torch']}; {found['clock']} time, medians, "
        "10 to 90 % in brackets."
    )


def _overheads(size: str, family: str, measured: dict[str, Any]) -> str:
    work = SIZES[size]
    title = (
        f"## {family}-{work.student} learns from {family}-{work.teacher}: {work.images} x 3 x "
        f"{work.image[0]} x {work.image[1]}, {work.classes} classes, {work.objects} objects"
    )
    bare = measured["milliseconds"]
    networks = table(
        ("network or step", "ms"),
        [(name, _milliseconds(values)) for name, values in bare.items() if "with" not in name],
    )
    low, high = measured["detector_overhead_spread"]
    rows = [
        (
            "student alone",
            f"{bare[ALONE]['median']:.0f}",
            _ratio(measured["detector_overhead"], low, high),
            *_own(measured["detector_own"]),
            "1.00",
            f"{measured['peak_mb']:.0f}",
        )
    ]
    rows += [
        (
            name,
            f"{method['step_ms']:.0f}",
            _ratio(method["overhead"], *method["spread"]),
            *_own(method["own"]),
            f"{method['steps_alone']:.2f}",
            f"{method['peak_mb']:.0f}",
        )
        for name, method in measured["methods"].items()
    ]
    head = (
        "method",
        "ms a step",
        "overhead",
        "own work, ms",
        "overhead by that",
        "steps of the student alone",
        "MB of tensors",
    )
    return "\n\n".join([title, networks, table(head, rows)])


def _growth(growth: dict[str, dict[str, Any]]) -> str:
    """Overheads by objects per image, and those by the own work."""
    counts = growth.values()
    rows = [("student alone", *(_both(m["detector_overhead"], m["detector_own"]) for m in counts))]
    for name in next(iter(counts))["methods"]:
        found = [measured["methods"][name] for measured in counts]
        rows.append((name, *(_both(one["overhead"], one["own"]) for one in found)))
    head = ("overhead, and that by own work, with objects per image", *growth)
    return "## More objects\n\n" + table(head, rows)


def _targets(targets: dict[str, Any]) -> str:
    rows = [
        (
            row["work"],
            row["lever"],
            f"{row['milliseconds']:.0f}",
            f"{row['official']:.0f}",
            f"{row['times_as_fast']:.2f}",
        )
        for row in targets["rows"]
    ]
    head = ("work", "lever", "ms", "official ms", "times as fast")
    title = "## Beside the official implementation"
    machine = (
        f"Bare networks take {targets['slower']:.2f} times as long here as where the official "
        "implementation was timed; the last column allows for that."
    )
    return "\n\n".join([title, machine, table(head, rows), _processes(targets)])


def _processes(targets: dict[str, Any]) -> str:
    """Time and memory of processes that take nothing but CrossKD steps."""
    head = ("memory that tensors free is", "ms a step", "most MiB", "of modules", "official MiB")
    official = str(targets["official_memory_mib"])
    rows = [
        (
            name,
            f"{found['milliseconds']:.0f}",
            f"{found['mib']:.0f}",
            f"{found['modules_mib']:.0f}",
            official,
        )
        for name, found in targets["processes"].items()
    ]
    return table(head, rows)


def _evaluation(found: dict[str, Any]) -> str:
    return (
        f"COCO metrics of {found['images']:,} images with {found['detections']} detections each: "
        f"{found['milliseconds'] / 1e3:.2f} s."
    )


def _loading(rows: Sequence[dict[str, Any]]) -> str:
    """How fast images arrive, and how fast a training takes them."""
    head = ("images", "a second")
    cells = [
        (row["name"], f"{row['median']:.1f} ({row['low']:.1f} to {row['high']:.1f})")
        for row in rows
    ]
    return "## Data\n\n" + table(head, cells)


def _milliseconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:.0f} ({spread['low']:.0f} to {spread['high']:.0f})"


def _own(own: dict[str, Any]) -> tuple[str, str]:
    """Milliseconds, and the overhead that they make."""
    return _milliseconds(own["ms"]), f"{own['overhead']:.3f}"


def _both(overhead: float, own: dict[str, Any]) -> str:
    return f"{overhead:.3f}, {own['overhead']:.3f}"


def _ratio(middle: float, low: float, high: float) -> str:
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"
