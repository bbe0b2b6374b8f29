"""Every recipe can be run: its names exist, its methods fit its pair; small ones take a step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from detdistill import data, detectors, doctor, fits, recipes, rehearsal
from detdistill.data.dataset import collate
from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.recipes import Recipe, Result
from detdistill.train import assembly
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment
from detdistill.train.step import TrainStep

RECIPES = {recipe.name: recipe for recipe in recipes.every()}
TWINS = [name for name in RECIPES if name.startswith("shapes/")]
PAPERS = [name for name in RECIPES if not name.startswith(("shapes/", "benchmark/"))]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_an_experiment_of_known_names(name: str) -> None:
    experiment = experiments.from_dict(RECIPES[name].settings)
    experiments.check(Experiment(**{**vars(experiment), "teacher": "any"}))
    detectors.describe(experiment.student, ("any",))
    assert "base" not in RECIPES[name].settings


@pytest.mark.parametrize("name", RECIPES)
def test_the_methods_of_a_recipe_fit_its_pair(name: str) -> None:
    recipe = RECIPES[name]
    methods = recipe.settings.get("methods", {})
    assert bool(methods) == (recipe.paper.teacher is not None)
    for method, settings in methods.items():
        assert recipe.paper.teacher
        student, teacher = fits.spec(recipe.settings["student"]), fits.spec(recipe.paper.teacher)
        assert fits.refusal(method, settings, student=student, teacher=teacher) is None


@pytest.mark.parametrize("name", PAPERS)
def test_a_row_of_a_paper_says_where_it_stands_and_has_a_small_twin(name: str) -> None:
    paper = RECIPES[name].paper
    assert paper.row
    if paper.value is None:
        assert "not in" in paper.row or "instead" in paper.row, "no number, no reason"
    if paper.twin is None:
        assert "no twin" in paper.note
    else:
        methods, small = (RECIPES[key].settings.get("methods", {}) for key in (name, paper.twin))
        assert set(methods) == set(small)


def test_every_twin_has_settings_of_its_own() -> None:
    contents = [str((RECIPES[n].settings, RECIPES[n].paper.teacher)) for n in TWINS]
    assert len(set(contents)) == len(contents)


def _step_of(recipe: Recipe, folder: Path) -> doctor.DryRun:
    """A try on pictures that are made up, with a teacher that has learnt nothing."""
    small = {**recipe.settings, "images": 2, "batch_size": 2, "data": "shapes:tiny"}
    if recipe.paper.teacher:
        file = folder / f"{recipe.paper.teacher}.safetensors"
        if not file.exists():
            classes = data.open("shapes:tiny", "train", 1).classes
            checkpoint.save(detectors.build(recipe.paper.teacher, classes), file)
        small["teacher"] = str(file)
    return doctor.dry_run(experiments.from_dict(small))


@pytest.mark.parametrize("name", TWINS)
def test_the_doctor_passes_a_small_recipe(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TIMED_STEPS", 2)
    folder = tmp_path_factory.getbasetemp() / "teachers"
    found = _step_of(RECIPES[name], folder)
    assert found.complaint is None
    named = {term.name.partition("/")[0] for term in found.terms}
    assert named >= set(RECIPES[name].settings.get("methods", {}))


@dataclass(frozen=True)
class Pair:
    """A student and a teacher at full width, and all recipes that train the one by the other."""

    student: str
    teacher: str | None
    classes: int

    def recipes(self) -> list[Recipe]:
        """Those in which more differs than the size of a weight or a temperature."""
        rows = [RECIPES[name] for name in PAPERS if pair_of(RECIPES[name]) == self]
        return list({str(_without_numbers(row)): row for row in rows}.values())

    @property
    def is_part_of_another(self) -> bool:
        """A student alone does what it does beside a teacher, less the methods."""
        return self.teacher is None and any(
            (other.student, other.classes) == (self.student, self.classes) and other.teacher
            for other in (pair_of(RECIPES[name]) for name in PAPERS)
        )


def _without_numbers(recipe: Recipe) -> dict[str, dict[str, object]]:
    return {
        method: {name: value for name, value in settings.items() if not isinstance(value, float)}
        for method, settings in recipe.settings.get("methods", {}).items()
    }


def pair_of(recipe: Recipe) -> Pair:
    return Pair(recipe.settings["student"], recipe.paper.teacher, recipe.classes or 0)


PAIRS = sorted({pair_of(RECIPES[name]) for name in PAPERS}, key=str)
PAIRS = [pair for pair in PAIRS if not pair.is_part_of_another]


def rehearsed(recipe: Recipe) -> Experiment:
    """At full width on small pictures."""
    small = {**recipe.settings, "resize": [96, 128]}
    return rehearsal.shortened(experiments.from_dict(small))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.student}-from-{pair.teacher}")
def test_every_recipe_of_a_paper_takes_a_step_at_full_width(pair: Pair) -> None:
    """All recipes of a pair share its forward and backward pass."""
    rows = pair.recipes()
    first = rows[0]
    parts = rehearsal.assembly(rehearsed(first), first)
    methods = {
        f"{row.name.replace('.', ',')}/{name}": method
        for row in rows
        for name, method in assembly.parse_methods(rehearsed(row)).items()
    }
    assert bool(methods) == bool(pair.teacher)
    teacher = parts.step.teacher.detector if parts.step.teacher else None
    step = TrainStep(parts.student, teacher, methods).train()
    found = step(collate([parts.data[0], parts.data[1]]))
    assert {name.rpartition("/")[0] for name in found} == {"task", *methods}
    for name, loss in found.items():
        assert loss.isfinite(), name
        assert loss.requires_grad, name
    torch.stack(list(found.values())).sum().backward()
    learning = [p.grad for p in step.parameters() if p.grad is not None]
    assert learning
    assert all(gradient.isfinite().all() for gradient in learning)


@pytest.mark.parametrize("name", ["crosskd/retinanet-mobilenetv2-from-r50", "shapes/gfl-crosskd"])
def test_the_doctor_makes_up_what_is_not_at_hand(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TIMED_STEPS", 2)
    recipe = recipes.find(name)
    experiment = experiments.from_dict(recipe.settings | {"resize": [96, 128]})
    found = doctor.dry_run(experiment, recipe)
    assert found.complaint is None
    assert any("has learnt nothing" in what for what in found.made_up)
    assert any("noise" in what for what in found.made_up) == (recipe.classes is not None)
    assert {term.name.partition("/")[0] for term in found.terms} == {"task", "crosskd"}


def test_the_doctor_refuses_what_a_training_would() -> None:
    recipe = recipes.find("shapes/gfl-crosskd")
    experiment = experiments.from_dict(recipe.settings | {"teacher_scale": 2.0})
    with pytest.raises(UserError, match="teacher's head towers"):
        rehearsal.assembly(experiment, recipe)


def test_made_up_pictures_fill_the_letterbox() -> None:
    recipe = recipes.find("crosskd/retinanet-mobilenetv2-from-r50")
    settings = recipe.settings | {"resize": None, "letterbox": 96}
    experiment = experiments.from_dict(settings)
    assert rehearsal._data(experiment, recipe, None)[0].image.shape == (3, 96, 96)
    assert "noise, 96 x 96" in rehearsal.made_up(experiment, recipe)[0]


def test_results_are_added_to_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "RESULTS", tmp_path / "results.json")
    first = Result(ap=20.0, deviation=0.5, alone=15.0, seeds=3, steps=400)
    better = Result(ap=21.0, deviation=0.5, alone=15.0, seeds=3, steps=400)
    assert recipes.results() == {}
    recipes.write_results({"shapes/b": first, "shapes/a": first})
    recipes.write_results({"shapes/a": better})
    assert recipes.results() == {"shapes/a": better, "shapes/b": first}
