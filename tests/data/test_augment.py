"""Random changes of training pictures: pixels and boxes move together, and by the seed alone."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from detdistill import augmentation, data
from detdistill.augmentation import Augmentation
from detdistill.data import Augmenter, Resize, Sample
from detdistill.data.augment import cut, distorted, jittered, randomly_cut
from detdistill.errors import UserError
from detdistill.evaluate import evaluate_detector
from detdistill.structures import Batch, Detections, DetectorOutput, Reads, Spec

DEFAULT = "77fd11210e1f1889"
EVERYTHING = Augmentation(jitter=(0.5, 2), crop=64, photometric=True)


class Marked:
    """Grey pictures of many sizes with one bright rectangle each, which is their object."""

    classes = ("bright",)
    category_ids = (4,)
    notes = ()
    left_out = 0

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < 7:
            raise IndexError(index)
        image = torch.full((3, *self._size(index)), 20 + index, dtype=torch.uint8)
        image[:, 10:22, 5 : 25 + index] = 250
        return Sample(
            image=image,
            boxes=torch.tensor([[5.0, 10, 25 + index, 22]]),
            labels=torch.tensor([0]),
            crowd=torch.tensor([False]),
            id=10 + index,
        )

    def ground_truth(self) -> dict[str, Any]:
        sizes = [self._size(index) for index in range(7)]
        return {
            "images": [{"id": 10 + i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": 10 + i,
                    "category_id": 4,
                    "bbox": [5, 10, 20 + i, 12],
                    "area": 12 * (20 + i),
                    "iscrowd": 0,
                }
                for i in range(7)
            ],
            "categories": [{"id": 4, "name": "bright"}],
        }

    def _size(self, index: int) -> tuple[int, int]:
        return 40 + 8 * index, 90 - 8 * index


def bright_box(image: Tensor) -> list[float]:
    rows, columns = torch.nonzero(image[0] > 135, as_tuple=True)
    ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return [float(end) for end in ends]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batches(change: Augmenter | None = None, **options: Any) -> list[Batch]:
    settings = {"seed": 5, "batch_size": 3, "steps": 5, **options}
    return list(data.stream(Marked(), change=change, **settings))


def checksum(of: list[Batch]) -> str:
    digest = hashlib.sha256()
    for tensor in pytree.tree_leaves(of):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def test_the_default_batches_are_those_of_the_first_version() -> None:
    assert checksum(batches()) == DEFAULT
    assert checksum(batches(Augmenter())) == DEFAULT


@pytest.mark.parametrize("workers", [0, 2])
def test_a_jump_to_a_step_gives_what_running_there_gives(workers: int) -> None:
    change = Augmenter(settings=EVERYTHING)
    assert checksum(batches(change, start=2, workers=workers)) == checksum(batches(change)[2:])


def test_no_picture_changes_another_one() -> None:
    change = Augmenter(settings=EVERYTHING)
    together = batches(change)
    alone = batches(change, batch_size=1, steps=15)
    images = [image for batch in together for image in batch.images]
    assert all(torch.equal(a, b.images[0]) for a, b in zip(images, alone, strict=True))


def test_every_pass_changes_a_picture_anew() -> None:
    change = Augmenter(settings=EVERYTHING)
    passes = batches(change, batch_size=1, steps=14)
    shown = [[b.images for b in part if int(b.ids) == 13] for part in (passes[:7], passes[7:])]
    assert not torch.equal(shown[0][0], shown[1][0])


def test_multi_scale_gives_the_shorter_side_one_of_the_lengths() -> None:
    change = Augmenter(resize=Resize(80, 150), settings=Augmentation(short_sides=(48, 64, 96)))
    sizes = [change(Marked()[0], rng(seed)).size for seed in range(20)]
    assert set(sizes) == {(48, 108), (64, 144), (67, 150)}


def test_multi_scale_may_take_any_length_between() -> None:
    settings = Augmentation(short_sides=(30, 50), sampling="range")
    change = Augmenter(resize=Resize(80, 1000), settings=settings)
    shorter = {change(Marked()[0], rng(seed)).size[0] for seed in range(200)}
    assert shorter == set(range(30, 51))


@pytest.mark.parametrize("settings", [Augmentation(short_sides=(64, 96)), EVERYTHING])
@pytest.mark.parametrize("seed", range(5))
def test_the_box_stays_on_its_pixels(settings: Augmentation, seed: int) -> None:
    settings = replace(settings, photometric=False)
    change = Augmenter(resize=Resize(80, 200), settings=settings)
    for sample in Marked():
        changed = change(sample, rng(seed))
        if len(changed.boxes):
            expected = torch.tensor([bright_box(changed.image)])
            assert torch.allclose(changed.boxes, expected, atol=1.0)


def test_large_scale_jitter_makes_batches_of_one_shape() -> None:
    sizes = set()
    for batch in batches(Augmenter(settings=EVERYTHING), steps=20):
        assert batch.images.shape == (3, 3, 64, 64)
        sizes.update(map(tuple, batch.truth.sizes.tolist()))
    assert max(max(size) for size in sizes) == 64
    assert min(min(size) for size in sizes) < 40


def test_large_scale_jitter_reaches_both_factors_and_every_corner() -> None:
    scaled = [jittered(Marked()[0], 100, (0.5, 2), rng(seed)).size[1] for seed in range(300)]
    assert min(scaled) in range(50, 54)
    assert max(scaled) in range(196, 201)
    pixels = torch.arange(40 * 90).view(1, 40, 90)
    sample = replace(Marked()[0], image=pixels)
    corners = {int(randomly_cut(sample, 38, 0, rng(seed)).image[0, 0, 0]) for seed in range(900)}
    assert corners == {90 * row + column for row in range(3) for column in range(53)}


def test_a_cut_clips_boxes_and_drops_objects_of_which_little_is_left() -> None:
    sample = Sample(
        image=torch.zeros(3, 100, 100, dtype=torch.uint8),
        boxes=torch.tensor(
            [
                [20.0, 20, 40, 40],  # inside
                [0, 20, 20, 40],  # half of it
                [0, 40, 11, 60],  # a tenth of its width, and less
                [0, 60, 10.5, 70],  # half a pixel
                [60, 60, 90, 90],  # outside
                [0, 0, 11, 100],  # a crowd region
            ]
        ),
        labels=torch.arange(6),
        crowd=torch.tensor([False] * 5 + [True]),
        id=1,
    )
    left = cut(sample, (10, 10), 50, 0.1)
    assert left.labels.tolist() == [0, 1, 5]
    assert left.boxes.tolist() == [[10, 10, 30, 30], [0, 10, 10, 30], [0, 0, 1, 50]]
    assert (left.size, left.canvas) == ((50, 50), 50)
    assert cut(sample, (10, 10), 50, 0.05).labels.tolist() == [0, 1, 2, 5]
    assert cut(sample, (0, 0), 200, 1).labels.tolist() == list(range(6))


def test_other_colours_leave_boxes_and_the_global_random_state_alone() -> None:
    sample = data.open("shapes:tiny", "train")[0]
    before = torch.get_rng_state()
    seen = [distorted(sample.image, rng(seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(image.dtype == torch.uint8 and image.shape == sample.image.shape for image in seen)
    assert sum(not torch.equal(image, sample.image) for image in seen) >= 6
    assert torch.equal(seen[3], distorted(sample.image, rng(3)))
    changed = Augmenter(settings=Augmentation(photometric=True))(sample, rng(1))
    assert changed.boxes is sample.boxes


@pytest.mark.parametrize(
    ("settings", "resize", "letterbox", "message"),
    [
        ({"short_sides": (0, 5)}, (800, 1333), None, "lengths above 0"),
        ({"short_sides": (640, 800)}, None, None, "needs resize"),
        ({"short_sides": (640, 800)}, None, 640, "needs resize"),
        ({"short_sides": (9,), "jitter": (0.1, 2), "crop": 9}, (8, 9), None, "exclude each other"),
        ({"jitter": (0.1, 2)}, (800, 1333), None, r"needs augment\.crop"),
        ({"jitter": (2, 0.1), "crop": 9}, None, None, "smaller one first"),
        ({"jitter": (0, 2), "crop": 9}, None, None, "above 0"),
        ({"jitter": (0.1, 2), "crop": 0}, None, None, "at least 1"),
        ({"crop": 9}, None, None, "set both"),
        ({"visible": 1.5}, None, None, "between 0 and 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    settings: dict[str, Any],
    resize: tuple[int, int] | None,
    letterbox: int | None,
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        augmentation.check(Augmentation(**settings), resize=resize, letterbox=letterbox)


def test_jitter_fills_the_square_of_the_letterbox() -> None:
    settings = Augmentation(jitter=(0.1, 2))
    augmentation.check(settings, resize=None, letterbox=64)
    changed = Augmenter(resize=Resize.letterbox(64), settings=settings)(Marked()[0], rng())
    assert changed.canvas == 64


class Looker(nn.Module):
    """Finds the bright rectangle, and remembers the shapes of the batches it saw."""

    spec = Spec(family="dense", classes=("bright",), strides=(8,), channels=1)

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, sizes: Tensor, reads: Reads) -> DetectorOutput:  # noqa: ARG002
        self.shapes.append(tuple(images.shape))
        return DetectorOutput(neck=(images,))

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        boxes = torch.tensor([[bright_box(image)] for image in output.neck[0]])
        ones = torch.ones(len(sizes), 1)
        return Detections(
            boxes=boxes, scores=ones, labels=ones.long() - 1, counts=ones[:, 0].long()
        )


def test_a_letterbox_is_one_square_and_its_detections_fit_the_original_pictures() -> None:
    looker = Looker()
    dataset = data.transforms.Resized(Marked(), Resize.letterbox(192))
    metrics, found = evaluate_detector(looker, dataset, batch_size=3)  # type: ignore[arg-type]
    assert {shape[1:] for shape in looker.shapes} == {(3, 192, 192)}
    assert metrics.AP50 == 1
    for detection, true in zip(found, Marked().ground_truth()["annotations"], strict=True):
        assert detection["bbox"] == pytest.approx(true["bbox"], abs=1)
    (batch,) = data.stream(
        Marked(), seed=0, batch_size=2, steps=1, change=Augmenter(resize=Resize.letterbox(192))
    )
    assert batch.images.shape == (2, 3, 192, 192)
    assert batch.truth.sizes.amax(1).tolist() == [192, 192]
