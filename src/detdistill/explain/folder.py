"""The folder of figures: pictures, their numbers, and an index of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl

from detdistill.explain.figure import STYLE, Figure
from detdistill.files import replace_file, write_json, write_text
from detdistill.report.index import FORMATS, INDEX, WORDS, Entry, index
from detdistill.report.tabular import as_csv

_DPI = 160


def write(figure: Figure, folder: Path, *, asked: str) -> Entry:
    """Writes one figure in all formats, each all or nothing.

    Args:
        figure: what to write.
        folder: where to.
        asked: the name under which the figure is asked for.

    Raises:
        UserError: the folder cannot be written to.
    """
    files = {form: f"{figure.name}.{form}" for form in FORMATS}
    _write_drawings(figure, folder)
    write_json(folder / files["json"], list(map(dict, figure.rows)))
    write_text(folder / files["csv"], as_csv(figure.rows))
    return {"figure": asked, **{word: getattr(figure, word) for word in WORDS}, **files}


def update_index(folder: Path, asked: str, made: Sequence[Entry]) -> None:
    """Replaces what the index had under a name, and removes files that it no longer names.

    Args:
        folder: the folder of figures.
        asked: the name under which the figures are asked for.
        made: what is there now under this name.

    Raises:
        UserError: the index is broken, or cannot be written.
    """
    old = index(folder)
    new = [*(entry for entry in old if entry["figure"] != asked), *made]
    new.sort(key=lambda entry: entry["figure"])
    write_json(folder / INDEX, new)
    for file in _files(old) - _files(new):
        (folder / file).unlink(missing_ok=True)


def _files(entries: Sequence[Entry]) -> set[str]:
    return {Path(entry[form]).name for entry in entries for form in FORMATS}


def _write_drawings(figure: Figure, folder: Path) -> None:
    """The same bytes for the same numbers: no date in them, no random ids."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": figure.name}):
        drawing = figure.draw()
        for form, undated in (("png", "Software"), ("svg", "Date")):
            save = partial(drawing.savefig, format=form, dpi=_DPI, metadata={undated: None})
            replace_file(folder / f"{figure.name}.{form}", save)
