"""Compares the library with MMDetection's recorded numbers: `python -m tests.parity FOLDER`.

Runs every folder below FOLDER that holds recorded numbers (`config.json` and `io.npz`) or another
copy of a checkpoint. What a folder is about is read from its contents, not from its name. Prints a
line per case and, last, how many passed and failed; a folder that is damaged, incomplete or of an
unknown kind is a case that fails. Exit code 1 if one failed, 2 if there is nothing to compare.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.golden_cases.case import MismatchError
from tests.parity_cases import assignment, copies, dense, distillation, faster_rcnn, operations
from tests.parity_cases.recording import Folder

from detdistill.errors import UserError

SUFFIXES = {".json", ".npz", ".pth"}
RECORDED = ("config.json", "io.npz")


class Case(NamedTuple):
    """Something that passes or fails."""

    name: str
    run: Callable[[], None]


def cases(root: Path) -> Iterator[Case]:
    """Everything that can be compared below a folder."""
    for path in sorted({file.parent for file in root.rglob("*") if file.suffix in SUFFIXES}):
        name = path.relative_to(root).as_posix()
        if any((path / file).is_file() for file in RECORDED):
            yield from _recorded(Folder(path), name)
        else:
            for file in sorted(path.glob("*.pth")):
                yield Case(f"{name}/{file.name}", partial(copies.run, file))


def _recorded(folder: Folder, name: str) -> Iterator[Case]:
    """The cases of a folder with recorded numbers; one that fails if they mean nothing here."""
    try:
        names, run = _kind(folder)
        if not names:
            raise MismatchError("no case is recorded")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - damaged files can raise anything
        yield Case(name, partial(_fail, error))
    else:
        yield from (Case(f"{name} {case}", partial(run, folder, case)) for case in names)


def _kind(folder: Folder) -> tuple[list[str], Callable[[Folder, str], None]]:
    """What a folder is about: the names of its cases, and what compares one of them."""
    config, model = folder.config, folder.config.get("model", {})
    if "teacher" in config.get("weights", {}):
        return folder.cases, distillation.run
    if "roi_head" in model:
        return folder.cases, faster_rcnn.run
    if "bbox_head" in model:
        return folder.cases, dense.run
    if "spec" in config:
        return assignment.cases(folder), assignment.run
    if any(key.startswith(("coder.", "loss.", "nms.")) for key in folder.arrays):
        return operations.cases(folder), operations.run
    raise MismatchError(f"there is nothing here to compare a {model.get('type', 'folder')} with")


def _fail(error: Exception) -> None:
    raise error


def failure(case: Case) -> str | None:
    """Why a case fails, in one line; None if it passes."""
    try:
        case.run()
    except (MismatchError, UserError) as error:
        return " ".join(f"{error}".split())
    except Exception as error:  # noqa: BLE001 - damaged files can raise anything
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def main(arguments: list[str]) -> int:
    """Compares everything below the folder that is named."""
    if len(arguments) != 1:
        print("usage: python -m tests.parity FOLDER", file=sys.stderr)
        return 2
    root = Path(arguments[0])
    found = list(cases(root))
    if not found:
        print(f"{root}: there are no recorded numbers", file=sys.stderr)
        return 2
    failed = 0
    for case in found:
        message = failure(case)
        failed += message is not None
        print(f"ok {case.name}" if message is None else f"FAILED {case.name}: {message}")
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
