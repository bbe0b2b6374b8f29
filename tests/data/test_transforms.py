from dataclasses import replace

import pytest
import torch

from detdistill import data
from detdistill.data import Resize, Sample
from detdistill.data.transforms import flip


@pytest.fixture
def marked() -> Sample:
    """One bright rectangle on black, and its box."""
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, 4:10, 6:18] = 250
    return Sample(
        image=image,
        boxes=torch.tensor([[6.0, 4.0, 18.0, 10.0]]),
        labels=torch.tensor([3]),
        crowd=torch.tensor([False]),
        id=5,
    )


def bright_box(sample: Sample) -> list[float]:
    _, rows, columns = torch.nonzero(sample.image > 125, as_tuple=True)
    ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return [float(end) for end in ends]


def test_a_flip_moves_the_box_with_the_pixels(marked: Sample) -> None:
    mirrored = flip(marked)
    assert mirrored.boxes.tolist() == [bright_box(mirrored)] == [[22, 4, 34, 10]]
    assert mirrored.labels is marked.labels


def test_two_flips_change_nothing(marked: Sample) -> None:
    back = flip(flip(marked))
    assert torch.equal(back.image, marked.image)
    assert torch.equal(back.boxes, marked.boxes)


def test_a_flip_of_a_picture_without_objects_is_fine(marked: Sample) -> None:
    assert flip(replace(marked, boxes=torch.zeros(0, 4))).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("before", "after"),
    [((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((200, 640), (417, 1333))],
)
def test_the_standard_resize_gives_the_usual_sizes(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert Resize().size(*before) == after


def test_a_resize_moves_the_box_with_the_pixels(marked: Sample) -> None:
    double = Resize(shorter=40, longer=100)(marked)
    assert double.size == (40, 80)
    assert double.boxes.tolist() == [bright_box(double)] == [[12, 8, 36, 20]]


def test_a_picture_of_the_right_size_is_not_touched(marked: Sample) -> None:
    assert Resize(shorter=20, longer=40).picture(marked.image) is marked.image


def test_a_resized_data_set_keeps_the_truth_of_the_originals() -> None:
    plain = data.open("shapes:tiny", "test", limit=2)
    large = data.open("shapes:tiny", "test", limit=2, resize=Resize(192, 1000))
    assert large[1].size == (192, 192)
    assert torch.equal(large[1].boxes, 2 * plain[1].boxes)
    assert large.ground_truth() == plain.ground_truth()
    assert (large.classes, len(large)) == (plain.classes, 2)
