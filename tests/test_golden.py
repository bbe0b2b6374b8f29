from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests import golden

FOLDER = Path(__file__).parent / "fixtures" / "golden"
CASES = [path for path in sorted(FOLDER.glob("*.npz")) if not golden.is_skipped(path)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_library_computes_the_recorded_numbers(path: Path) -> None:
    assert golden.failure(path) is None


def tampered(folder: Path, name: str, **changes: object) -> Path:
    """A copy of a case with other contents."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays |= {key: np.asarray(value) for key, value in changes.items()}
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def recorded(name: str, key: str) -> np.ndarray:
    with np.load(FOLDER / f"{name}.npz") as file:
        return file[key]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("qfl_basic", "out_none"),
        ("pkd_basic", "grad_pred"),
        ("tid_default", "out_mask_1"),
        ("tid_default", "out_tier_0"),
        ("crosskd_e2e_idx3", "out_hold_stu_cls_1"),
        ("crosskd_gfl_pred_2lvl", "out_reg_1"),
        ("crosskd_fcos_pred", "out_denorm"),
        ("defeat_neck_all", "grad_stu_2"),
        ("defeat_neck_decoupled", "out_losskd_neck_back"),
        ("defeat_backbone", "grad_bb_stu_2"),
        ("defeat_mask_small", "out_gaussian_mask_0"),
        ("defeat_mask_small", "out_target_lvls_0"),
        ("defeat_cls_T1", "grad_cls_s"),
        ("bckd_full_3lvl", "out_score_kd_0"),
        ("bckd_loc_basic", "out_weight"),
        ("ld_vlr_3lvl", "out_vlr_region"),
        ("fgd_basic", "out_Mask_bg"),
        ("frs_basic", "grad_cls_s_1"),
        ("fgfi_basic", "out_count"),
        ("tbd_ours_default", "out_hs"),
        ("ld_full_gibox", "out_gi_idx_1"),
        ("ld_full_finegrained", "out_ld_vlr_0"),
    ],
)
def test_a_different_number_is_noticed(tmp_path: Path, name: str, key: str) -> None:
    values = recorded(name, key).copy()
    values.flat[0] += 1
    message = golden.failure(tampered(tmp_path, name, **{key: values}))
    assert message is not None
    assert "differs by 1" in message


def test_a_setting_that_has_no_effect_is_noticed(tmp_path: Path) -> None:
    settings = json.loads(str(recorded("tid_default", "hp")))
    changed = json.dumps({**settings, "warm_up": 3})
    message = golden.failure(tampered(tmp_path, "tid_default", hp=changed))
    assert message is not None
    assert "unknown hyper-parameters warm_up" in message


def test_a_setting_that_cannot_be_had_is_noticed(tmp_path: Path) -> None:
    changed = json.dumps({"loss_weight": 1.0, "eps": 1e-3, "unbiased": True})
    message = golden.failure(tampered(tmp_path, "pkd_basic", hp=changed))
    assert message is not None
    assert "eps is 0.001" in message


def test_a_result_that_nothing_computes_is_noticed(tmp_path: Path) -> None:
    message = golden.failure(tampered(tmp_path, "pkd_basic", out_surprise=1.0))
    assert message == "pkd_basic: nothing computes out_surprise"


def test_the_last_line_counts_and_the_exit_code_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "NOT_YET", ("future_",))
    tampered(tmp_path, "qfl_basic")
    (tmp_path / "future_method.npz").write_bytes(b"")
    assert golden.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"

    tampered(tmp_path, "pkd_basic", out_loss=np.float32(9.0))
    (tmp_path / "qfl_broken.npz").write_bytes(b"no archive")
    (tmp_path / "unheard_of.npz").write_bytes(b"")
    assert golden.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "1 passed, 3 failed, 1 skipped"


def test_a_missing_folder_is_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert golden.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert golden.main([str(tmp_path)]) == 2
    assert golden.main([]) == 2
