"""The tables of the built-in benchmark: studies of methods, detectors and controls, over seeds.

`python -m benchmarks.builtin NAME` trains what is not there yet under `runs/builtin`, as many at a
time as there are cores, and writes `docs/results/tables/NAME.md` from the run folders. It can be
stopped and started again. What two studies share is trained once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.studies import (
    ablations,
    builtin,
    cached,
    classes,
    families,
    forking,
    markdown,
    methods,
    pairs,
    precision,
    record,
)
from benchmarks.studies.budgets import LONG, SHORT, Budget
from benchmarks.studies.pool import Pool
from benchmarks.studies.study import Results, Table

from detdistill import grid, recipes
from detdistill.errors import UserError
from detdistill.files import write_text

Study = Callable[[Budget, Results], Iterator[list[Table]]]

STUDIES: Mapping[str, tuple[Study, Budget]] = {
    "defaults": (builtin.defaults, LONG),
    "published": (builtin.published, LONG),
    "cached": (cached.study, LONG),
    "families": (families.study, SHORT),
    "pairs": (pairs.study, SHORT),
    "classes": (classes.study, SHORT),
    "methods": (methods.study, SHORT),
    "ablations": (ablations.study, SHORT),
    "precision": (precision.study, LONG),
}


def main() -> None:
    """Trains, and writes the tables."""
    options = _options()
    study, budget = STUDIES[options.study]
    if options.steps:
        budget = budget.of(options.steps)
    results = Results(pool=Pool(options.runs), seeds=options.seeds)
    forking.warm_up([budget.data])
    tables: list[Table] = []
    for tables in study(budget, results):
        train(tables, results)
    write_text(options.out / f"{options.study}.md", markdown.page(tables, results))
    if options.record:
        recipes.write_results(record.found(tables, results))


def train(tables: Sequence[Table], results: Results) -> None:
    """Trains what is missing; what has failed before is not tried again."""
    jobs = [job for job in _jobs(tables, results) if not results.pool.has_failed(job.experiment)]
    grid.run(jobs, launch=forking.fork, on_failure=_report)


def _jobs(tables: Sequence[Table], results: Results) -> list[grid.Job]:
    """Teachers first, then seed by seed, so that a stopped study has whole comparisons."""
    teachers = [table.teacher for table in tables if table.teacher]
    students = [
        table.experiment(arm, seed, results.pool)
        for seed in results.seeds
        for table in tables
        if seed in table.seeds(results.seeds)
        for arm in table.rows
    ]
    jobs = (results.pool.job(experiment) for experiment in (*teachers, *students))
    return list({job.name: job for job in jobs}.values())


def _report(failure: UserError) -> None:
    """The others go on; the table will say which training failed."""
    print(failure, file=sys.stderr)  # noqa: T201 - a script


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("--runs", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--steps", type=int, help="of a student; a teacher's in proportion")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), help="as 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("docs/results/tables"))
    parser.add_argument("--record", action="store_true", help="show AP in the list of recipes")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


if __name__ == "__main__":
    main()
