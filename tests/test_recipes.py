"""Every recipe can be run: its names exist, its methods fit its pair; small ones take a step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detdistill import data, detectors, doctor, fits, recipes
from detdistill.interop import checkpoint
from detdistill.recipes import Recipe, Result
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

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
