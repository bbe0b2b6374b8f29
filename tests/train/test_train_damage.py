"""A training goes on when a picture turns out to be damaged, and says so."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.data.test_damage import damage

from detdistill.cli import verbs
from detdistill.errors import UserError
from detdistill.files import read_json
from detdistill.train import loop
from detdistill.train.experiment import Experiment
from detdistill.train.loop import train
from detdistill.train.stop import InterruptedRun


@pytest.fixture
def experiment(plain: Experiment, tmp_path: Path) -> Experiment:
    folder = shutil.copytree(plain.data.removeprefix("coco:"), tmp_path / "data")
    damage(folder / "train2017" / "000002.jpg")
    damage(folder / "test2017" / "000001.jpg")
    return replace(plain, data=f"coco:{folder}", skippable=0.25)


def test_damaged_pictures_are_replaced_named_and_counted(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = train(experiment, tmp_path / "whole", device="cpu")
    said = (tmp_path / "whole" / "train.log").read_text()
    assert said.count("000002.jpg cannot be read") == 1
    assert "takes its place (1 of 12 pictures)" in said
    assert summary["images"] == 3
    assert "000001.jpg" in summary["notes"][0]
    again = verbs.evaluate(str(tmp_path / "whole"), data=experiment.data, skippable=0.25)
    assert (again["metrics"], again["notes"]) == (summary["metrics"], summary["notes"])
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_must_stop", lambda run: run.trainer.done == 3)
        with pytest.raises(InterruptedRun):
            train(experiment, tmp_path / "parts", device="cpu")
    train(experiment, tmp_path / "parts", resume=True, device="cpu")
    one, other = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "parts" / "train.log").read_text().count("000002.jpg cannot be read") == 1


def test_more_damage_than_may_be_skipped_ends_the_run(
    experiment: Experiment, tmp_path: Path
) -> None:
    shutil.rmtree(Path(experiment.data[5:]) / "test2017")
    shutil.copytree(Path(experiment.data[5:]) / "val2017", Path(experiment.data[5:]) / "test2017")
    strict = replace(experiment, skippable=0.05)
    with pytest.raises(UserError, match=r"1 of 12 pictures .*000002\.jpg .*share of 0\.05"):
        train(strict, tmp_path / "run", device="cpu")
    assert read_json(tmp_path / "run" / "status.json")["state"] == "failed"
