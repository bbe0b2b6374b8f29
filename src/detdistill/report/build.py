"""One self-contained HTML page from run folders."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
from markupsafe import Markup

from detdistill import __version__, files, run_files
from detdistill.report import (
    bars,
    citations,
    curves,
    figures,
    gallery,
    overview,
    published,
    sources,
    table,
    words,
)
from detdistill.report.arms import Arm, Comparison, compare
from detdistill.report.checkpoints import read_checkpoint
from detdistill.report.numbers import counted
from detdistill.report.published import Published
from detdistill.report.resampling import RESAMPLES
from detdistill.report.runs import Run, find_runs, is_run, read_run, teacher_places

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A comparison's result: a sentence, and the numbers behind it."""

    text: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The bar picture of a comparison."""

    heading: str
    bars: bars.Bars


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What was run in a comparison."""

    heading: str
    terms: overview.Terms


class Page:
    """Everything that the template shows, worked out from runs when it is asked for."""

    version = __version__
    title = "Distillation report"

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        resamples: int = RESAMPLES,
        against: Published | None = None,
    ) -> None:
        self.runs = [run for run in runs if not run.is_checkpoint]
        self.against = against
        self.comparisons = compare([run for run in runs if run.finished], resamples=resamples)

    @cached_property
    def headlines(self) -> list[Headline]:
        """One for each comparison, the one with a teacher's gain first."""
        if not self.comparisons:
            return [Headline(text="No run has finished yet: there is no result.", detail="")]
        ordered = sorted(self.comparisons, key=lambda found: found.best is None)
        return [Headline(text=words.headline(c), detail=words.subline(c)) for c in ordered]

    @cached_property
    def contents(self) -> list[tuple[str, str]]:
        """Anchors and names of the sections that have something to show."""
        sections = (
            ("results", "Results", True),
            ("runs", "What was run", self.overviews),
            ("curves", "Learning curves", self.curves),
            ("pictures", "Pictures", self.gallery),
            *((found.anchor, found.heading, True) for found in self.figures),
            ("figures", "Figures", self.how_to_explain),
            ("cost", "Cost", self.cost),
            ("methods", "Methods", self.sources),
            ("cite", "Cite", self.citations),
            ("reproduce", "Reproduce", True),
        )
        return [(anchor, name) for anchor, name, content in sections if content]

    @cached_property
    def charts(self) -> list[Chart]:
        """Bars, where there are at least two to compare."""
        drawn = [Chart(heading=table.setting(c), bars=bars.bars(c)) for c in self.comparisons]
        return [chart for chart in drawn if len(chart.bars.bars) > 1]

    @cached_property
    def tables(self) -> list[table.Table]:
        """Accuracy, and cost."""
        return table.tables(self.comparisons, self.against)

    @cached_property
    def notes(self) -> list[str]:
        """How the tables' numbers were measured."""
        return table.notes(self.comparisons, self.against)

    @cached_property
    def warnings(self) -> list[str]:
        """What limits the conclusions."""
        return words.warnings(self.comparisons, [run for run in self.runs if not run.finished])

    @cached_property
    def overviews(self) -> list[Overview]:
        """Data, detectors and budgets."""
        return [
            Overview(heading=table.setting(c), terms=overview.what_was_run(c))
            for c in self.comparisons
        ]

    @cached_property
    def curves(self) -> list[curves.Curve]:
        """Losses and AP over the training, unfinished runs included."""
        return curves.curves(self.runs, self.comparisons)

    @cached_property
    def gallery(self) -> gallery.Gallery | None:
        """Detections side by side, for the first comparison of detectors."""
        shown = next((c for c in self.comparisons if c.best), None)
        shown = shown or next(iter(self.comparisons), None)
        return None if shown is None else gallery.gallery(_shown_runs(shown))

    @cached_property
    def figures(self) -> list[figures.Section]:
        """What `explain` drew, of each arm the first run that has figures."""
        named: dict[Path, tuple[str, Run]] = {}
        for comparison, arm in self._arms:
            run = _explained(arm)
            named.setdefault(run.folder, (self._name(comparison, arm), run))
        return figures.sections(named.values())

    @cached_property
    def how_to_explain(self) -> str:
        """The command that draws the figures of the best run; empty if they are there."""
        if self.figures or not self._arms:
            return ""
        best = next((c.best for c in self.comparisons if c.best), self._arms[0][1])
        return f"detdistill explain {shlex.quote(str(best.first.folder))}"

    @property
    def _arms(self) -> list[tuple[Comparison, Arm]]:
        """All that were trained here, the best first, each behind a comparison that it is in."""
        arms = [(comparison, arm) for comparison in self.comparisons for arm in comparison.arms]
        trained = [(comparison, arm) for comparison, arm in arms if not arm.first.is_checkpoint]
        return sorted(trained, key=lambda found: (not found[1].first.methods, -found[1].ap))

    def _name(self, comparison: Comparison, arm: Arm) -> str:
        """An arm's label, unique on the page: with the setting where there are several."""
        several = len(self.comparisons) > 1
        return f"{arm.label}, {table.setting(comparison)}" if several else arm.label

    @cached_property
    def cost(self) -> list[str]:
        """What the runs took."""
        return overview.cost(self.comparisons)

    @cached_property
    def sources(self) -> list[sources.Source]:
        """The methods that were used."""
        return sources.sources(self.runs)

    @cached_property
    def citations(self) -> str:
        """BibTeX of methods, detectors and data."""
        return citations.citations(self.runs, self.sources)

    @cached_property
    def commands(self) -> list[str]:
        """What was typed."""
        return overview.commands(self.runs)

    @cached_property
    def recipes(self) -> list[overview.Recipe]:
        """The resolved experiments."""
        return overview.recipes(self.runs)

    @cached_property
    def environment(self) -> overview.Terms:
        """Versions and machine."""
        return overview.environment(self.runs)

    @cached_property
    def run_count(self) -> str:
        """`5 run folders`."""
        return counted(len(self.runs), "run folder")

    @cached_property
    def style(self) -> Markup:
        """The style sheet, which is ours and needs no escaping."""
        return Markup((_HERE / "style.css").read_text(encoding="utf-8"))  # noqa: S704

    @cached_property
    def script(self) -> Markup:
        """What enlarges pictures, turns tabs and copies, ours too."""
        return Markup((_HERE / "page.js").read_text(encoding="utf-8"))  # noqa: S704


def build(
    folders: Sequence[Path],
    out: Path,
    *,
    resamples: int = RESAMPLES,
    against: str | None = None,
) -> Path:
    """Writes the page and returns where it lies.

    Args:
        folders: run folders, or folders that hold run folders.
        out: the HTML file, or an existing folder that gets a `report.html`.
        resamples: of the test images, for the intervals over images; 0 for none.
        against: a paper's table whose numbers get a column of their own, as `crosskd:table5`.

    Raises:
        UserError: a folder is missing or no run folder, a file of a run cannot be read, there is
            no such table, or the page cannot be written.
    """
    out = page_at(out)
    write(read(folders, resamples=resamples, against=against), out)
    return out


def page_at(out: Path) -> Path:
    """The HTML file that is meant: `report.html` in a folder, or the file itself."""
    return out / run_files.REPORT if out.is_dir() else out


def read(
    folders: Sequence[Path],
    *,
    resamples: int = RESAMPLES,
    against: str | None = None,
) -> Page:
    """Works the page out; the arguments are those of `build`.

    Raises:
        UserError: a folder is missing or no run folder, or a file of a run cannot be read.
    """
    paper = published.read(against) if against else None
    runs = _with_teachers(find_runs(folders))
    return Page(runs, resamples=resamples, against=paper)


def write(page: Page, out: Path) -> None:
    """Renders the page.

    Raises:
        UserError: it cannot be written.
    """
    files.write_text(out, _template().render(page=page))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html")


def _with_teachers(runs: Sequence[Run]) -> list[Run]:
    """The runs, led by those of their teachers that nobody named: run folders or checkpoints."""
    given = {run.folder.resolve() for run in runs}
    missing: dict[Path, Run] = {}
    for run in runs:
        places = teacher_places(run)
        if given.isdisjoint(place.resolve() for place in places):
            found = _teacher(places, run.folder.parent)
            missing |= {found.folder.resolve(): found} if found else {}
    return [*missing.values(), *runs]


def _teacher(places: Sequence[Path], folder: Path) -> Run | None:
    """The first run folder, or the checkpoint, that is there."""
    runs = (read_run(place) for place in places if is_run(place))
    cards = (read_checkpoint(place, folder) for place in places)
    return next(runs, None) or next(filter(None, cards), None)


def _explained(arm: Arm) -> Run:
    """Of an arm's runs, the first with figures, or just the first."""
    return next((run for run in arm.runs if figures.are_there(run)), arm.first)


def _shown_runs(comparison: Comparison) -> dict[str, Run]:
    """Teacher, student alone and the best distilled student, each by its first run."""
    arms = (comparison.teacher, comparison.alone, comparison.best)
    return {arm.label: arm.first for arm in arms if arm and not arm.first.is_checkpoint}
