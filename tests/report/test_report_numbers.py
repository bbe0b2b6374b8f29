import pytest

from detdistill.report import numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (42, "42 s"), (185, "3 min 5 s"), (7621, "2 h 7 min")],
)
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(125_627, "126 k"), (1.84e9, "1.84 G"), (12, "12"), (0, "0")]
)
def test_large_counts_get_a_prefix(value: float, text: str) -> None:
    assert numbers.amount(value).replace("\u00a0", " ") == text


def test_a_loss_has_a_true_minus_and_zero_has_none() -> None:
    assert numbers.points(-0.0123) == "\u22121.2"
    assert numbers.points(-0.0001) == "0.0"


def test_a_deviation_needs_two_values() -> None:
    assert numbers.Sample((0.5,)).points() == "50.0"
    assert numbers.Sample((0.5, 0.6)).points() == "55.0 ± 7.1"


def test_lists_end_with_and() -> None:
    assert numbers.joined(["a"]) == "a"
    assert numbers.joined(["a", "b", "c"]) == "a, b and c"
    assert numbers.joined([]) == ""
