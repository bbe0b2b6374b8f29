"""Files and settings that cannot be right are refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.foreign import CLASSES, GFL, changed, published, with_config

from detdistill.errors import UserError
from detdistill.interop import foreign
from detdistill.interop.mmdet import config as configs


def entry(name: str, value: object) -> Mapping[str, Any]:
    return {**published(), name: value}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("meta", "by somebody", "does not know its classes"),
        ("meta", {"dataset_meta": "coco"}, "does not know its classes"),
        ("state_dict", None, "holds no weights"),
        ("state_dict", [1, 2], "holds no weights"),
        ("state_dict", {0: torch.zeros(1)}, "Only 0 tensors fit"),
    ],
)
def test_entries_of_another_kind_are_named(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    file = changed(tmp_path, lambda _: entry(name, value))
    with pytest.raises(UserError, match=message):
        foreign.load("mmdet", file)


def test_weights_of_a_failed_training_are_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> Mapping[str, Any]:
        content["state_dict"]["bbox_head.gfl_cls.bias"][2] = torch.nan
        return content

    with pytest.raises(UserError, match=r"1 tensors hold NaN .*gfl_cls\.bias"):
        foreign.load("mmdet", changed(tmp_path, change))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_groups=4", "num_groups=3"),
        ("octave_base_scale=8", "octave_base_scale=None"),
        ("out_channels=16", "out_channels='many'"),
        ("ratios=[", "ratios=3, x=["),
        ("reg_max=16", "reg_max=-2"),
        ("nms_pre=1000", "nms_pre=-1"),
        ("max_per_img=100", "max_per_img=0"),
    ],
)
def test_a_model_of_impossible_sizes_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(UserError, match=r"The config (describes|has)"):
        foreign.load("mmdet", with_config(tmp_path, old, new))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_ = 3", "_base_ is 3"),
        ("_base_ = [3]", "not a file or a list of files"),
        ("model = {(): 3}", r"the key \(\)"),
        ("model = -'a'", "arithmetic"),
        ("model = dict(a=1 / 0)", "division by zero"),
        ("model = dict(**[1])", r"\*\*\[1\]"),
        ("model = " + "+".join("1" * 5000), "recursion"),
    ],
)
def test_a_config_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=message):
        configs.read_file(tmp_path / "own.py")


def test_a_value_that_means_nothing_outside_of_the_model_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("rate = 1 / 0\nkeys = {(): 1}\nmodel = dict(a=1)\n")
    assert configs.read_file(tmp_path / "own.py") == {"model": {"a": 1}}


def test_names_of_classes_are_told_apart_and_counted() -> None:
    with pytest.raises(UserError, match="names 'a' twice"):
        foreign.load("mmdet", GFL, classes=["a", "b", "a", "c", "d"])
    with pytest.raises(UserError, match=r"knows 5 classes, but 2 are named \(a, b\).*--classes"):
        foreign.load("mmdet", GFL, classes=["a", "b"])


def test_one_description_is_enough(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not both"):
        foreign.load(
            "mmdet", GFL, config=tmp_path / "own.py", preset="gfl-mini-w8", classes=CLASSES
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello world\n", "its bytes mean nothing"),
        (b"<!DOCTYPE html>", "its bytes mean nothing"),
        (b"\x80\x04}.", "Invalid magic number"),
    ],
)
def test_what_is_said_of_a_file_of_another_kind_is_words(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match="no checkpoint of PyTorch") as refusal:
        foreign.load("mmdet", tmp_path / "a.pth")
    said = str(refusal.value).partition("PyTorch (")[2]
    assert said.startswith(reason)
    assert "Weights only" not in said
