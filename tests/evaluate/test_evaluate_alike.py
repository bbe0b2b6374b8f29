from __future__ import annotations

from detdistill.evaluate import alike


def first(word: str) -> str:
    return word[0]


def test_only_images_of_one_extent_share_a_batch() -> None:
    found = list(alike(["a1", "b1", "a2", "a3", "b2", "c1"], 2, first))
    assert found == [["a1", "a2"], ["b1", "b2"], ["a3"], ["c1"]]


def test_when_too_many_wait_the_most_numerous_go() -> None:
    read = iter(["c1", "a1", "b1", "a2", "d1", "e1", "f1", "g1", "h1", "i1", "j1", "k1", "l1"])
    assert next(alike(read, 3, first)) == ["a1", "a2"]
    assert list(read) == ["l1"]


def test_nothing_is_lost() -> None:
    words = [f"{kind}{number}" for number in range(7) for kind in "abcdefg"]
    found = [word for batch in alike(words, 3, first) for word in batch]
    assert sorted(found) == sorted(words)
