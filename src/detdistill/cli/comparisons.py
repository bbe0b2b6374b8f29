"""Comparisons from YAML files, recipes and options, as `experiments` reads single trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from detdistill import typed
from detdistill.cli.experiments import (
    add_method_options,
    experiment_of,
    refuse_options_of_other_methods,
)
from detdistill.cli.parser import Parser, peek
from detdistill.cli.settings import by_name, layers, own_settings, several, short
from detdistill.compare import Methods, Pair, Plan, with_steps
from detdistill.errors import UserError
from detdistill.files import require_writable, write_text
from detdistill.grid import Launch
from detdistill.recipes import Settings, over
from detdistill.train.experiment import Experiment, plain, without_teacher

PURPOSE = (
    "Trains a student alone and with each method, at every seed, and the student alone for as long "
    "as the costliest method takes. What has finished in the folder already is kept."
)
USAGE = "--methods NAMES... --teacher NAME|RUN [--student NAME] [--seeds N...] [options]"

METHODS_HELP = (
    "rows of the table: methods joined by a plus, as pkd crosskd+pkd; each adds options of its "
    "own, which --help shows when --methods is given"
)
TEACHER_HELP = (
    "a run folder or .safetensors file, or a detector's name, which is trained first; one for all "
    "students or one for each"
)
PARALLEL_HELP = "trainings at a time; if not given, the number of GPUs, or of cores without any"
CLUSTER_HELP = (
    "address of a Ray cluster whose machines train and share the folder --out, or local for one on "
    "this machine (the extra ray)"
)

CONFIG = "comparison.yaml"
FILES = {"report": "report.html", "csv": "comparison.csv", "markdown": "comparison.md"}

_OF_THE_CALL = ("config", "recipe", "out", "parallel", "cluster", "overwrite", "print_config")
"""Settings that decide nothing about the result."""
_AS_GIVEN = ("parallel", "cluster", "resamples", "against", "overwrite", "print_config")
_OF_ONE_TRAINING = {"methods", "teacher", "student", "seed"}
"""Fields of an experiment in whose place a comparison has others."""
_SEVERAL = ("student", "teacher", "seeds")

Rows = dict[str, Methods]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked of `compare`."""

    plan: Plan
    settings: dict[str, Any]
    """What was set of the plan, as `--config` reads it."""
    out: Path
    parallel: int | None
    cluster: str | None
    resamples: int
    against: str | None
    overwrite: bool
    print_config: bool


def from_arguments(arguments: Sequence[str]) -> Request:
    """Reads a command line.

    Raises:
        UserError: an option or a name is unknown, or a value has the wrong type.
    """
    first = peek(arguments, "config", "recipe", several=("methods",))
    written = _read(first.recipe, first.config)
    rows = _rows(written.get("methods") if first.methods is None else first.methods)
    refuse_options_of_other_methods(arguments, _names(rows), option="methods")
    given = _parser(rows).parse_args(list(arguments), defaults=False).as_dict()
    return _request(over(written, {**given, "methods": rows}))


def from_settings(settings: Settings) -> Request:
    """Reads a Python call: the options by name, and a method's settings by its name.

    Raises:
        UserError: as `from_arguments`.
    """
    return _request(over(_read(settings.get("recipe"), settings.get("config")), settings))


def fulfil(request: Request) -> dict[str, Any]:
    """Trains what is not there yet, and writes what it shows as a page, as CSV and as Markdown."""
    from detdistill import compare
    from detdistill.report import published, tabular
    from detdistill.report.build import read as read_page
    from detdistill.report.build import write as write_page

    files = {name: request.out / file for name, file in FILES.items()}
    require_writable(request.out / CONFIG)
    compare.check(request.plan)
    if request.against:
        published.read(request.against)  # a wrong name is refused now, not after the trainings
    write_text(request.out / CONFIG, written(request))
    with _places(request) as (workers, launch):
        outcome = compare.run(
            request.plan, request.out, workers=workers, overwrite=request.overwrite, launch=launch
        )
    page = read_page(outcome.finished, resamples=request.resamples, against=request.against)
    rows = tabular.rows(page.comparisons)
    write_page(page, files["report"])
    write_text(files["csv"], tabular.as_csv(rows))
    write_text(files["markdown"], tabular.as_markdown(page.tables, [*page.notes, *page.warnings]))
    paths = {name: str(file) for name, file in files.items()}
    return {"rows": rows, "failed": list(outcome.failed), **paths}


@contextmanager
def _places(request: Request) -> Iterator[tuple[int | None, Launch | None]]:
    """How many trainings run at a time, and what starts one on a cluster; None for the usual."""
    from detdistill import cluster

    if request.cluster is None:
        yield request.parallel, None
        return
    with cluster.connected(request.cluster) as machines:
        yield request.parallel or machines.places, machines.launch


def written(request: Request) -> str:
    """The comparison as YAML, which `--config` reads."""
    return yaml.safe_dump(request.settings, sort_keys=False, allow_unicode=True)


def _read(recipe: str | None, config: str | None) -> dict[str, Any]:
    """A recipe, whose methods work together in one row, and a YAML file over it."""
    base, own = layers(recipe=recipe, config=config)
    together = base.get("methods")
    rows = {"methods": {"+".join(together): together}} if together else {}
    return over({**base, **rows}, own)


def _rows(methods: Any) -> Rows:  # noqa: ANN401 - what stands in a YAML file
    """Names joined by a plus, one or a list of them, or their settings by a name of the row."""
    if isinstance(methods, Mapping):
        return {str(name): by_name(own or str(name)) for name, own in methods.items()}
    return {str(name): by_name(name) for name in several(methods or [])}


def _names(rows: Rows) -> list[str]:
    """Every method that is in any row."""
    return list(dict.fromkeys(name for methods in rows.values() for name in methods))


def _request(settings: dict[str, Any]) -> Request:
    """Makes a plan of settings from any source."""
    rows = _rows(settings.get("methods"))
    if not rows:
        raise UserError("Nothing to compare: name the methods, as --methods pkd crosskd+pkd.")
    rest = {key: value for key, value in settings.items() if key != "methods"}
    rest |= {key: several(rest[key]) for key in _SEVERAL if rest.get(key) is not None}
    values = _parser(rows).parse_object(rest, defaults=True).as_dict()
    rows = {name: _with_shared(methods, rest) for name, methods in rows.items()}
    _check(values)
    pairs = tuple(_pairs(values))
    deciding = {key: value for key, value in rest.items() if key not in _OF_THE_CALL}
    return Request(
        plan=Plan(pairs=pairs, methods=rows, seeds=tuple(values["seeds"])),
        settings=plain({**deciding, "methods": rows}),
        out=Path(values["out"]),
        **{name: values[name] for name in _AS_GIVEN},
    )


def _with_shared(methods: Methods, settings: Settings) -> Methods:
    """The settings of a row's methods, over those that were set for every row."""
    return {
        name: {**own_settings(name, settings.get(short(name))), **own}
        for name, own in methods.items()
    }


_TYPES = {
    "seeds": tuple[int, ...],
    "student": tuple[str, ...],
    "teacher": tuple[str, ...] | None,
    "out": str | Path,
    "cluster": str | None,
    "against": str | None,
    "overwrite": bool,
    "print_config": bool,
}


def _check(values: Settings) -> None:
    """Refuses what no comparison can work with."""
    for name, kind in _TYPES.items():
        typed.require(name, values[name], kind)
    for name, least in {"parallel": 1, "teacher_steps": 1, "resamples": 0}.items():
        value = values[name]
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}, but must be at least {least}.")
    if (rate := values["teacher_lr"]) is not None and rate <= 0:
        raise UserError(f"--teacher_lr is {rate}, but must be above 0.")


def _pairs(values: dict[str, Any]) -> Iterator[Pair]:
    """Every student with its teacher, or with the only one."""
    from detdistill.report.numbers import counted
    from detdistill.train.start import is_checkpoint

    students, teachers = values["student"], values["teacher"] or []
    if len(teachers) not in {1, len(students)}:
        raise UserError(
            f"{counted(len(students), 'student')} and {counted(len(teachers), 'teacher')}: name "
            "one teacher for all, or one for each in the same order, as --teacher gfl-quick-w32."
        )
    shared = {key: value for key, value in values.items() if key not in _OF_ONE_TRAINING}
    for name, teacher in zip(students, teachers * (len(students) // len(teachers)), strict=True):
        student = experiment_of({**shared, "student": name, "teacher": None})
        if student.optimizer.warmup_steps is None:
            student = with_steps(student, student.steps)
        known = is_checkpoint(teacher)
        yield Pair(
            student=student, teacher=teacher if known else _teacher(student, teacher, values)
        )


def _teacher(student: Experiment, name: str, values: Mapping[str, Any]) -> Experiment:
    """The training of a teacher: the student's, with steps and learning rate of its own."""
    optimizer = replace(student.optimizer, lr=values["teacher_lr"] or student.optimizer.lr)
    training = replace(without_teacher(student), student=name, optimizer=optimizer)
    return with_steps(training, values["teacher_steps"] or 2 * student.steps)


def _parser(rows: Rows) -> Parser:
    parser = Parser("compare", purpose=PURPOSE, usage=USAGE)
    _add_options(parser)
    parser.add_class_arguments(Experiment, None, skip=_OF_ONE_TRAINING)
    for name in _names(rows):
        add_method_options(parser, name)
    parser.hide_config_options()
    return parser


def _add_options(parser: Parser) -> None:
    """What a comparison has beside the settings that its trainings share."""
    add = parser.add_argument
    add("--config", help="YAML file with any of these options; the command line overrides it")
    add("--recipe", help="settings that come with the package; 'detdistill recipes' lists them")
    add("--methods", nargs="+", help=METHODS_HELP)
    add("--student", nargs="+", default=["gfl-quick-w8"], help="detectors that learn")
    add("--teacher", nargs="+", help=TEACHER_HELP)
    add("--teacher_steps", type=int, help="of a teacher that is trained; twice the student's")
    add("--teacher_lr", type=float, help="likewise its peak learning rate; the student's")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the students")
    add("--out", default="runs/compare", help="folder for the runs, the tables and the report")
    add("--parallel", type=int, help=PARALLEL_HELP)
    add("--cluster", help=CLUSTER_HELP)
    add("--resamples", type=int, default=1000, help="of the images, for the intervals over images")
    add("--against", help="a paper's table that gets a column of its own, as crosskd:table5")
    add("--overwrite", action="store_true", help="train everything anew")
    add("--print_config", action="store_true", help="print the comparison as YAML and stop")
