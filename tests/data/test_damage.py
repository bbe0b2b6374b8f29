"""Pictures that are damaged in their middle, which only decoding finds out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from detdistill import data
from detdistill.augmentation import Augmentation
from detdistill.data import Augmenter, Ledger, shapes
from detdistill.data.damage import Damage
from detdistill.errors import UserError
from detdistill.structures import Batch

COUNT = 10
CHANGE = Augmenter(settings=Augmentation(jitter=(0.5, 2), crop=64, photometric=True))


def damage(picture: Path) -> None:
    """Puts a marker with nonsense into the middle of a JPEG file; both ends stay as they are."""
    content = picture.read_bytes()
    middle = len(content) // 2
    picture.write_bytes(content[:middle] + b"\xff\xda\x00\x02" + content[middle + 4 :])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "made"
    shapes.write(folder, "tiny", train=COUNT, tune=2, test=4)
    return folder


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(whole, tmp_path / "damaged")
    damage(folder / "train2017" / "000003.jpg")
    damage(folder / "test2017" / "000001.jpg")
    return folder


def batches(
    folder: Path, on_damage: Callable[[Damage], object] | None = None, **options: int
) -> list[Batch]:
    settings = {"seed": 1, "batch_size": 4, "steps": 5, **options}
    dataset = data.open(f"coco:{folder}", "train")
    return list(data.stream(dataset, change=CHANGE, on_damage=on_damage, **settings))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_another_picture_takes_its_place_and_no_neighbour_changes(
    whole: Path, damaged: Path, workers: int
) -> None:
    found: list[Damage] = []
    mine, theirs = batches(damaged, found.append, workers=workers), batches(whole)
    assert {one.picture for one in found} == {3}
    assert len(found) == sum(batch.ids.tolist().count(3) for batch in theirs) == 2
    assert "000003.jpg cannot be read as a picture" in found[0].reason
    for batch, other in zip(mine, theirs, strict=True):
        for row, number in enumerate(other.ids.tolist()):
            if number == 3:
                assert int(batch.ids[row]) != 3
                continue
            objects = other.truth.valid[row].sum()
            assert int(batch.ids[row]) == number
            assert torch.equal(batch.images[row], other.images[row])
            assert torch.equal(batch.truth.boxes[row, :objects], other.truth.boxes[row, :objects])


@pytest.mark.parametrize("start", [1, 3])
def test_the_same_picture_takes_its_place_wherever_one_begins(damaged: Path, start: int) -> None:
    ignored: list[Damage] = []
    expected = batches(damaged, ignored.append)[start:]
    assert equal(batches(damaged, ignored.append, start=start), expected)
    assert equal(batches(damaged, ignored.append, start=start, workers=2), expected)


def test_without_anybody_to_be_told_it_is_an_error(damaged: Path) -> None:
    with pytest.raises(UserError, match=r"000003\.jpg cannot be read"):
        batches(damaged)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_search_without_end_is_given_up(damaged: Path, workers: int) -> None:
    dataset = data.open(f"coco:{damaged}", "train")
    for picture in (damaged / "train2017").iterdir():
        picture.write_bytes(b"nothing")
    told: list[Damage] = []
    with pytest.raises(UserError, match=r"Nor can 20 others .* 'detdistill data check'"):
        list(
            data.stream(
                dataset, seed=0, batch_size=2, steps=1, on_damage=told.append, workers=workers
            )
        )


def test_a_ledger_counts_a_picture_once_and_names_it(damaged: Path) -> None:
    ledger = Ledger(data.open(f"coco:{damaged}", "train"), skippable=0.2)
    for number in (3, 3, 5):
        ledger.note(Damage(number, f"{number}.jpg is broken."))
    lines = ledger.enter(ledger.take_noted())
    assert lines == [
        "3.jpg is broken. Another picture takes its place (2 of 10 pictures).",
        "5.jpg is broken. Another picture takes its place (2 of 10 pictures).",
    ]
    assert ledger.enter([*ledger.take_noted(), Damage(3, "again")]) == []
    with pytest.raises(UserError, match=r"3 of 10 pictures .*3\.jpg is broken; .*share of 0\.2"):
        ledger.enter([Damage(7, "7.jpg is broken.")])


def test_what_was_left_out_at_the_start_counts_towards_the_budget(damaged: Path) -> None:
    (damaged / "train2017" / "000000.jpg").unlink()
    dataset = data.open(f"coco:{damaged}", "train", skippable=0.1)
    assert (len(dataset), dataset.left_out) == (9, 1)
    with pytest.raises(UserError, match="2 of 10 pictures"):
        Ledger(dataset, skippable=0.1).enter([Damage(2, "broken")])
    Ledger(dataset, skippable=0.2).enter([Damage(2, "broken")])


def test_what_is_evaluated_on_is_known_beforehand(damaged: Path) -> None:
    name = f"coco:{damaged}"
    with pytest.raises(UserError, match=r"1 of 4 pictures .*000001\.jpg"):
        data.open(name, "test", decode=True)
    dataset = data.open(name, "test", skippable=0.25, decode=True)
    assert len(dataset) == len(dataset.ground_truth()["images"]) == 3
    assert "000001.jpg" in dataset.notes[0]


def test_what_was_tested_is_found_again(damaged: Path, whole: Path) -> None:
    assert len(data.tested(f"coco:{damaged}", "test", 3)) == 3
    assert len(data.tested(f"coco:{damaged}", "test", 0)) == 4
    assert len(data.tested(f"coco:{whole}", "test", 4)) == 4
    assert len(data.tested("shapes:tiny", "test", 5)) == 5
    with pytest.raises(UserError, match="has 4 pictures for test now, not 7"):
        data.tested(f"coco:{whole}", "test", 7)
