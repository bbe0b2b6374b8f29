"""Experiments from YAML files, recipes and options; a method's hyper-parameters are options too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from detdistill import typed
from detdistill.cli.parser import Parser, flat, peek
from detdistill.cli.settings import read, short, split_methods
from detdistill.errors import UserError
from detdistill.recipes import Settings, over
from detdistill.train.experiment import (
    GROUPS,
    OF_THE_TEACHER,
    Experiment,
    check_groups,
    groups,
)

USAGES = {
    "train": "[--student NAME] [--data DATA] [options]",
    "distill": "--teacher RUN [--student NAME] [--data DATA] [--method NAMES] [options]",
    "doctor": "[--teacher RUN] [--student NAME] [--data DATA] [--method NAMES] [options]",
}

PURPOSES = {
    "train": "Trains a detector without a teacher.",
    "distill": "Trains a student with a teacher; without --method it is exactly 'train'.",
    "doctor": "Prints the environment; with any option of 'distill', also tries one step of it.",
}

METHOD_HELP = (
    "methods joined by a plus, as crosskd+pkd; each adds options of its own, which --help shows "
    "when --method is given"
)


PROFILE_HELP = "say what each part of a step costs, from torch's profiler"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked of `train`, `distill` or `doctor`."""

    experiment: Experiment
    out: Path
    resume: bool = False
    overwrite: bool = False
    print_config: bool = False
    recipe: str | None = None
    """The one that it was made of."""
    profile: bool = False
    """Of `doctor`: say what each part of a step costs."""


def from_arguments(command: str, arguments: Sequence[str]) -> Request:
    """Reads a command line.

    Raises:
        UserError: an option or a name is unknown, or a value has the wrong type.
    """
    first = peek(arguments, "config", "recipe", "method", "teacher")
    written = read(recipe=first.recipe, config=first.config)
    values, methods = split_methods(written, first.method)
    if command == "train":
        _refuse_teacher(values, methods, teacher=first.teacher)
    refuse_options_of_other_methods(arguments, methods)
    parser = _parser(command, methods)
    _preset(parser, values, origin=first.config or f"recipe {first.recipe}")
    return _request(parser.parse_args(list(arguments)).as_dict(), methods)


def from_settings(command: str, settings: Settings) -> Request:
    """Reads a Python call: fields of `Experiment`, `method`, and a method's settings by its name.

    Raises:
        UserError: as `from_arguments`.
    """
    base = read(recipe=settings.get("recipe"), config=settings.get("config"))
    values, methods = split_methods(over(base, settings), settings.get("method"))
    if command == "train":
        _refuse_teacher(values, methods)
    parsed = _parser(command, methods).parse_object(values, defaults=True)
    return _request(parsed.as_dict(), methods)


def default_folder(experiment: Experiment) -> Path:
    """`runs/<student>-<methods or alone>-<data>-s<seed>`."""
    methods = "+".join(map(short, experiment.methods)) or "alone"
    student = Path(experiment.student).name.removesuffix(".safetensors")
    name = f"{student}-{methods}-{_data_word(experiment)}-s{experiment.seed}"
    return Path("runs") / re.sub(r"[^\w.+-]+", "-", name)


def _refuse_teacher(
    values: dict[str, Any], methods: Sequence[str], *, teacher: str | None = None
) -> None:
    """A run file of `train` says `teacher: null`; anything else belongs to `distill`."""
    plainest = vars(Experiment())
    given = {name: values.pop(name, None) for name in OF_THE_TEACHER}
    asked = [name for name, value in given.items() if value not in (None, plainest[name])]
    if teacher or asked or methods:
        raise UserError("'train' has no teacher and no methods: use 'detdistill distill'.")


def refuse_options_of_other_methods(
    arguments: Sequence[str], chosen: Iterable[str], *, option: str = "method"
) -> None:
    """`--crosskd.cut` without CrossKD is not a typing error, so it gets an answer of its own."""
    words = (re.match(r"--(\w+)\.", argument) for argument in arguments)
    unknown = {word[1] for word in words if word} - {*GROUPS, *map(short, chosen)}
    if not unknown:
        return
    from detdistill import methods

    for name in sorted(unknown.intersection(methods.names())):
        raise UserError(f"'--{name}.' options belong to method {name!r}: add --{option} {name}.")


def _parser(command: str, methods: Iterable[str]) -> Parser:
    parser = Parser(command, purpose=PURPOSES[command], usage=USAGES[command])
    _add_run_options(parser)
    if command == "doctor":
        parser.add_argument("--profile", action="store_true", help=PROFILE_HELP)
    if command == "train":
        parser.add_class_arguments(Experiment, None, skip={"methods", *OF_THE_TEACHER})
    else:
        parser.add_argument("--method", default="", help=METHOD_HELP)
        parser.add_class_arguments(Experiment, None, skip={"methods"})
    for name in methods:
        add_method_options(parser, name)
    parser.hide_config_options()
    return parser


def _add_run_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--config", help="YAML file with any of these options; the command line overrides it")
    add("--recipe", help="settings that come with the package; 'detdistill recipes' lists them")
    add("--out", help="run folder; chosen from student, methods, data and seed if not given")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace a run that is there already")
    add("--print_config", action="store_true", help="print the experiment as YAML and stop")


def add_method_options(parser: Parser, name: str) -> None:
    """`--pkd.weight` and so on; what methods need is imported, which takes a second."""
    from detdistill import methods
    from detdistill.cli import hyperparameters

    hyperparameters.add_options(parser, methods.find(name), short(name))


def _preset(parser: Parser, values: Settings, *, origin: str) -> None:
    """Makes the values of a file the defaults, checked as if they had been typed."""
    try:
        check_groups(values)
        checked = parser.parse_object(dict(values), defaults=True)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    parser.set_defaults(dict(flat(checked.as_dict(), whole=("class_map",))))


def _request(values: dict[str, Any], methods: Sequence[str]) -> Request:
    experiment = experiment_of(values, methods)
    typed.require("out", values["out"], str | Path | None)
    for name in ("resume", "overwrite", "print_config", "profile"):
        typed.require(name, values.get(name, False), bool)
    return Request(
        experiment=experiment,
        out=Path(values["out"]) if values["out"] else default_folder(experiment),
        resume=values["resume"],
        overwrite=values["overwrite"],
        print_config=values["print_config"],
        recipe=values["recipe"],
        profile=values.get("profile", False),
    )


def experiment_of(values: dict[str, Any], methods: Sequence[str] = ()) -> Experiment:
    """The fields of an experiment among parsed values, and the settings of these methods."""
    known = {field.name for field in fields(Experiment)}
    chosen = {key: value for key, value in values.items() if key in known} | groups(values)
    return Experiment(**chosen, methods={name: values[short(name)] for name in methods})


def _data_word(experiment: Experiment) -> str:
    kind, _, place = experiment.data.partition(":")
    path = Path(place)
    is_yaml = path.suffix in {".yaml", ".yml"}
    name = "-".join(filter(None, (path.parent.name, path.stem))) if is_yaml else path.name
    word = f"{kind}-{name}" if place else kind
    return f"{word}-{experiment.images}images" if experiment.images else word
