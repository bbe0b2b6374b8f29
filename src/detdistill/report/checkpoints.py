"""Teachers that are a weights file with its card and no run folder: they have a row too.

The card knows the architecture. What such a teacher reaches stands in a file of its own, which a
comparison writes beside its runs, and which lies elsewhere if somebody measured by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detdistill.errors import UserError
from detdistill.report.runs import Run, read_object

_ENDING = ".evaluation.json"
_MARK = 8
"""Letters of a fingerprint that tell the weights in a folder apart."""


def evaluation_file(named: Path, folder: Path) -> Path:
    """Where a comparison in `folder` writes what the checkpoint `named` reaches.

    The name has the beginning of the weights' fingerprint, for other teachers may be called alike.

    Raises:
        UserError: there is no checkpoint, or its card cannot be read.
    """
    from detdistill.interop import checkpoint  # only here: a page of help needs no torch

    card = read_object(checkpoint.card_path(checkpoint.locate(named)))
    mark = str(card.get("fingerprint", ""))[:_MARK]
    words = ("teacher", named.name.removesuffix(".safetensors"), mark)
    return folder / f"{'-'.join(filter(None, words))}{_ENDING}"


def read_checkpoint(named: Path, folder: Path) -> Run | None:
    """A teacher as if it were a run of which only the outcome is known; None if it is not there.

    Args:
        named: a `.safetensors` file, or a folder with such a file.
        folder: where the runs that learned from it lie.

    Raises:
        UserError: its card or its evaluation cannot be read.
    """
    from detdistill.interop import checkpoint  # only here: a page of help needs no torch

    try:
        file = checkpoint.locate(named)
    except UserError:
        return None
    card = read_object(checkpoint.card_path(file))
    beside = file.with_suffix(_ENDING)
    measured = (read_object(path) for path in (evaluation_file(named, folder), beside))
    return Run(
        folder=named,
        experiment={"student": _architecture(card.get("architecture"))},
        environment={},
        status={"state": "finished", "step": 0, "steps": 0},
        log=[],
        evaluation=next((found for found in measured if _is_of(found, card)), {}),
        card=card,
        is_checkpoint=True,
    )


def _is_of(evaluation: dict[str, Any], card: dict[str, Any]) -> bool:
    """Whether these weights were evaluated, and not others that lay there before."""
    fingerprint = evaluation.get("fingerprint", card.get("fingerprint"))
    return bool(evaluation) and fingerprint == card.get("fingerprint")


def _architecture(found: object) -> str:
    """`gfl on resnet50`, as far as the card says so."""
    parts = found if isinstance(found, dict) else {}
    backbone = parts.get("backbone")
    names = (parts.get("family"), backbone.get("name") if isinstance(backbone, dict) else None)
    return " on ".join(str(name) for name in names if name) or "a detector"
