"""Foreign pickles are read, and what they want to be run is not."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.interop.foreign import GFL, legacy

from detdistill.errors import UserError
from detdistill.interop import unpickle


class Wants:
    """Pickles as a call of something."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def test_a_checkpoint_of_mmengine_is_read_with_its_log_left_empty() -> None:
    content = unpickle.read(GFL)
    assert isinstance(content["state_dict"]["backbone.conv1.weight"], torch.Tensor)
    assert "GFLHead" in content["meta"]["cfg"]
    logs = content["message_hub"]["log_scalars"].values()
    assert {type(log) for log in logs} == {unpickle.Inert}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (eval, "eval"), (__import__, "__import__")],
)
def test_a_pickle_that_runs_code_is_refused_and_nothing_is_run(
    tmp_path: Path, function: Callable[..., object], name: str, *, zipped: bool
) -> None:
    trace = tmp_path / "was_run"
    bad = {"state_dict": {}, "meta": Wants(function, f"touch {trace}")}
    torch.save(bad, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=f"wants '{name}'.*nothing of it was run"):
        unpickle.read(tmp_path / "bad.pth")
    assert not trace.exists()


def test_getattr_is_never_called(tmp_path: Path) -> None:
    torch.save({"a": Wants(getattr, "word", "upper")}, tmp_path / "a.pth")
    assert isinstance(unpickle.read(tmp_path / "a.pth")["a"], unpickle.Inert)


def test_what_getattr_would_find_cannot_be_called(tmp_path: Path) -> None:
    class Caller:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Found(), ("touch x",)

    class Found:
        def __reduce__(self) -> tuple[object, ...]:
            return getattr, ("word", "upper")

        def __call__(self) -> None:
            """Pickle wants callables there."""

    torch.save({"a": Caller()}, tmp_path / "a.pth")
    with pytest.raises(UserError):
        unpickle.read(tmp_path / "a.pth")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, share: float, *, zipped: bool) -> None:
    whole = (GFL if zipped else legacy(tmp_path)).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut\.pth is cut short, or no checkpoint"):
        unpickle.read(tmp_path / "cut.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n", pickle.dumps({"weights": 1})])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match="no checkpoint of PyTorch"):
        unpickle.read(tmp_path / "a.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        unpickle.read(tmp_path / "nothing.pth")
