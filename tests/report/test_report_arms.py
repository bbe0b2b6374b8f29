from pathlib import Path

import made_up
import pytest

from detdistill.report.arms import Comparison, Role, compare, gap_closed
from detdistill.report.runs import find_runs
from detdistill.report.words import warnings


def compared(root: Path) -> Comparison:
    (found,) = compare(find_runs([root]))
    return found


def test_the_demos_runs_play_their_parts(tmp_path: Path) -> None:
    found = compared(made_up.demo(tmp_path / "demo"))

    parts = {arm.first.name: arm.role for arm in found.arms}

    assert parts == {
        "teacher": Role.TEACHER,
        "student": Role.ALONE,
        "student-equal-compute": Role.EQUAL_COMPUTE,
        "crosskd+pkd": Role.DISTILLED,
        "tid": Role.DISTILLED,
    }


def test_gain_and_gap_are_counted_from_the_student_at_equal_steps(tmp_path: Path) -> None:
    found = compared(made_up.demo(tmp_path / "demo"))
    best = found.best
    assert best is not None

    gain, closed = found.gain(best), found.gap_closed(best)

    assert best.label == "crosskd+pkd"
    assert gain is not None
    assert gain.mean == pytest.approx(0.238)
    assert closed == pytest.approx(0.238 / (0.707 - 0.315))


def test_seeds_of_one_training_make_one_arm(tmp_path: Path) -> None:
    found = compared(made_up.several_seeds(tmp_path / "seeds"))

    seeds = {arm.label: arm.seeds for arm in found.arms}

    assert seeds == {"Teacher": [0], "Student alone": [0, 1, 2], "pkd": [0, 1, 2]}


def test_whether_the_teacher_is_remembered_makes_no_other_arm(tmp_path: Path) -> None:
    for seed, cache in enumerate((None, "cache")):
        settings = {"teacher_cache": cache, "teacher_cache_gb": 3 if cache else None}
        made_up.run(tmp_path / f"pkd-s{seed}", methods={"pkd": {}}, seed=seed, **settings)

    (arm,) = compared(tmp_path).distilled

    assert arm.seeds == [0, 1]


def test_the_gain_is_paired_by_seed(tmp_path: Path) -> None:
    found = compared(made_up.several_seeds(tmp_path / "seeds"))

    gain = found.gain(found.distilled[0])

    assert gain is not None
    assert gain.values == pytest.approx((0.113, 0.151, 0.15))


def test_runs_of_one_method_with_other_settings_are_told_apart(tmp_path: Path) -> None:
    for weight in (1.0, 6.0):
        made_up.run(tmp_path / f"pkd-{weight}", methods={"pkd": {"weight": weight}})

    labels = [arm.label for arm in compared(tmp_path).distilled]

    assert labels == ["pkd (pkd.weight 1.0)", "pkd (pkd.weight 6.0)"]


def test_a_teacher_that_was_moved_with_its_students_is_still_theirs(tmp_path: Path) -> None:
    made_up.demo(tmp_path / "demo").rename(tmp_path / "elsewhere")

    found = compared(tmp_path / "elsewhere")

    assert found.teacher is not None
    assert found.teacher.first.name == "teacher"


def test_other_amounts_of_labels_are_other_comparisons(tmp_path: Path) -> None:
    for images in (None, 300):
        made_up.run(tmp_path / f"alone-{images}", images=images)
        made_up.run(tmp_path / f"pkd-{images}", images=images, methods={"pkd": {}})

    found = compare(find_runs([tmp_path]))

    assert sorted(str(comparison.images) for comparison in found) == ["300", "None"]
    assert all(comparison.alone for comparison in found)


def test_a_student_with_other_steps_is_no_baseline(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone", steps=900, step_ms=900)
    made_up.run(tmp_path / "pkd", methods={"pkd": {}}, steps=600)

    found = compared(tmp_path)

    assert found.plain[0].role is Role.LONGER
    assert found.gain(found.distilled[0]) is None


def test_a_longer_training_of_the_same_duration_is_the_control(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone", steps=1200, step_ms=200)
    made_up.run(tmp_path / "pkd", methods={"pkd": {}}, steps=600, step_ms=410)

    assert compared(tmp_path).equal_compute is not None


def test_a_teacher_no_better_than_the_student_leaves_no_gap_to_close(tmp_path: Path) -> None:
    teacher = made_up.run(tmp_path / "teacher", ap=0.4, student="gfl-mini-w32")
    made_up.run(tmp_path / "alone", ap=0.4)
    made_up.run(tmp_path / "pkd", ap=0.5, methods={"pkd": {}}, teacher=teacher)

    found = compared(tmp_path)

    assert found.gap_closed(found.distilled[0]) is None


def test_a_control_of_equal_steps_is_not_taken_for_a_second_seed(tmp_path: Path) -> None:
    made_up.run(tmp_path / "student")
    made_up.run(tmp_path / "student-equal-compute")
    made_up.run(tmp_path / "pkd", methods={"pkd": {}})

    assert [len(arm.runs) for arm in compared(tmp_path).arms] == [1, 1, 1]


def test_the_gap_that_is_closed_is_the_part_of_the_way_to_the_teacher() -> None:
    assert gap_closed(0.5, 0.3, 0.7) == pytest.approx(0.5)
    assert gap_closed(0.2, 0.3, 0.7) == pytest.approx(-0.25)
    assert gap_closed(0.5, 0.7, 0.7) is None


def test_a_moved_teacher_whose_folder_is_called_as_the_runs_is_found(tmp_path: Path) -> None:
    root = tmp_path / "moved"
    made_up.run(root / "teacher" / "s0", ap=0.7, student="gfl-mini-w32")
    made_up.run(root / "alone" / "s0", ap=0.3)
    before = tmp_path / "before" / "teacher" / "s0"
    made_up.run(root / "pkd" / "s0", ap=0.4, methods={"pkd": {}}, teacher=before)

    found = compared(root)

    assert found.teacher is not None
    assert [run.folder for run in found.teacher.runs] == [root / "teacher" / "s0"]


def test_students_of_two_teachers_are_two_comparisons_each_with_its_own_gap(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone", ap=0.3)
    for name, reached, ap in (("a", 0.5, 0.4), ("b", 0.7, 0.6)):
        teacher = made_up.run(
            tmp_path / f"teacher-{name}", ap=reached, student="big", card={"fingerprint": name}
        )
        made_up.run(
            tmp_path / name, ap=ap, methods={"pkd": {}}, teacher=teacher, card={"teacher": name}
        )
    first, second = compare(find_runs([tmp_path]))
    for found, reached, closed in ((first, 0.5, 0.5), (second, 0.7, 0.75)):
        (taught,) = found.distilled
        assert found.teacher is not None
        assert found.teacher.ap == pytest.approx(reached)
        assert found.gap_closed(taught) == pytest.approx(closed)


def test_a_teacher_that_was_trained_anew_is_not_the_one_that_students_learned_from(
    tmp_path: Path,
) -> None:
    teacher = made_up.run(
        tmp_path / "teacher", ap=0.5, student="big", card={"fingerprint": "other"}
    )
    made_up.run(tmp_path / "alone", ap=0.3)
    made_up.run(
        tmp_path / "pkd", ap=0.4, methods={"pkd": {}}, teacher=teacher, card={"teacher": "first"}
    )
    found = compared(tmp_path)
    assert found.teacher is None
    assert found.changed_teacher == teacher
    assert found.gap_closed(found.distilled[0]) is None
    assert any("is not the teacher" in warning for warning in warnings([found], []))


def test_the_control_is_that_of_the_costliest_method(tmp_path: Path) -> None:
    made_up.demo(tmp_path / "demo")
    made_up.run(tmp_path / "demo" / "student-equal-compute-900", ap=0.45, steps=900)
    control = compared(tmp_path / "demo").equal_compute
    assert control is not None
    assert control.first.steps == 1300
