from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detdistill.errors import UserError
from detdistill.evaluate import detect, evaluate_detector, predict, unasked
from detdistill.evaluate.run import PREDICTIONS, evaluating
from detdistill.structures import Detections, DetectorOutput, Reads, Spec

CLASSES = ("dark", "bright")


@dataclass
class Sample:
    image: Tensor
    id: int
    canvas: int = 0


class Squares:
    """Grey images of growing size, each with one square; its brightness is its class."""

    classes = CLASSES
    category_ids = (40, 7)

    def __init__(self, count: int = 5) -> None:
        self.images = []
        for i in range(count):
            image = torch.full((3, 40 + 5 * i, 50), 99, dtype=torch.uint8)
            image[:, 10:30, 5:25] = 255 * (i % 2)
            self.images.append(image)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], 100 + index)

    def ground_truth(self) -> dict[str, Any]:
        return {
            "images": [
                {"id": 100 + i, "height": image.shape[1], "width": image.shape[2]}
                for i, image in enumerate(self.images)
            ],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": 100 + i,
                    "category_id": Squares.category_ids[i % 2],
                    "bbox": [5, 10, 20, 20],
                    "area": 400,
                    "iscrowd": 0,
                }
                for i in range(len(self))
            ],
            "categories": [{"id": 40, "name": "dark"}, {"id": 7, "name": "bright"}],
        }


class SquareFinder(nn.Module):
    """Finds the square exactly, and pads its answer with rubbish that is not counted."""

    spec = Spec(family="dense", classes=CLASSES, strides=(8,), channels=1)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
        self.weight = nn.Parameter(torch.ones(1))
        self.shapes: list[tuple[int, ...]] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = PREDICTIONS
    ) -> DetectorOutput:
        assert reads == PREDICTIONS
        assert sizes is not None
        self.shapes.append(tuple(images.shape))
        self.modes.append((self.layer.training, torch.is_grad_enabled()))
        return DetectorOutput(neck=(images.float() * self.weight,))

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        (images,) = output.neck
        batch = len(sizes)
        box = torch.tensor([5.0, 10, 25, 30])
        return Detections(
            boxes=torch.stack([box, box + 1]).expand(batch, 2, 4),
            scores=torch.tensor([0.9, 0.8]).expand(batch, 2),
            labels=(images[:, :1, 20, 15] > 128).long().expand(batch, 2),
            counts=torch.ones(batch, dtype=torch.long),
        )


def test_every_image_yields_coco_results_under_its_own_ids() -> None:
    results = predict(SquareFinder(), Squares(), batch_size=2)

    assert [result["image_id"] for result in results] == [100, 101, 102, 103, 104]
    assert [result["category_id"] for result in results] == [40, 7, 40, 7, 40]
    assert results[0]["bbox"] == [5, 10, 20, 20]
    assert results[0]["score"] == pytest.approx(0.9)


def test_boxes_are_scaled_back_to_the_image_before_it_was_resized() -> None:
    dataset = Squares(1)
    truth = dataset.ground_truth()
    truth["images"][0].update(height=40 * 3, width=50 * 2)
    dataset.ground_truth = lambda: truth

    (result,) = predict(SquareFinder(), dataset)

    assert result["bbox"] == [5 * 2, 10 * 3, 20 * 2, 20 * 3]


def test_a_detector_that_finds_everything_has_an_ap_of_one() -> None:
    metrics, detections = evaluate_detector(SquareFinder(), Squares())

    assert metrics.to_dict()["AP"] == pytest.approx(1)
    assert metrics.per_class.keys() == {"dark", "bright"}
    assert len(detections) == 5


def test_images_are_padded_to_a_multiple_of_32_and_no_further_than_alone() -> None:
    detector = SquareFinder()

    results = predict(detector, Squares(8), batch_size=3)

    assert detector.shapes == [(3, 3, 64, 64), (3, 3, 96, 64), (2, 3, 64, 64)]
    assert [result["image_id"] for result in results] == list(range(100, 108))


def test_detect_takes_single_images() -> None:
    found = detect(SquareFinder(), [Squares().images[1]])

    assert found.labels[0, 0] == 1
    assert found.counts.tolist() == [1]


def test_the_detector_is_in_evaluation_mode_without_gradients_and_then_as_it_was() -> None:
    detector = SquareFinder().train()
    detector.layer[0].eval()

    predict(detector, Squares(1))

    assert detector.modes == [(False, False)]
    assert detector.training
    assert detector.layer[1].training
    assert not detector.layer[0].training


def test_modes_come_back_after_an_error() -> None:
    detector = SquareFinder().train()

    with pytest.raises(ZeroDivisionError), evaluating(detector):
        raise ZeroDivisionError

    assert detector.training
    assert torch.is_grad_enabled()


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()

    predict(SquareFinder(), Squares())

    assert torch.equal(torch.get_rng_state(), state)


def test_detections_get_the_data_sets_class_of_the_same_name() -> None:
    dataset = Squares()
    dataset.classes, dataset.category_ids = ("Bright", "dark"), (7, 40)

    assert predict(SquareFinder(), dataset) == predict(SquareFinder(), Squares())
    assert unasked(SquareFinder(), dataset) is None


def test_detections_of_other_classes_are_left_out_and_that_is_said() -> None:
    dataset = Squares()
    dataset.classes, dataset.category_ids = ("bright",), (7,)

    found = predict(SquareFinder(), Squares())
    kept = [detection for detection in found if detection["category_id"] == 7]
    assert 0 < len(kept) < len(found)
    assert predict(SquareFinder(), dataset) == kept
    assert "does not have dark:" in str(unasked(SquareFinder(), dataset))


def test_a_detector_that_does_not_know_a_class_is_refused() -> None:
    dataset = Squares()
    dataset.classes = ("brigth", "dark")

    with pytest.raises(UserError, match=r"does not know brigth;.*Nearest: its 'bright' and 'brig"):
        predict(SquareFinder(), dataset)
