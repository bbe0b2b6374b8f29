import itertools

import numpy as np
import pytest
import torch

from detdistill import boxes as geometry
from detdistill import data
from detdistill.data import painting, scenes, shapes
from detdistill.data.painting import Shape
from detdistill.errors import UserError

LEVELS = sorted(shapes.LEVELS)


def arrangements(level: str, count: int) -> list[list[Shape]]:
    scene = shapes.find(level).scene
    return [scenes.arrange(scene, np.random.default_rng(index)) for index in range(count)]


def test_a_picture_is_the_same_however_often_it_is_drawn() -> None:
    first = data.open("shapes", "train")[7]
    scenes.draw.cache_clear()
    again = data.open("shapes", "train", limit=8)[7]
    assert first is not again
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    assert torch.equal(first.labels, again.labels)


def test_another_seed_draws_other_pictures() -> None:
    level = shapes.find("medium")
    one, other = shapes.Shapes(level, "train", seed=1)[0], shapes.Shapes(level, "train", seed=2)[0]
    assert not torch.equal(one.image, other.image)


def test_no_picture_is_in_two_splits() -> None:
    pictures = [
        dataset[index].image.numpy().tobytes()
        for dataset in (data.open("shapes", split, limit=20) for split in data.SPLITS)
        for index in range(len(dataset))
    ]
    assert len(set(pictures)) == len(pictures) == 60


def test_val_is_another_name_of_tune() -> None:
    assert data.open("shapes", "val", 1)[0] is data.open("shapes", "tune", 1)[0]


def test_the_few_label_level_shows_the_pictures_of_the_default_level() -> None:
    few, many = data.open("shapes:few", "train"), data.open("shapes", "train")
    assert (len(few), len(many)) == (300, 4000)
    assert few[5] is many[5]
    assert len(data.open("shapes:few", "test")) == len(data.open("shapes", "test")) == 500


@pytest.mark.parametrize("level", LEVELS)
def test_every_object_can_be_seen_to_the_promised_share(level: str) -> None:
    scene = shapes.find(level).scene
    for arrangement in arrangements(level, 40):
        top = np.full((scene.side, scene.side), -1)
        masks = []
        for number, shape in enumerate(arrangement):
            mask = np.zeros_like(top, dtype=bool)
            mask[shape.window] = painting.coverage(shape.distance()) > 0.5
            top[mask] = number
            masks.append(mask)
        for number, mask in enumerate(masks):
            assert (top[mask] == number).mean() >= scene.visible


@pytest.mark.parametrize("level", LEVELS)
def test_objects_overlap_and_lie_inside_the_picture(level: str) -> None:
    dataset = data.open(f"shapes:{level}", "train", limit=40)
    side = dataset[0].image.shape[-1]
    overlapping = 0
    for index in range(len(dataset)):
        boxes = dataset[index].boxes
        assert (boxes >= 0).all()
        assert (boxes <= side).all()
        overlapping += int((geometry.pairwise_iou(boxes, boxes).triu(1) > 0.05).any())
    assert overlapping >= 4


@pytest.mark.parametrize("outline", painting.OUTLINES)
@pytest.mark.parametrize("fill", painting.FILLS)
@pytest.mark.parametrize("size", [10, 31, 90])
def test_a_box_is_tight_around_what_is_painted(
    outline: str, fill: painting.Fill, size: int
) -> None:
    box = (5.3, 6.8, 5.3 + size, 6.8 + size * 0.9)
    canvas = np.zeros((128, 128, 3), dtype=np.float32)
    white = np.ones(3, dtype=np.float32)
    painting.paint(canvas, Shape(box=box, outline=outline, fill=fill), white, white, 0.0)
    rows, columns = (np.flatnonzero(canvas[..., 0].max(axis) > 0.1) for axis in (1, 0))
    seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert np.abs(np.subtract(seen, box)).max() <= 1


def test_the_outlines_and_the_fills_are_told_apart_by_their_pixels() -> None:
    box, white, black = (10.0, 10.0, 50.0, 50.0), np.ones(3), np.full(3, 0.2)
    painted = []
    for outline, fill in itertools.product(painting.OUTLINES, painting.FILLS):
        canvas = np.zeros((64, 64, 3), dtype=np.float32)
        painting.paint(canvas, Shape(box=box, outline=outline, fill=fill), white, black, 0.0)
        painted.append(canvas)
    for one, other in itertools.combinations(painted, 2):
        assert np.abs(one - other).mean() > 0.02


def test_sizes_reach_from_small_to_large_and_every_class_appears() -> None:
    dataset = data.open("shapes", "train", limit=200)
    samples = [dataset[index] for index in range(200)]
    areas = geometry.area(torch.cat([sample.boxes for sample in samples]))
    assert (areas < 32**2).float().mean() > 0.4
    assert (areas > 96**2).sum() >= 3
    assert set(torch.cat([sample.labels for sample in samples]).tolist()) == set(range(12))


def test_a_hue_tells_a_class_only_roughly() -> None:
    level = shapes.find("medium")
    assert len(set(scenes.HUES)) == len(scenes.CLASSES) == 12
    assert level.scene.hue_spread > 0.9 / 12
    assert shapes.find("easy").scene.hue_spread < level.scene.hue_spread
    assert shapes.find("hard").scene.hue_spread > level.scene.hue_spread


def test_the_ground_truth_says_what_the_samples_say() -> None:
    dataset = data.open("shapes:tiny", "tune", limit=6)
    truth = dataset.ground_truth()
    assert [image["id"] for image in truth["images"]] == [sample.id for sample in dataset]
    assert [c["name"] for c in truth["categories"]] == list(dataset.classes)
    for sample in dataset:
        own = [a for a in truth["annotations"] if a["image_id"] == sample.id]
        labels = [dataset.category_ids.index(a["category_id"]) for a in own]
        left_top = [a["bbox"][:2] for a in own]
        assert labels == sample.labels.tolist()
        assert left_top == sample.boxes[:, :2].tolist()
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] for a in own)


@pytest.mark.parametrize(
    ("name", "split", "hint"),
    [
        ("shapes:hrad", "train", "hard"),
        ("shape", "train", "shapes"),
        ("shapes", "tests", "test"),
        ("coco", "train", "coco:PATH"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(name: str, split: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        data.open(name, split)


def test_a_limit_must_be_positive() -> None:
    with pytest.raises(UserError, match="at least 1"):
        data.open("shapes", "train", limit=0)
