from pathlib import Path

import made_up

from detdistill.report.arms import compare
from detdistill.report.runs import find_runs
from detdistill.report.words import headline, subline, warnings


def said(root: Path) -> tuple[str, str, str]:
    """Headline, subline and all warnings."""
    runs = find_runs([root])
    finished = [run for run in runs if run.finished]
    found = compare(finished)
    unfinished = [run for run in runs if not run.finished]
    return headline(found[0]), subline(found[0]), "\n".join(warnings(found, unfinished))


def pair(root: Path, *, alone: float, distilled: float) -> Path:
    teacher = made_up.run(root / "teacher", ap=0.7, student="gfl-mini-w32")
    made_up.run(root / "alone", ap=alone)
    made_up.run(root / "pkd", ap=distilled, methods={"pkd": {}}, teacher=teacher)
    return root


def test_the_headline_has_the_gain_and_the_share_of_the_gap(tmp_path: Path) -> None:
    text, detail, _ = said(made_up.demo(tmp_path / "demo"))

    assert (
        text == "With crosskd+pkd, the student gained 23.8 AP from its teacher: "
        "61\u00a0% of the gap closed."
    )
    assert "31.5 AP alone, 55.3 distilled; the teacher has 70.7." in detail
    assert "50.5 AP, 4.8 less than distilled" in detail


def test_the_headline_admits_that_distillation_did_not_help(tmp_path: Path) -> None:
    text, _, _ = said(pair(tmp_path, alone=0.5, distilled=0.44))

    assert text.startswith("Distillation did not help")
    assert "44.0 AP, 6.0 below the student alone" in text


def test_without_the_student_alone_no_gain_is_claimed(tmp_path: Path) -> None:
    made_up.run(tmp_path / "pkd", methods={"pkd": {}})

    text, _, care = said(tmp_path)

    assert "what it gained is unknown" in text
    assert "no gain can be stated" in care


def test_a_training_without_a_teacher_has_a_headline_too(tmp_path: Path) -> None:
    made_up.run(tmp_path / "one", ap=0.312)

    text, _, care = said(tmp_path)

    assert text == "gfl-mini-w8 reaches 31.2 AP after 600 steps on shapes."
    assert "equal computing time" not in care


def test_single_seeds_are_warned_of(tmp_path: Path) -> None:
    _, _, care = said(made_up.demo(tmp_path / "demo"))

    assert "single seed" in care
    assert "3 to 5 AP" in care


def test_a_small_gain_of_single_runs_is_called_noise(tmp_path: Path) -> None:
    _, detail, care = said(pair(tmp_path, alone=0.50, distilled=0.52))

    assert "within the noise" in detail
    assert "within the noise" in care


def test_a_large_gain_is_not_called_noise(tmp_path: Path) -> None:
    _, detail, _ = said(pair(tmp_path, alone=0.30, distilled=0.52))

    assert "noise" not in detail


def test_a_control_that_beats_distillation_is_warned_of(tmp_path: Path) -> None:
    root = pair(tmp_path, alone=0.3, distilled=0.4)
    made_up.run(root / "student-equal-compute", ap=0.45, steps=1300)

    _, detail, care = said(root)

    assert "longer training does as much as a teacher" in care
    assert "45.0 AP, 5.0 more than distilled" in detail


def test_a_missing_control_is_warned_of(tmp_path: Path) -> None:
    _, _, care = said(pair(tmp_path, alone=0.3, distilled=0.4))

    assert "equal computing time is not among these runs" in care


def test_rows_from_other_test_images_are_warned_of(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone")
    other = made_up.run(tmp_path / "pkd", methods={"pkd": {}})
    text = (other / "evaluation.json").read_text()
    made_up.write(other / "evaluation.json", text.replace('"images": 24', '"images": 500'))

    _, _, care = said(tmp_path)

    assert "not measured on the same images" in care


def test_an_unfinished_run_is_named_with_its_step(tmp_path: Path) -> None:
    made_up.run(tmp_path / "done")
    made_up.run(tmp_path / "half", ap=None, methods={"pkd": {}})

    _, _, care = said(tmp_path)

    assert "half is not finished (state: interrupted, step 600 of 600)" in care


def test_seeds_are_counted_in_the_subline(tmp_path: Path) -> None:
    text, detail, care = said(made_up.several_seeds(tmp_path / "seeds"))

    assert "13.8 ± 2.2 AP" in text
    assert "3 seeds: 30.2 ± 4.0 AP alone" in detail
    assert "single seed" not in care


def test_a_teacher_that_is_weaker_than_its_student_is_called_so(tmp_path: Path) -> None:
    made_up.run(tmp_path / "teacher", ap=0.2, student="gfl-mini-w32")
    made_up.run(tmp_path / "alone", ap=0.3)
    made_up.run(tmp_path / "pkd", ap=0.4, methods={"pkd": {}}, teacher=tmp_path / "teacher")

    _, _, care = said(tmp_path)

    assert "The teacher (20.0 AP) is weaker than the student alone (30.0 AP)" in care


def test_gains_over_other_seeds_are_called_unpaired(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone", ap=0.3, seed=0)
    made_up.run(tmp_path / "pkd", ap=0.4, methods={"pkd": {}}, seed=1)

    assert "pkd: no seed in common with the student alone" in said(tmp_path)[2]


def test_our_readings_are_warned_of(tmp_path: Path) -> None:
    _, _, care = said(made_up.demo(tmp_path / "demo"))

    assert "tid: the authors published no code or not all formulas" in care
    assert "pkd:" not in care
