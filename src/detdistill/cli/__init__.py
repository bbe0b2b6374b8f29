"""The command line. Each command is a verb of `detdistill.cli.verbs` with options around it."""

from __future__ import annotations

import importlib
import keyword
import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches

from detdistill.cli import scarcity
from detdistill.errors import UserError

COMMANDS = {
    "demo": "teacher, student alone, students distilled with two methods, on built-in data",
    "train": "train a detector without a teacher",
    "distill": "train a student with a teacher",
    "compare": "methods over seeds, with the student alone at equal steps and equal compute",
    "evaluate": "COCO metrics of a checkpoint on a data set",
    "predict": "detections and drawn pictures for image files",
    "explain": "the papers' figures for finished runs",
    "data": "look through a data set, convert it, show some of it",
    "export": "a detector as an ONNX file, checked against PyTorch",
    "import": "a checkpoint of MMDetection or torchvision as one of ours",
    "report": "one HTML page from run folders",
    "methods": "the distillation methods and their hyper-parameters",
    "detectors": "the detectors that can be named",
    "recipes": "settings with a name: the papers' tables, and small twins of them",
    "doctor": "the environment, and a dry run of an experiment",
}

NOT_ALL_RIGHT = 1
USER_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    Returns:
        0; 1 if some trainings of many failed, or what was to be checked is not all right; 2 for a
        user's mistake or a lack of memory; 130 for Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.append("")  # modules beside the user, which `python -m` finds, too
    warnings.showwarning = _show_warning  # type: ignore[assignment] # it ignores the rest
    try:
        return _dispatch(arguments)
    except UserError as error:
        _complain(f"error: {error}")
        return USER_ERROR
    except (RuntimeError, MemoryError) as error:
        advice = scarcity.advice(error)
        if advice is None:
            raise
        _complain(f"error: {advice}")
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        _complain(f"interrupted. {interrupt}".rstrip())
        return INTERRUPTED
    except BrokenPipeError:
        _silence_output()
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(overview())  # noqa: T201 - the command line speaks
        return 0
    if arguments[0] == "--version":
        print(f"detdistill {importlib.import_module('detdistill').__version__}")  # noqa: T201
        return 0
    return _command(arguments[0], arguments[1:])


def _command(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"Unknown command {name!r}.{hint} Known: {', '.join(COMMANDS)}.")
    commands = importlib.import_module("detdistill.cli.commands")
    run = getattr(commands, f"{name}_checkpoint" if keyword.iskeyword(name) else name)
    return NOT_ALL_RIGHT if run(arguments) is False else 0


def overview() -> str:
    """The text of `detdistill --help`."""
    rows = "\n".join(f"  {name:<10} {purpose}" for name, purpose in COMMANDS.items())
    return (
        "usage: detdistill COMMAND [options]\n\n"
        "Knowledge distillation for object detectors.\n\n"
        f"{rows}\n\n"
        "'detdistill COMMAND --help' explains a command; 'detdistill demo' shows it all."
    )


def _show_warning(message: Warning | str, kind: type[Warning], *_: object) -> None:
    """Says a warning as a sentence, without the line of code behind it."""
    if issubclass(kind, UserWarning):
        _complain(f"warning: {message}")


def _complain(message: str) -> None:
    print(f"detdistill: {message}", file=sys.stderr)  # noqa: T201 - the command line speaks


def _silence_output() -> None:
    """Whoever read our output has gone; what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
