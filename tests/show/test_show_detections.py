from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from detdistill.show import colors
from detdistill.show.detections import (
    CORRECT,
    MISSED,
    TRUTH,
    WRONG,
    Objects,
    _overlap,
    _place,
    draw,
    match,
    png,
    side_by_side,
)
from detdistill.structures import Detections

CLASSES = ("cat", "dog")
GREY = torch.full((3, 64, 96), 128, dtype=torch.uint8)


def objects(*boxes: list[float], labels: list[int], scores: list[float] | None = None) -> Objects:
    return Objects(boxes=torch.tensor(boxes).reshape(-1, 4), labels=labels, scores=scores)


def shows(picture: Image.Image, color: str) -> bool:
    """Whether the colour covers more than a few pixels."""
    pixels = np.asarray(picture).reshape(-1, 3)
    return (pixels == ImageColor.getrgb(color)).all(axis=1).sum() > 50


LEFT, RIGHT = [5.0, 20, 35, 50], [50.0, 20, 80, 50]


def test_a_find_of_the_right_class_and_place_is_correct() -> None:
    found = objects(LEFT, RIGHT, labels=[0, 0], scores=[0.9, 0.8])
    truth = objects(LEFT, RIGHT, labels=[0, 1])

    assert match(found, truth) == ([True, False], [False, True])


def test_a_find_that_overlaps_too_little_is_wrong() -> None:
    shifted = [LEFT[0] + 20, *LEFT[1:]]

    assert match(objects(shifted, labels=[0], scores=[0.9]), objects(LEFT, labels=[0])) == (
        [False],
        [True],
    )


def test_an_object_is_found_once_by_the_find_with_the_best_score() -> None:
    found = objects(LEFT, LEFT, labels=[0, 0], scores=[0.5, 0.9])

    assert match(found, objects(LEFT, labels=[0])).correct == [False, True]


def test_a_find_takes_the_object_it_overlaps_most() -> None:
    near, nearer = [LEFT[0] + 4, *LEFT[1:]], [LEFT[0] + 1, *LEFT[1:]]
    truth = objects(near, nearer, labels=[0, 0])

    assert match(objects(LEFT, labels=[0], scores=[1.0]), truth).missed == [True, False]


@pytest.mark.parametrize("nothing", ["finds", "truth"])
def test_nothing_matches_nothing(nothing: str) -> None:
    some, none = objects(LEFT, labels=[0]), objects(labels=[])

    judged = match(none, some) if nothing == "finds" else match(some, none)

    assert judged == (([], [True]) if nothing == "finds" else ([False], []))


def test_right_wrong_and_missed_each_have_their_colour() -> None:
    truth = objects(LEFT, RIGHT, labels=[0, 1])
    right = objects(LEFT, RIGHT, labels=[0, 1], scores=[0.9, 0.8])
    half = objects(LEFT, RIGHT, labels=[0, 0], scores=[0.9, 0.8])

    all_right = draw(GREY, right, CLASSES, truth=truth)
    half_right = draw(GREY, half, CLASSES, truth=truth)

    assert [shows(all_right, color) for color in (CORRECT, WRONG, MISSED)] == [True, False, False]
    assert [shows(half_right, color) for color in (CORRECT, WRONG, MISSED)] == [True, True, True]


def test_the_truth_has_one_colour_and_finds_have_one_per_class() -> None:
    truth = draw(GREY, objects(LEFT, RIGHT, labels=[0, 1]), CLASSES)
    found = draw(GREY, objects(LEFT, RIGHT, labels=[0, 1], scores=[0.9, 0.8]), CLASSES)

    assert shows(truth, TRUTH)
    assert not shows(truth, colors.of(1))
    assert shows(found, colors.of(0))
    assert shows(found, colors.of(1))


def test_small_pictures_are_enlarged_and_large_ones_reduced_to_the_same_width() -> None:
    large = torch.zeros(3, 480, 640, dtype=torch.uint8)
    none = objects(labels=[])

    assert draw(GREY, none, CLASSES).size == (384, 256)
    assert draw(large, none, CLASSES).size == (384, 288)


def test_boxes_are_where_the_enlarged_objects_are() -> None:
    found = objects([16.0, 32, 80, 60], labels=[0])

    pixels = np.asarray(draw(GREY, found, CLASSES, width=192))

    is_frame = (pixels == ImageColor.getrgb(TRUTH)).all(axis=2)
    assert is_frame[90, 31:34].any()  # its left edge, twice as far as in the image
    assert not is_frame[90, 40:150].any()


def test_names_stay_inside_the_picture_and_off_each_other() -> None:
    places: list[tuple[float, ...]] = []
    for bottom in (40, 100, 250):
        box = (-5.0, 0.0, 60.0, float(bottom))
        places.append(_place(box, (50, 16), (384, 256), places))

    assert not any(_overlap(a, b) for a, b in combinations(places, 2))
    assert all(
        left >= 0 and top >= 0 and right <= 384 and bottom <= 256
        for left, top, right, bottom in places
    )


def test_a_box_without_extent_or_outside_the_image_can_be_drawn() -> None:
    odd = objects([10.0, 10, 10, 10], [-50.0, -50, 500, 500], labels=[0, 1])

    assert draw(GREY, odd, CLASSES).size == (384, 256)
    assert draw(GREY, objects(labels=[], scores=[]), CLASSES, truth=odd).size == (384, 256)


def test_coco_results_become_objects_best_first() -> None:
    notes = [
        {"bbox": [1, 2, 3, 4], "category_id": 7, "score": 0.4},
        {"bbox": [5, 6, 7, 8], "category_id": 3, "score": 0.9},
        {"bbox": [5, 6, 7, 8], "category_id": 3, "score": 0.1},
    ]

    found = Objects.from_coco(notes, category_ids=[3, 7])

    assert found.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6], [5, 6, 12, 14]]
    assert found.labels == [0, 1, 0]
    assert found.scores == [0.9, 0.4, 0.1]


def test_coco_annotations_become_objects_without_crowds_and_scores() -> None:
    notes = [
        {"bbox": [1, 2, 3, 4], "category_id": 7, "iscrowd": 0},
        {"bbox": [5, 6, 7, 8], "category_id": 3, "iscrowd": 1},
    ]

    truth = Objects.from_coco(notes, category_ids=[3, 7])

    assert truth.labels == [1]
    assert truth.scores is None


def test_objects_below_a_score_are_left_out() -> None:
    found = objects([1.0, 2, 3, 4], [5.0, 6, 7, 8], labels=[1, 0], scores=[0.9, 0.2])

    for score, count in ((0.2, 2), (0.5, 1), (1.0, 0)):
        kept = found.at_least(score)
        assert kept.boxes.tolist() == found.boxes[:count].tolist()
        assert (kept.labels, kept.scores) == ([1, 0][:count], [0.9, 0.2][:count])
        assert kept.boxes.shape == (count, 4)
    truth = objects([1.0, 2, 3, 4], labels=[1])
    assert truth.at_least(0.5) is truth


def test_detections_become_objects_without_padding() -> None:
    found = Detections(
        boxes=torch.arange(24.0).reshape(2, 3, 4),
        scores=torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.2, 0.9]]),
        labels=torch.tensor([[0, 1, 0], [1, 0, 0]]),
        counts=torch.tensor([3, 2]),
    )

    second = Objects.from_detections(found, 1)

    assert second.boxes.tolist() == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert second.labels == [1, 0]


def test_panels_stand_side_by_side_above_a_legend() -> None:
    panel = draw(GREY, objects(labels=[]), CLASSES, width=200)

    sheet = side_by_side({"Truth": panel, "Teacher": panel, "Student": panel})

    assert sheet.width > 3 * panel.width
    assert sheet.height > panel.height
    assert all(shows(sheet, color) for color in (TRUTH, CORRECT, WRONG))
    assert not shows(side_by_side({"Truth": panel}, legend=False), CORRECT)


def test_png_is_a_png_of_the_picture() -> None:
    picture = draw(GREY, objects(LEFT, labels=[0]), CLASSES)

    again = Image.open(io.BytesIO(png(picture)))

    assert again.format == "PNG"
    assert np.array_equal(np.asarray(again), np.asarray(picture))


def test_every_colour_can_be_told_from_its_text() -> None:
    def light(color: str) -> float:
        """Relative luminance as the web's accessibility guidelines define it."""
        shares = [value / 255 for value in ImageColor.getrgb(color)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for color in (*colors.SERIES, colors.WHITE):
        dark, bright = sorted([light(color), light(colors.ink(color))])
        assert (bright + 0.05) / (dark + 0.05) > 3.3
