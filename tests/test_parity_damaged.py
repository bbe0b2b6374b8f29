"""Folders that are damaged, incomplete or laid out in another way than the usual."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests import parity

ATSS = Path(__file__).parent / "fixtures" / "parity" / "atss" / "r18"


def cut_arrays(folder: Path) -> None:
    file = folder / "io.npz"
    file.write_bytes(file.read_bytes()[:5000])


def no_arrays(folder: Path) -> None:
    (folder / "io.npz").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def list_as_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model": {')


def no_cases(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cases": {}}))


def nothing_but_config(folder: Path) -> None:
    no_arrays(folder)
    (folder / "checkpoint.pth").unlink()


DAMAGE = [
    cut_arrays,
    no_arrays,
    no_config,
    list_as_config,
    cut_config,
    no_cases,
    nothing_but_config,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_one_failure(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ATSS, tmp_path / "r18")
    damage(tmp_path / "r18")
    assert parity.main([str(tmp_path)]) == 1
    failure, last = capsys.readouterr().out.splitlines()
    assert failure.startswith("FAILED r18: ")
    assert last == "0 passed, 1 failed"


def test_a_case_may_have_its_inputs_but_no_pictures(tmp_path: Path) -> None:
    """Pictures of another case, beside it, are not taken for its own."""
    shutil.copytree(ATSS, tmp_path / "r18")
    with np.load(ATSS / "io.npz") as file:
        arrays = {key: file[key] for key in file.files if not key.startswith("B.raw")}
    np.savez(tmp_path / "r18/io.npz", **arrays)
    cases = {case.name: case for case in parity.cases(tmp_path)}
    assert parity.failure(cases["r18 B"]) is None


def test_objects_and_sizes_may_lie_where_the_pictures_are(tmp_path: Path) -> None:
    given = ("A.inputs", "A.raw", "A.gt_")
    for name in ("r18", "r50"):
        shutil.copytree(ATSS, tmp_path / name)
    with np.load(ATSS / "io.npz") as file:
        arrays = {key: file[key] for key in file.files if not key.startswith(given)}
    np.savez(tmp_path / "r50/io.npz", **arrays)
    config = json.loads((ATSS / "config.json").read_text())
    del config["cases"]["A"]["metas"]
    (tmp_path / "r50/config.json").write_text(json.dumps(config))
    cases = {case.name: case for case in parity.cases(tmp_path)}
    assert parity.failure(cases["r50 A"]) is None
