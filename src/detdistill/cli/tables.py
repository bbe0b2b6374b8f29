"""Tables on the terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

NOT_LOADED = ("missing", "unexpected")
"""What may become of a foreign checkpoint's tensors otherwise."""

SHOWN_PICTURES = 20


def console() -> Console:
    """Standard output; wide where nobody is watching, silent in all processes but the first."""
    quiet = os.environ.get("RANK", "0") != "0"
    output = Console(highlight=False, quiet=quiet)
    return output if output.is_terminal else Console(highlight=False, quiet=quiet, width=160)


def say(text: str) -> None:
    """Prints text as it is, never broken or coloured."""
    console().print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Prints text to standard error, as it is."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def show(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Prints a table; a column of numbers is aligned at the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    cells = list(rows)
    for place, column in enumerate(columns):
        numbers = all(row[place][:1].isdigit() or row[place] in {"", "-"} for row in cells)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console().print(table)


def demo_table(summary: Mapping[str, Any]) -> None:
    """The demo's outcome: one row per training."""
    rows = [
        ("teacher", summary["teacher"]),
        ("student alone", summary["student"]),
        ("student alone, equal compute", summary["student_equal_compute"]),
        *((f"student + {name}", row) for name, row in summary["methods"].items()),
    ]
    columns = (
        "",
        "AP",
        "AP50",
        "APs",
        "APm",
        "APl",
        "gap closed",
        "steps",
        "ms a step",
        "parameters",
    )
    show(columns, [(name, *_demo_cells(row)) for name, row in rows])


def _demo_cells(row: Mapping[str, Any]) -> list[str]:
    closed = row.get("gap_closed")
    return [
        *(percent(row[name]) for name in ("AP", "AP50", "APs", "APm", "APl")),
        "" if closed is None else f"{closed:.0%}",
        str(row["step"]),
        f"{row['cost']['step_ms']:.0f}",
        f"{row['facts']['parameters']:,}",
    ]


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The outcome of a comparison: a table for each student."""
    accuracy = ("", "AP", "AP50", "gain", "95 %, seeds", "95 %, images", "gap closed")
    columns = (*accuracy, "steps", "cost", "parameters")
    settings = dict.fromkeys((row["student"], row["data"]) for row in rows)
    for student, on in settings:
        chosen = [row for row in rows if (row["student"], row["data"]) == (student, on)]
        show(columns, map(_comparison_cells, chosen), title=f"{student} on {on}")


def _comparison_cells(row: Mapping[str, Any]) -> list[str]:
    """Columns of what is not known stay empty."""
    closed, cost = row["gap_closed"], row["step_cost"]
    return [
        row["row"],
        *(_percent_with_sd(row[name], row[f"{name}_sd"]) for name in ("AP", "AP50")),
        _percent_with_sd(row["gain"], row["gain_sd"], sign="+"),
        *(_range(row[f"gain_{of}_low"], row[f"gain_{of}_high"]) for of in ("seeds", "images")),
        "" if closed is None else f"{closed:.0%}",
        str(row["steps"]),
        "" if cost is None else f"{cost:.2f}",
        "" if row["parameters"] is None else f"{row['parameters']:,.0f}",
    ]


def _percent_with_sd(mean: float | None, sd: float | None, sign: str = "") -> str:
    if mean is None:
        return ""
    text = f"{100 * mean:{sign}.1f}"
    return text if sd is None else f"{text} ± {100 * sd:.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def agreement_table(differences: Mapping[str, Any]) -> None:
    """How much PyTorch and an exported file differ."""
    show(
        ["largest difference of", ""],
        [
            ("boxes, pixels", f"{differences['boxes']:.1e}"),
            ("scores", f"{differences['scores']:.1e}"),
            ("pictures compared", str(differences["pictures"])),
        ],
    )


def precision_table(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """The COCO numbers of a detector in PyTorch and in the exported file."""
    names = [name for name in metrics["PyTorch"] if name != "per_class"]
    say("")
    show(["", *names], [[who, *(percent(m[n]) for n in names)] for who, m in metrics.items()])


def prediction_table(
    images: Sequence[Mapping[str, Any]], detections: Iterable[Mapping[str, Any]]
) -> None:
    """How many objects were found in each of the first pictures."""
    counts = Counter(detection["image_id"] for detection in detections)
    rows = [[image["file_name"], str(counts[image["id"]])] for image in images[:SHOWN_PICTURES]]
    show(["picture", "detections"], rows)
    if len(images) > SHOWN_PICTURES:
        say(f"... and {len(images) - SHOWN_PICTURES} more")


def import_table(found: Mapping[str, Any]) -> None:
    """How many tensors were loaded, and the names of those that were not."""
    rows = [
        ("loaded", str(len(found["loaded"])), ""),
        *((what, str(len(found[what])), ", ".join(found[what])) for what in NOT_LOADED),
    ]
    show(("tensors", "", "names"), rows)


def metrics_table(metrics: Mapping[str, Any]) -> None:
    """The twelve COCO numbers and the AP of every class, in percent."""
    numbers = {name: value for name, value in metrics.items() if name != "per_class"}
    show(list(numbers), [[percent(value) for value in numbers.values()]])
    classes = sorted(metrics.get("per_class", {}).items(), key=lambda item: -item[1])
    if classes:
        console().print()
        show(["class", "AP"], [(name, percent(value)) for name, value in classes])


def percent(fraction: float) -> str:
    """A COCO number in percent; a dash where it is undefined."""
    return "-" if fraction < 0 else f"{100 * fraction:.1f}"


def written(value: object) -> str:
    """A setting as it is typed on the command line."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    return words[value] if value is None or isinstance(value, bool) else str(value)
