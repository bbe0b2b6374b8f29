"""Compares the library with recorded cases: `python -m tests.golden FOLDER`.

A case is an .npz file; the beginning of its name says which family of computations it belongs to.
Prints one line per failure and, last, how many passed, failed and were skipped. Exit code 1 if one
failed, 2 if there is nothing to compare.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden_cases import crosskd, defeat, detection, heads, instances, necks, tbd, tid
from tests.golden_cases.case import Family, MismatchError, check

FAMILIES: dict[str, Family] = {
    "qfl_": detection.quality_focal,
    "dfl_": detection.distribution_focal,
    "giou_": detection.giou,
    "iou_log_": detection.log_iou,
    "crosskd_align_": crosskd.align,
    "crosskd_cls_": crosskd.cls,
    "crosskd_gfl_pred": crosskd.gfl_pred,
    "crosskd_atss_pred": crosskd.anchor_pred,
    "crosskd_retinanet_pred": crosskd.anchor_pred,
    "crosskd_fcos_pred": crosskd.fcos_pred,
    "crosskd_e2e_": crosskd.end_to_end,
    "bckd_cls_": crosskd.cls,
    "bckd_loc_": heads.bckd_box,
    "bckd_": heads.bckd,
    "ld_kl_": heads.divergence,
    "ld_full_": heads.ld,
    "ld_nopos": heads.ld,
    "ld_vlr_": heads.valuable_region,
    "pkd_resize_": necks.pkd_resize,
    "pkd_": necks.pkd,
    "defeat_mask_": defeat.mask,
    "defeat_neck_": defeat.neck,
    "defeat_backbone": defeat.neck,
    "defeat_cls_": defeat.cls,
    "defeat_neck_all": necks.fitnet,
    "defeat_neck_fgfi": necks.fgfi_pyramid,
    "fgd_": necks.fgd,
    "fgfi_": necks.fgfi,
    "frs_": necks.frs,
    "mgd_": necks.mgd,
    "gid_": instances.gid,
    "pfi_": instances.pfi,
    "rm_": instances.rm,
    "tbd_": tbd.tbd,
    "tid_": tid.tid,
}
"""By the beginning of the name; the longest that fits counts."""

NOT_YET: tuple[str, ...] = ()
"""Beginnings of names of methods that the library does not have: none at present."""


def family_of(name: str) -> Family | None:
    """What computes a case; None if the library does not have that method.

    Raises:
        MismatchError: the name belongs to nothing that is known.
    """
    prefixes = [prefix for prefix in FAMILIES if name.startswith(prefix)]
    if prefixes:
        return FAMILIES[max(prefixes, key=len)]
    if name.startswith(NOT_YET):
        return None
    raise MismatchError("no computation is known for this name")


def failure(path: Path) -> str | None:
    """Why a case fails, in one line; None if it passes."""
    try:
        family = family_of(path.stem)
        if family is not None:
            check(path, family)
    except Exception as error:  # noqa: BLE001 - the others are to be computed all the same
        return f"{path.stem}: {' '.join(f'{error}'.split()) or type(error).__name__}"
    return None


def is_skipped(path: Path) -> bool:
    """Whether the library does not have what the case is about."""
    return path.stem.startswith(NOT_YET) and not path.stem.startswith(tuple(FAMILIES))


def main(arguments: list[str]) -> int:
    """Compares every case of the folder that is named."""
    if len(arguments) != 1:
        print("usage: python -m tests.golden FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if not folder.is_dir():
        print(f"{folder}: there is no such folder", file=sys.stderr)
        return 2
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        print(f"{folder}: there are no .npz files", file=sys.stderr)
        return 2
    skipped = sum(map(is_skipped, paths))
    failures = [message for path in paths if (message := failure(path))]
    for message in failures:
        print(f"FAILED {message}")
    passed = len(paths) - skipped - len(failures)
    print(f"{passed} passed, {len(failures)} failed, {skipped} skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
