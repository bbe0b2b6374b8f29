"""The options of the commands that are not experiments; most are what a verb takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser

from detdistill.cli import verbs
from detdistill.cli.parser import Parser


def demo() -> Parser:
    """Options of `demo`."""
    return _of(verbs.demo, "demo", "[--budget tiny|small] [--out FOLDER] [--overwrite]")


def evaluate() -> Parser:
    """Options of `evaluate`."""
    usage = "CHECKPOINT [--data DATA] [--split train|tune|test] [--out FILE]"
    return _of(verbs.evaluate, "evaluate", usage)


def predict() -> Parser:
    """Options of `predict`."""
    usage = "CHECKPOINT PATHS... --out FOLDER [--formats FORMATS...] [--data DATA]"
    return _of(verbs.predict, "predict", usage)


def export() -> Parser:
    """Options of `export`."""
    usage = "CHECKPOINT --out FILE [--raw] [--precision fp32|fp16|int8] [--data DATA]"
    return _of(verbs.export, "export", usage)


def import_checkpoint() -> Parser:
    """Options of `import`."""
    usage = (
        "mmdet|torchvision CHECKPOINT --out OUT [--config FILE] [--preset NAME] "
        "[--classes NAMES...]"
    )
    return _of(verbs.import_checkpoint, "import", usage)


def report() -> Parser:
    """Options of `report`."""
    return _of(verbs.report, "report", "FOLDERS... [--out FILE] [--against PAPER:TABLE]")


def explain() -> Parser:
    """Options of `explain`."""
    usage = (
        "RUNS... [--only NAMES...] [--images N] [--alone RUN] [--rivals TEACHERS...] [--out FOLDER]"
    )
    return _of(verbs.explain, "explain", usage)


def methods() -> Parser:
    """Options of `methods`."""
    parser = Parser("methods", purpose="The distillation methods.", usage="[NAME] [--table]")
    parser.add_argument("name", nargs="?", help="show all about one method")
    parser.add_argument(
        "--table", action="store_true", help="show which method fits which detectors"
    )
    return parser


def detectors() -> Parser:
    """Options of `detectors`: none."""
    return Parser("detectors", purpose="The detectors that can be named.", usage="")


def recipes() -> Parser:
    """Options of `recipes`."""
    parser = Parser(
        "recipes",
        purpose="Settings with a name: rows of the papers' tables, and small twins of them.",
        usage="[NAME]",
    )
    parser.add_argument("name", nargs="?", help="show all about one recipe")
    return parser


def _of(verb: Callable[..., Any], command: str, usage: str) -> Parser:
    """What a verb takes by place is written without dashes, what it takes by name is an option.

    Args:
        verb: with a docstring that says what it does, and what each argument is.
        command: its name.
        usage: what follows it in the first line of the help text.
    """
    said = docstring_parser.parse_from_object(verb)
    purpose = " ".join(filter(None, (said.short_description, said.long_description)))
    parser = Parser(command, purpose=purpose, usage=usage)
    annotations = get_type_hints(verb)
    described = {argument.arg_name: str(argument.description) for argument in said.params}
    for name, parameter in signature(verb).parameters.items():
        parser.add_argument(
            _written(name, parameter),
            help=" ".join(described[name].split()),
            **_reading(annotations[name]),
            **_default(parameter),
        )
    return parser


def _written(name: str, parameter: Parameter) -> str:
    return f"--{name}" if parameter.kind is Parameter.KEYWORD_ONLY else name


def _reading(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - any type
    """How a value of a type, or of a type or None, is read from words."""
    kind, *_ = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Sequence:
        return {"nargs": "+"} | _reading(*get_args(kind))
    return {} if kind is str else {"type": kind}


def _default(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind is not Parameter.KEYWORD_ONLY:
        return {}
    if parameter.default is Parameter.empty:
        return {"required": True}
    several = isinstance(parameter.default, tuple)
    return {"default": [*parameter.default] if several else parameter.default}
