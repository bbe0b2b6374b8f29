from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from detdistill.show import colors
from detdistill.show.curves import ap_curves, loss_curves

Rows = list[dict[str, Any]]


def train_row(step: int, distill: dict[str, float] | None = None) -> dict[str, Any]:
    task = {"cls": 1 / step, "box": 2 / step}
    return {"kind": "train", "step": step, "task": task, "distill": distill or {}}


def eval_row(step: int, ap: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "metrics": {"AP": ap}}


LOGS: dict[str, Rows] = {
    "student": [train_row(step) for step in (10, 20, 30)] + [eval_row(30, 0.315)],
    "pkd & friends": [train_row(step, {"pkd/level0": 0.5}) for step in (10, 20)]
    + [eval_row(10, 0.2), eval_row(20, 0.5)],
}


def texts(svg: str) -> list[str]:
    elements = ET.fromstring(svg).iter()  # noqa: S314 - our own
    return ["".join(element.itertext()) for element in elements if element.tag.endswith("}text")]


def lines_of(svg: str, color: str) -> int:
    """Curves of a colour, without the legend's."""
    return len(re.findall(rf"clip-path[^>]*stroke: {color.lower()}", svg.lower()))


def test_task_and_distillation_terms_have_panels_of_their_own() -> None:
    svg = loss_curves(LOGS)

    headings = [text for text in texts(svg) if text.startswith(("detection", "distillation"))]
    assert headings == ["detection: cls", "detection: box", "distillation: pkd/level0"]


def test_a_run_keeps_its_colour_in_every_panel() -> None:
    svg = loss_curves(LOGS)

    assert lines_of(svg, colors.of(0)) == 2  # the student alone has no distillation term
    assert lines_of(svg, colors.of(1)) == 3


def test_a_method_with_many_terms_is_drawn_as_their_sum() -> None:
    levels = {f"pkd/level{i}": 0.25 for i in range(4)}
    svg = loss_curves({"run": [train_row(1, levels), train_row(2, levels)]})

    assert "distillation: pkd, sum of its terms" in texts(svg)
    assert "pkd 1" in svg
    assert "level0" not in svg


def test_ap_is_drawn_in_percent() -> None:
    svg = ap_curves(LOGS)

    assert "AP (%)" in texts(svg)
    assert "student: AP 31.5" in svg
    assert "pkd &amp; friends: AP 50" in svg


def test_an_ap_that_could_not_be_measured_is_left_out() -> None:
    svg = ap_curves({"run": [eval_row(1, 0.4), eval_row(2, -1)]})

    assert "run: AP 40" in svg


def test_a_loss_that_is_no_number_is_left_out() -> None:
    broken = {**train_row(3), "task": {"cls": float("nan"), "box": None}}
    svg = loss_curves({"run": [train_row(2), broken]})

    assert "task/cls 0.5" in svg


def test_long_runs_are_averaged_to_short_lines() -> None:
    thousand = loss_curves({"run": [train_row(step) for step in range(1, 1001)]})
    hundred = loss_curves({"run": [train_row(step) for step in range(1, 101)]})

    assert len(thousand) < 1.1 * len(hundred)


@pytest.mark.parametrize("curves", [loss_curves, ap_curves])
@pytest.mark.parametrize("logs", [{}, {"run": []}, {"run": [{"kind": "train", "step": 1}]}])
def test_logs_without_anything_to_draw_give_an_empty_drawing(
    curves: Any, logs: dict[str, Rows]
) -> None:
    assert curves(logs).startswith("<svg")


@pytest.mark.parametrize("curves", [loss_curves, ap_curves])
def test_the_same_logs_give_the_same_drawing(curves: Any) -> None:
    assert curves(LOGS) == curves(LOGS)


@pytest.mark.parametrize("curves", [loss_curves, ap_curves])
def test_a_drawing_has_a_title_and_a_description_for_screen_readers(curves: Any) -> None:
    root = ET.fromstring(curves(LOGS, title="Losses <1>"))  # noqa: S314 - our own

    named = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    title, description = root.get("aria-labelledby", "").split()
    assert root.get("role") == "img"
    assert named[title] == "Losses <1>"
    assert "student" in (named[description] or "")


def test_drawings_on_one_page_share_no_ids_and_refer_to_their_own() -> None:
    drawings = [loss_curves(LOGS), ap_curves(LOGS)]

    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in drawings]
    assert not ids[0] & ids[1]
    for svg, own in zip(drawings, ids, strict=True):
        referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
        assert referred
        assert referred <= own


@pytest.mark.parametrize("curves", [loss_curves, ap_curves])
def test_a_drawing_fits_light_and_dark_pages(curves: Any) -> None:
    svg = curves(LOGS).lower()

    used = set(re.findall(r"#[0-9a-f]{6}", svg))
    assert used == {color.lower() for color in (colors.GREY, colors.of(0), colors.of(1))}
    assert "<style" not in svg


@pytest.mark.parametrize("curves", [loss_curves, ap_curves])
def test_text_is_text_and_the_file_is_small(curves: Any) -> None:
    svg = curves(LOGS)

    assert "step" in texts(svg)
    assert "pkd & friends" in texts(svg)
    assert len(svg) < 40_000


def test_matplotlib_settings_of_the_caller_are_left_alone() -> None:
    with mpl.rc_context({"font.size": 17, "svg.hashsalt": "mine"}):
        loss_curves(LOGS)

        assert (mpl.rcParams["font.size"], mpl.rcParams["svg.hashsalt"]) == (17, "mine")
