"""What the doctor found, on the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from detdistill.cli import tables
from detdistill.doctor import DryRun, Shape, Term
from detdistill.profiling import Share
from detdistill.report.numbers import duration

DROWNING = 0.9
"""A method with a larger share of the gradient leaves the labels little say."""


def show_environment(found: Mapping[str, str]) -> None:
    """Prints versions and hardware."""
    tables.show(("environment", ""), found.items())


def show_dry_run(run: DryRun) -> None:
    """Prints matched tensors, losses, and what the training would take."""
    if run.made_up:
        tables.say("\nA rehearsal: the recipe is real, what is not at hand is made up.")
        for what in run.made_up:
            tables.say(f"- {what}")
    tables.say("")
    tables.show(
        ("maps compared", "student", "teacher"),
        [(pair.what, _size(pair.student), _size(pair.teacher)) for pair in run.pairs],
    )
    for line in run.classes:
        tables.say(f"\n{line}")
    tables.say("")
    tables.show(
        ("loss at step 0", "value", "gradient norm", "share of gradient"),
        [(term.name, f"{term.value:.4g}", _norm(term), f"{term.share:.0%}") for term in run.terms],
    )
    tables.say("")
    tables.show(("to expect", ""), _expectations(run).items())
    if run.shares:
        show_shares(run.shares)
    for line in _advice(run):
        tables.say(f"\n{line}")


def show_shares(shares: Sequence[Share]) -> None:
    """Prints what each part of a step costs."""
    tables.say("")
    tables.show(
        ("part of a step", "share", "forward ms", "backward ms"),
        [(s.part, f"{s.share:.1%}", f"{s.forward_ms:.1f}", f"{s.backward_ms:.1f}") for s in shares],
    )


def _expectations(run: DryRun) -> dict[str, str]:
    memory = "unknown" if run.memory_mb is None else f"{run.memory_mb:,.0f} MB at most so far"
    pictures = {} if run.made_up else {"training images": f"{run.images:,}"}
    return {
        **pictures,
        "student's first weights": run.origin,
        **{f"parameters of the {name}": f"{count:,}" for name, count in run.parameters.items()},
        "a step": f"{run.step_ms:.0f} ms on {run.device}",
        "all steps": f"{duration(run.seconds)}, evaluation not counted",
        "memory": memory,
    }


def _advice(run: DryRun) -> list[str]:
    if run.complaint:
        return [f"This training would stop: {run.complaint}"]
    return [
        f"{method} has {share:.0%} of the gradient: smaller weights may do better."
        for method, share in _shares(run).items()
        if share > DROWNING
    ] or ["Every loss is finite and reaches the student."]


def _shares(run: DryRun) -> dict[str, float]:
    """Each method's share of the gradient."""
    shares: dict[str, float] = defaultdict(float)
    for term in run.terms:
        shares[term.name.partition("/")[0]] += term.share
    return {method: share for method, share in shares.items() if method != "task"}


def _size(shape: Shape | None) -> str:
    """(16, 32, 24, 24) -> `32 channels, 24 x 24`."""
    return "none" if shape is None else f"{shape[1]} channels, {shape[2]} x {shape[3]}"


def _norm(term: Term) -> str:
    return "does not reach the student" if term.gradient is None else f"{term.gradient:.4g}"
