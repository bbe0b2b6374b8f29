"""Evaluates the student on a split, the images shared among the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object

from detdistill import data
from detdistill.data import Dataset
from detdistill.detectors import Detector
from detdistill.evaluate import coco, run, speed, voc
from detdistill.train.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """How good a detector is on a split."""

    metrics: dict[str, Any]
    images: int
    detections: list[dict[str, Any]]


def assess(
    detector: Detector, dataset: Dataset, experiment: Experiment, engine: Accelerator
) -> Assessment:
    """COCO metrics on a split, and VOC's on its data; every rank gets the same.

    Statistics of rank 0 are used, which are those that are saved.
    """
    if engine.num_processes > 1:
        for buffer in detector.buffers():
            broadcast(buffer)
    parts = engine.num_processes * experiment.accumulate
    mine = run.predict(
        detector,
        _Share(dataset, engine.process_index, engine.num_processes),
        batch_size=max(1, experiment.batch_size // parts),
        workers=experiment.workers,
    )
    detections = _together(mine, engine)
    truth = dataset.ground_truth()
    metrics = coco.evaluate(truth, detections).to_dict()
    return Assessment(
        metrics=metrics | voc.numbers(experiment.data, truth, detections),
        images=len(dataset),
        detections=detections,
    )


def facts(detector: Detector, dataset: Dataset) -> dict[str, Any]:
    """Size and speed on the size of the first image, or of the square that it is padded to."""
    first = dataset[0]
    height, width = (max(side, first.canvas) for side in first.size)
    return speed.facts(detector, (height, width))


def _together(mine: list[dict[str, Any]], engine: Accelerator) -> list[dict[str, Any]]:
    if engine.num_processes == 1:
        return mine
    everything: list[dict[str, Any]] = gather_object(mine)
    return sorted(everything, key=lambda detection: int(detection["image_id"]))


class _Share:
    """Every `world`-th image of a data set."""

    def __init__(self, dataset: Dataset, rank: int, world: int) -> None:
        self._dataset = dataset
        self._indices = range(rank, len(dataset), world)
        self.classes = dataset.classes
        self.category_ids = dataset.category_ids

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> data.Sample:
        return self._dataset[self._indices[index]]

    def ground_truth(self) -> dict[str, Any]:
        """That of the whole data set."""
        return self._dataset.ground_truth()
