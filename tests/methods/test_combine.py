from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests import fakes

from detdistill import methods, typed
from detdistill.errors import UserError
from detdistill.methods import UnsuitablePairError, combine
from detdistill.methods.crosskd import CrossKD
from detdistill.methods.pkd import PKD


def test_methods_are_named_with_a_plus_between_them() -> None:
    methods = combine.parse("crosskd + pkd", {"pkd": {"weight": 2}})
    assert [type(method) for method in methods.values()] == [CrossKD, PKD]
    assert list(methods) == ["crosskd", "pkd"]
    assert methods["pkd"].settings()["weight"] == 2


def test_an_unknown_method_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'crosskd'"):
        combine.parse("croskd")


def test_an_unknown_setting_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"setting of pkd 'wieght'\. Did you mean 'weight'"):
        combine.parse("pkd", {"pkd": {"wieght": 3}})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("pkd", "resize", "both"),
        ("pkd", "weight", "much"),
        ("pkd", "weight", True),
        ("pkd", "levels", 3),
        ("pkd", "levels", ["0"]),
        ("crosskd", "cut", 1.5),
        ("crosskd", "align", "yes"),
        ("tid", "tiers", [1.0]),
        ("tid", "nms", None),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name: str, setting: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{name} cannot have {setting}=.*: expected"):
        combine.parse(name, {name: {setting: value}})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("pkd", "levels", [0, 1]),
        ("pkd", "levels", None),
        ("pkd", "weight", 3),
        ("crosskd", "cut", None),
        ("crosskd", "cls_weight", 0),
        ("tid", "tiers", [1, 0.5]),
    ],
)
def test_values_as_a_file_writes_them_are_taken(name: str, setting: str, value: object) -> None:
    method = combine.parse(name, {name: {setting: value}})[name]
    assert method.settings()[setting] == value


@pytest.mark.parametrize("text", ["", "pkd+", "+pkd", "pkd++crosskd"])
def test_an_empty_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"write a\+b"):
        combine.parse(text)


def test_a_method_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="named 2 times"):
        combine.parse("pkd+pkd")
    with pytest.raises(UserError, match="'pkd' is named 2 times"):
        combine.build_all({"pkd": {}, "detdistill.methods.pkd": {}})


def test_no_names_are_no_methods() -> None:
    assert combine.build_all({}) == {}


def test_settings_of_a_method_that_is_not_used_are_refused() -> None:
    with pytest.raises(UserError, match="method with settings 'tid'"):
        combine.parse("pkd", {"tid": {}})


def test_two_methods_that_pull_one_neck_are_doubted() -> None:
    assert combine.conflicts(combine.parse("fitnet+pkd", {"pkd": {"on": "cls"}})) == []
    (reason,) = combine.conflicts(combine.parse("fitnet+pkd"))
    assert "fitnet and pkd pull the same neck" in reason


def test_two_methods_that_pull_predictions_are_doubted() -> None:
    own = {"crosskd": {"strategy": "c"}}
    for text, settings in (("kd+ld", {}), ("crosskd+ld", own)):
        (reason,) = combine.conflicts(combine.parse(text, settings))
        assert f"{text.replace('+', ' and ')} pull the same class scores or boxes" in reason


def test_a_method_that_pulls_neck_and_predictions_is_doubted_beside_either() -> None:
    for other in ("fgd", "kd", "crosskd"):
        (reason,) = combine.conflicts(combine.parse(f"{other}+frs"))
        assert "frs" in reason


def test_a_wrapper_pulls_what_it_wraps() -> None:
    assert combine.conflicts(combine.parse("pad+kd")) == []
    (reason,) = combine.conflicts(combine.parse("pad+kd", {"pad": {"of": "kd"}}))
    assert "pad and kd pull the same class scores" in reason


def test_rank_mimicking_and_its_feature_imitation_are_not_doubted() -> None:
    assert combine.conflicts(combine.parse("rm+pfi")) == []


def test_head_and_neck_together_are_not_doubted() -> None:
    assert combine.conflicts(combine.parse("crosskd+pkd")) == []


def test_crossing_beside_a_method_that_mimics_predictions_is_doubted() -> None:
    class Mimic(PKD):
        pulls = "predictions"

    (reason,) = combine.conflicts({"crosskd": CrossKD(), "mimic": Mimic()})
    assert "mimic makes them imitate it" in reason


def test_what_methods_read_is_what_any_of_them_reads() -> None:
    reads = combine.setup(combine.parse("crosskd+pkd"), fakes.spec(), fakes.spec())
    assert reads.predictions
    assert reads.towers == {1}
    only_neck = combine.setup(combine.parse("pkd"), fakes.spec(), fakes.spec())
    assert not only_neck.predictions
    assert not only_neck.towers


def test_towers_before_and_after_their_activation_cannot_be_had_at_once() -> None:
    methods = {"a": CrossKD(preactivation=True), "b": CrossKD()}
    with pytest.raises(UserError, match=r"a reads the head towers before .* b after"):
        combine.setup(methods, fakes.spec(), fakes.spec())


def test_a_family_that_a_method_does_not_know_is_refused() -> None:
    region = dataclasses.replace(fakes.spec(), family="region")
    with pytest.raises(UnsuitablePairError, match="the teacher is a region one"):
        combine.setup(combine.parse("crosskd"), region, fakes.spec())
    combine.setup(combine.parse("pkd"), region, fakes.spec())


def test_settings_may_be_lists_and_mappings() -> None:
    assert typed.fits([1, 2], list[int])
    assert typed.fits((0.5, 1), Sequence[float])
    assert typed.fits({"a": 1}, Mapping[str, int])
    assert not typed.fits([1, "2"], Sequence[int])
    assert not typed.fits("12", Sequence[str])
    assert "a list" in typed.described(list[int])


def test_what_is_missing_to_import_a_method_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_methods").mkdir()
    (tmp_path / "own_methods" / "mine.py").write_text("import a_package_of_nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'own_methods\.mine' needs 'a_package_of_nobody'"):
        methods.find("own_methods.mine")
    (tmp_path / "alone.py").write_text("# no method\n")
    with pytest.raises(UserError, match=r"'alone' must define exactly one Method, it has 0"):
        methods.find("alone")
    with pytest.raises(UserError, match=r"No module 'own_methods\.yours'"):
        methods.find("own_methods.yours")
    with pytest.raises(UserError, match=r"Unknown method '\.pkd'"):
        methods.find(".pkd")


@pytest.mark.parametrize(
    ("name", "setting", "value", "message"),
    [
        ("mimic", "count", 0, "at least 1"),
        ("gid", "size", 0, "at least 1"),
        ("skd", "window", -3, "at least 1"),
        ("pkd", "weight", float("nan"), "a finite number"),
        ("pkd", "weight", -1.0, "0 or more"),
        ("crosskd", "cls_weight", -1, "0 or more"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    name: str, setting: str, value: float, message: str
) -> None:
    with pytest.raises(UserError, match=f"{name} cannot have {setting}=.*{message}"):
        combine.build(name, {setting: value})
