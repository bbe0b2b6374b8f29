"""Which classes belong together, and what is said where they do not."""

import pytest

from detdistill.classes import match, other_classes, shortened
from detdistill.errors import UserError


def test_classes_are_found_by_name_whatever_their_order() -> None:
    found = match(["dog", "cat", "cow"], ["cat", "dog"])
    assert found.places == (1, 0)
    assert found.extra == ("cow",)
    assert not found.missing
    assert not found.is_by_number


def test_equal_lists_are_equal_by_number() -> None:
    assert match(["a", "b"], ["a", "b"]).is_by_number
    assert not match(["a", "b", "c"], ["a", "b"]).is_by_number
    assert not match(["b", "a"], ["a", "b"]).is_by_number


@pytest.mark.parametrize(
    "name", ["Traffic Light", "traffic_light", "traffic-light", "trafficlight"]
)
def test_spelling_does_not_matter(name: str) -> None:
    assert match([name], ["traffic light"]).names == {name: "traffic light"}


def test_letters_that_look_alike_but_are_written_in_two_ways_are_the_same() -> None:
    assert match(["cafe\u0301"], ["caf\u00e9"]).names


def test_equal_lists_whose_classes_are_exchanged_are_not_passed_over() -> None:
    assert match(["a", "b"], ["a", "b"]).in_words() == []
    (said,) = match(["a", "b"], ["a", "b"], {"a": "b", "b": "a"}).in_words()
    assert said.endswith("b is a, a is b")


def test_an_exact_name_goes_before_a_similar_one() -> None:
    assert match(["Cat", "cat"], ["cat"]).names == {"cat": "cat"}


def test_what_could_be_either_is_neither() -> None:
    assert match(["Cat", "CAT"], ["cat"]).missing == ("cat",)
    assert match(["cat"], ["Cat", "CAT"]).missing == ("Cat", "CAT")


def test_a_given_class_goes_before_its_name() -> None:
    found = match(["mouse", "person"], ["mouse", "human"], {"mouse": None, "person": "human"})
    assert found.names == {"person": "human"}
    assert found.missing == ("mouse",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"persn": "human"}, r"class of the detector \(class_map\) 'persn'. Did you mean 'person'"),
        ({"person": "humna"}, r"class of the data \(class_map\) 'humna'. Did you mean 'human'"),
        ({"person": "human", "man": "human"}, "2 classes of the detector for 'human'"),
    ],
)
def test_a_wrong_class_is_named(given: dict[str, str | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        match(["person", "man"], ["human"], given)


def test_lists_that_share_nothing_are_told_apart_with_the_nearest_names() -> None:
    said = other_classes("The teacher t", match(["cats", "horse"], ["dog", "cat"]))
    assert said == (
        "The teacher t was trained on other classes than the data: it does not know dog, cat; the "
        "data does not have cats, horse. Nearest: its 'cats' and 'cat'."
    )


def test_names_without_resemblance_are_not_offered() -> None:
    assert "Nearest" not in other_classes("The teacher", match(["horse"], ["dog"]))


def test_another_order_is_called_so() -> None:
    assert "their order or spelling differs" in other_classes(
        "The student", match(["b", "a"], ["a", "b"])
    )


def test_long_lists_are_cut() -> None:
    assert shortened("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more"


def test_a_student_hears_what_its_teacher_does_not_know() -> None:
    assert match(["a"], ["a"]).in_words() == []
    assert "does not know a:" in match(["a"], ["a"], {"a": None}).in_words()[1]
    words = match(["Cat", "cow", "pig"], ["cat", "dog"]).in_words()
    assert words[0] == "1 of the student's 2 classes are among the teacher's 3: Cat is cat"
    assert "does not know dog" in words[1]
