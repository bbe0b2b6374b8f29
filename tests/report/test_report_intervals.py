"""Intervals of gains over seeds and over images, in the page, as CSV and as Markdown."""

import csv
import io
import math
from pathlib import Path

import made_up
import pytest
from scipy import stats

from detdistill.report import student_t, table, tabular, words
from detdistill.report.arms import Comparison, compare
from detdistill.report.numbers import Sample
from detdistill.report.runs import find_runs


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = made_up.several_seeds(tmp_path_factory.mktemp("seeds"))
    (found,) = compare(find_runs([root]), resamples=50)
    return found


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_the_bounds_are_those_of_students_t(freedom: int) -> None:
    assert student_t.bound(freedom) == pytest.approx(stats.t.ppf(0.975, freedom))


def test_an_interval_over_seeds_is_that_of_a_paired_t_test() -> None:
    gains = (0.113, 0.151, 0.15)
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    interval = Sample(gains).interval
    assert interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert Sample((0.1,)).interval is None


def test_an_interval_over_images_is_of_paired_runs(comparison: Comparison) -> None:
    (pkd,) = comparison.distilled
    interval = comparison.gain_over_images(pkd)
    assert interval
    assert 0 < interval.low < interval.high < 1
    assert comparison.gain_over_images(comparison.plain[0]) is None
    assert comparison.resamples == 50


def test_a_page_without_resamples_has_no_interval_over_images(tmp_path: Path) -> None:
    (found,) = compare(find_runs([made_up.several_seeds(tmp_path)]))
    assert found.gain_over_images(found.distilled[0]) is None


def test_a_gain_whose_interval_includes_zero_is_warned_of(tmp_path: Path) -> None:
    for seed, (alone, pkd) in enumerate([(0.3, 0.35), (0.3, 0.45)]):
        made_up.run(tmp_path / f"alone-{seed}", ap=alone, seed=seed)
        made_up.run(tmp_path / f"pkd-{seed}", ap=pkd, seed=seed, methods={"pkd": {}})
    said = words.warnings(compare(find_runs([tmp_path])), [])
    assert any("pkd: the 95 % interval of the gain over seeds includes zero" in s for s in said)


def test_csv_has_raw_numbers_and_markdown_the_table(comparison: Comparison) -> None:
    text = tabular.as_csv(tabular.rows([comparison]))
    teacher, alone, pkd = csv.DictReader(io.StringIO(text))
    assert (teacher["role"], alone["role"], pkd["role"]) == ("teacher", "alone", "distilled")
    assert float(pkd["gain"]) == pytest.approx(0.138)
    assert float(pkd["gain_seeds_low"]) < 0.138 < float(pkd["gain_seeds_high"])
    assert math.isclose(float(pkd["step_cost"]), 1.0)
    assert (alone["gain"], pkd["resamples"]) == ("", "50")
    page = tabular.as_markdown(table.tables([comparison]), ["a remark"])
    assert "| pkd (n = 3) |" in page
    assert page.endswith("- a remark\n")
