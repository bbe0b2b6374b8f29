"""The studies: what they compare, what they say of it, and that they say it from run folders."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from benchmarks.studies import (
    ablations,
    classes,
    families,
    markdown,
    methods,
    pairs,
    precision,
    record,
)
from benchmarks.studies.arms import arm
from benchmarks.studies.budgets import SHORT
from benchmarks.studies.ordering import verdict
from benchmarks.studies.pool import Pool
from benchmarks.studies.study import Results, Table

from detdistill import data, recipes, winograd
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment

TWINS = [name for name in recipes.names() if name.startswith("shapes/")]
RANKED = {"both": 3.0, "one": 2.0, "none": 1.0}


def made_up(experiment: Experiment, pool: Pool, ap: float, *, step_ms: float = 50.0) -> None:
    """A run folder as a finished training leaves it."""
    folder = pool.folder(experiment)
    folder.mkdir(parents=True)
    metrics = dict.fromkeys(("AP", "AP50", "AP75", "APs"), ap / 100)
    cost = {"cpu_seconds": experiment.steps * step_ms / 1e3, "peak_memory_mb": 2 * step_ms}
    evaluation = {"metrics": metrics, "step": experiment.steps, "cost": cost}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    validation = {"kind": "eval", "step": experiment.steps, "metrics": metrics}
    (folder / "metrics.jsonl").write_text(json.dumps(validation) + "\n")
    (folder / "status.json").write_text('{"state": "finished"}')


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(pool=Pool(tmp_path), seeds=(0, 1, 2))


@pytest.fixture
def table(results: Results) -> Table:
    """A student of 20 AP, 30 with PKD, and a teacher of 40."""
    pkd = arm("pkd", published=38.0)
    table = Table(
        title="a table",
        student=SHORT.student("gfl-quick-w8"),
        teacher=SHORT.teacher("gfl-quick-w32"),
        arms=(pkd,),
        published_alone=36.0,
        source="a paper",
    )
    assert table.teacher
    made_up(table.teacher, results.pool, 40.0)
    for seed in results.seeds:
        alone, taught = (table.experiment(row, seed, results.pool) for row in table.rows)
        made_up(alone, results.pool, 20.0 + seed)
        made_up(taught, results.pool, 30.0 + seed, step_ms=70.0)
    return table


def test_a_row_says_gain_share_of_the_gap_and_cost(table: Table, results: Results) -> None:
    lines = markdown.section(table, results).splitlines()
    alone, taught = (
        line.split(" | ") for line in lines if line.startswith(("| student alone |", "| pkd |"))
    )
    assert alone[1:4] == ["20.0 21.0 22.0", "**21.0 ± 1.0**", ""]
    assert taught[1:5] == ["30.0 31.0 32.0", "**31.0 ± 1.0**", "10.0 ± 0.0", "53%"]
    assert (alone[9], taught[9]) == ("50", "+20")
    assert (alone[10], taught[10]) == ("100", "+40")
    assert "400 steps of 8 images" in "".join(lines)


def test_a_table_says_whether_the_order_of_the_paper_holds(table: Table, results: Results) -> None:
    assert "The paper's order holds (pairs of rows: 1 of 1" in markdown.section(table, results)


def test_a_training_that_failed_is_said_and_the_rest_stays(table: Table, results: Results) -> None:
    broken = results.pool.folder(table.experiment(table.arms[0], 1, results.pool))
    (broken / "status.json").write_text('{"state": "failed"}')
    text = markdown.section(table, results)
    assert "| pkd | failed |" in text
    assert "**21.0 ± 1.0**" in text


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"both": [30, 31], "one": [20, 21], "none": [10, 11]}, "holds .pairs of rows: 3 of 3"),
        ({"both": [30, 20], "one": [20, 30], "none": [10, 11]}, "within one standard deviation"),
        ({"both": [10, 11], "one": [20, 21], "none": [9, 9]}, "does not hold .*one is ahead of b"),
    ],
)  # fmt: skip
def test_an_order_is_told_apart_from_chance(
    measured: dict[str, Sequence[float]], said: str
) -> None:
    import re

    assert re.search(said, verdict(RANKED, measured))


def test_a_folder_is_shared_by_equal_trainings_and_no_others(results: Results) -> None:
    student, pool = SHORT.student("gfl-quick-w8"), results.pool
    teacher = Table(title="", student=student, teacher=SHORT.teacher("gfl-quick-w32"))
    explicit = teacher.experiment(arm("pkd", weight=6.0), 0, pool)
    assert pool.folder(explicit) == pool.folder(teacher.experiment(arm("pkd"), 0, pool))
    assert pool.folder(explicit) != pool.folder(teacher.experiment(arm("pkd", weight=5.0), 0, pool))
    assert (
        pool.folder(student).parent == pool.folder(Experiment(**vars(student) | {"seed": 1})).parent
    )
    assert Pool(Path("elsewhere")).folder(student).name == "s0"


def test_the_twin_of_a_row_gets_its_result(table: Table, results: Results) -> None:
    found = record.found([table], results)
    assert found["shapes/gfl-pkd"] == recipes.Result(
        ap=31.0, deviation=1.0, alone=21.0, seeds=3, steps=400
    )
    assert set(found) == {"shapes/gfl", "shapes/gfl-pkd"}


@pytest.mark.parametrize("name", TWINS)
def test_a_small_recipe_is_what_the_studies_train(name: str) -> None:
    recipe = experiments.from_dict(recipes.load(name))
    student = SHORT.student(recipe.student)
    assert recipe == Experiment(**vars(student) | {"methods": recipe.methods})


def test_every_row_of_an_ablation_and_a_pair_has_a_recipe(results: Results) -> None:
    tables = [*next(ablations.study(SHORT, results)), *next(pairs.study(SHORT, results))]
    keys = {record.key_of_recipe(recipe) for recipe in recipes.every()}
    for found in tables:
        for row in found.rows:
            if row.published is not None or row.name == "student alone":
                assert record.key_of_row(found, row) in keys, (found.title, row.name)


def test_a_family_study_has_every_family_and_says_what_is_refused(results: Results) -> None:
    tables = next(families.study(SHORT, results))
    assert [found.title for found in tables] == list(families.FAMILIES)
    assert all(row.methods or row.name == "student alone" for found in tables for row in found.rows)


def test_a_method_that_gains_nothing_is_tuned_on_the_tune_split_alone(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "FAMILIES", ("gfl",))
    rounds = methods.study(SHORT, results)
    (published,) = next(rounds)
    assert published.teacher
    made_up(published.teacher, results.pool, 40.0)
    for row in published.rows:
        gain = 0.0 if row.name in {"student alone", "pkd"} else 10.0
        for seed in results.seeds:
            made_up(published.experiment(row, seed, results.pool), results.pool, 20.0 + gain)
    published, search = next(rounds)
    assert (search.split, search.seeds(results.seeds)) == ("tune", (0,))
    assert [row.name for row in search.arms] == [
        f"pkd, weights times {factor:g}" for factor in methods.FACTORS
    ]
    for row in search.rows:
        best = row.methods.get("pkd", {}).get("weight") == 18.0
        made_up(search.experiment(row, 0, results.pool), results.pool, 30.0 if best else 20.0)
    published, search = next(rounds)
    assert published.arms[-1].name == "pkd, weights times 3"
    assert published.arms[-1].methods == {"pkd": {"weight": 18.0}}
    assert "AP on the tune split" in markdown.section(search, results)


def test_the_teacher_of_eighty_classes_and_its_student_see_the_same(tmp_path: Path) -> None:
    classes.write(tmp_path, "tiny", train=3, tune=1, test=1)
    twelve = data.open("shapes:tiny", "train", limit=3)
    eighty, five = (data.open(f"coco:{folder}", "train") for folder in classes.folders(tmp_path))
    assert (len(eighty.classes), max(eighty.category_ids)) == (80, 90)
    assert five.classes == classes.FIVE
    for wanted, theirs, mine in zip(twelve, eighty, five, strict=True):
        names = [twelve.classes[label] for label in wanted.labels]
        assert [eighty.classes[label] for label in theirs.labels] == names
        known = [name for name in names if name in classes.FIVE]
        assert [five.classes[label] for label in mine.labels] == known
        torch.testing.assert_close(theirs.boxes, wanted.boxes)
        assert torch.equal(theirs.image, mine.image)


def test_a_student_alone_has_no_map_of_classes(results: Results) -> None:
    classes.folders(results.pool.root)[1].mkdir(parents=True)
    *_, (full, partly) = classes.study(SHORT, results)
    alone, taught = (partly.experiment(row, 0, results.pool) for row in partly.rows[:2])
    assert full.experiment(full.rows[0], 0, results.pool) == alone
    assert taught.class_map == dict.fromkeys(classes.UNKNOWN)


def test_trainings_in_both_precisions_differ_in_nothing_else(results: Results) -> None:
    usual = winograd.WORTH_IT
    (tables,) = precision.study(SHORT, results)
    full, *halves = tables
    assert [table.student.precision for table in tables] == ["fp32", "bf16", "bf16"]
    for half in halves:
        assert full.teacher == half.teacher
        for mine, other in zip(full.rows, half.rows, strict=True):
            whole, lowered = (t.experiment(mine, 1, results.pool) for t in (full, half))
            assert mine == other
            assert Experiment(**vars(lowered) | {"precision": "fp32", "winograd": False}) == whole
    assert usual == winograd.WORTH_IT
