from dataclasses import replace
from pathlib import Path

import pytest

from detdistill.errors import UserError
from detdistill.train import experiment as experiments
from detdistill.train.experiment import Experiment, Optimizer


def test_an_experiment_comes_back_from_its_file(tmp_path: Path) -> None:
    written = Experiment(
        teacher="runs/teacher",
        resize=(800, 1333),
        methods={"crosskd": {"cut": 1}, "pkd": {"weight": 1e-5}},
        optimizer=Optimizer(betas=(0.8, 0.95), ema=0.99),
    )
    experiments.save(written, tmp_path / "experiment.yaml")
    assert experiments.load(tmp_path / "experiment.yaml") == written


@pytest.mark.parametrize("text", ["- a list", "a: [", "colour: red", "optimizer: {speed: 1}"])
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        experiments.load(path)


def test_differences_name_the_field_and_both_values() -> None:
    old = Experiment(steps=600, methods={"pkd": {"weight": 6.0}}, optimizer=Optimizer(lr=0.012))
    new = replace(old, steps=7, methods={"pkd": {"weight": 3.0}}, optimizer=Optimizer(lr=1.0))
    assert experiments.differences(old, new) == [
        "methods.pkd.weight: 6.0, now 3.0",
        "steps: 600, now 7",
        "optimizer.lr: 0.012, now 1.0",
    ]


def test_a_method_more_is_a_difference() -> None:
    old = Experiment()
    new = replace(old, methods={"pkd": {"weight": 6.0}})
    assert any(
        "methods.pkd.weight: absent, now 6.0" in d for d in experiments.differences(old, new)
    )
    assert experiments.differences(new, old)


def test_what_does_not_decide_the_result_may_change() -> None:
    old = Experiment()
    assert not experiments.differences(old, replace(old, workers=3, save_every=7))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("images", 0),
        ("validate_every", 0),
        ("log_every", 0),
        ("save_every", -1),
        ("flip", 1.5),
        ("workers", -1),
        ("seed", -1),
        ("resize", (0, 800)),
        ("resize", (1333, 800)),
        ("optimizer", Optimizer(lr=0)),
        ("optimizer", Optimizer(clip=0)),
        ("optimizer", Optimizer(ema=1.0)),
        ("optimizer", Optimizer(warmup_steps=-1)),
        ("optimizer", Optimizer(weight_decay=-1)),
        ("optimizer", Optimizer(momentum=-1)),
        ("optimizer", Optimizer(warmup_start=-1)),
        ("optimizer", Optimizer(betas=(0.9, 1.0))),
        ("methods", {"pkd": {}}),
    ],
)
def test_settings_that_cannot_work_are_refused(field: str, value: object) -> None:
    with pytest.raises(UserError):
        experiments.check(replace(Experiment(), **{field: value}))


def test_the_defaults_are_accepted() -> None:
    experiments.check(Experiment())
