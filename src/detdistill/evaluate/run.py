"""Runs a detector over a data set, and says how good its detections are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from detdistill import classes
from detdistill.boxes import to_coco
from detdistill.device import best_device
from detdistill.errors import UserError
from detdistill.evaluate import coco
from detdistill.evaluate.alike import alike
from detdistill.structures import PREDICTIONS, Detections, Reads, Spec, padded_up
from detdistill.winograd import quicken

ClassMap = Mapping[str, str | None]
"""Which of a detector's classes stands for which of the data's; None for none."""

Model = TypeVar("Model", bound=nn.Module)


class Detector(Protocol):
    """What is asked of a detector here."""

    spec: Spec

    def __call__(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = PREDICTIONS
    ) -> Any:  # noqa: ANN401 - each kind of detector has its own
        """(B, 3, H, W) images -> raw predictions, in whatever form `detect` takes them."""

    def detect(self, output: Any, sizes: Tensor) -> Detections:  # noqa: ANN401
        """Raw predictions -> objects."""

    def modules(self) -> Iterator[nn.Module]:
        """As a module's."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As a module's."""

    def eval(self) -> object:
        """As a module's."""


class Sample(Protocol):
    """One image of a data set."""

    @property
    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB."""

    @property
    def id(self) -> int:
        """The image's id in the ground truth."""

    @property
    def canvas(self) -> int:
        """Side of a square that a batch of the image fills at least."""


class Dataset(Protocol):
    """What is asked of a data set here."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the detector's class numbers."""

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Each class's id in the ground truth."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def ground_truth(self) -> dict[str, Any]:
        """In COCO's format; boxes and sizes are those of the images before any resizing."""


def evaluate_detector(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 16,
    class_map: ClassMap | None = None,
) -> tuple[coco.Metrics, list[dict[str, Any]]]:
    """COCO's numbers for a detector on a data set, and the detections behind them.

    The arguments, and what is left as it was, are those of `predict`.
    """
    detections = predict(detector, dataset, batch_size=batch_size, class_map=class_map)
    return coco.evaluate(dataset.ground_truth(), detections), detections


def predict(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    class_map: ClassMap | None = None,
) -> list[dict[str, Any]]:
    """What a detector finds in every image, as COCO results in pixels of the original image.

    The detector keeps its device and is left in the mode it was in; random states do not change.

    Args:
        detector: it must know the data set's classes, by their names or by `class_map`; of others,
            what it finds is left out.
        dataset: images are read in their order.
        batch_size: images at a time, at most; it changes nothing but the rounding: see `alike`.
        workers: processes that load images; 0 loads them here.
        class_map: which of its classes stands for which of the data set's, whatever their names.

    Raises:
        UserError: the detector does not know a class of the data set.
    """
    categories = _categories(detector, dataset, class_map)
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # a protocol, not the loader's own class
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 * batch_size if workers else None,
        generator=torch.Generator(),  # its own, so that the global one is not drawn from
    )
    originals = {image["id"]: image for image in dataset.ground_truth()["images"]}
    results: dict[int, list[dict[str, Any]]] = {}
    with evaluating(detector):
        for batch in alike(enumerate(loader), batch_size, _padded):
            places, samples = zip(*batch, strict=True)
            found = detect(detector, [sample.image for sample in samples], canvas=samples[0].canvas)
            of_each = _results(found, samples, originals, categories)
            results |= dict(zip(places, of_each, strict=True))
    return [result for place in sorted(results) for result in results[place]]


def detect(detector: Detector, images: Sequence[Tensor], *, canvas: int = 0) -> Detections:
    """What a detector finds in a few images, each (3, H, W), of any sizes; on the CPU.

    They are padded at least to a square with the side `canvas`.
    """
    padded, sizes = _stack(images, canvas)
    device = next((weight.device for weight in detector.parameters()), torch.device("cpu"))
    padded, sizes = padded.to(device), sizes.to(device)
    with evaluating(detector):
        return detector.detect(detector(padded, sizes, PREDICTIONS), sizes).to("cpu")


def padded_extent(image: Tensor, canvas: int) -> tuple[int, int]:
    """Height and width that an image (3, H, W) is padded to: at least those of a square canvas."""
    height, width = (padded_up(max(side, canvas)) for side in image.shape[-2:])
    return height, width


def placed(detector: Model) -> Model:
    """The same detector, now on the best device, and its convolutions as fast as can be there."""
    device = best_device()
    detector.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        quicken(detector)
    return detector


@contextmanager
def evaluating(detector: Detector) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards every module is in its mode again."""
    modes = [(module, module.training) for module in detector.modules()]
    detector.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def unasked(detector: Detector, dataset: Dataset, class_map: ClassMap | None = None) -> str | None:
    """A remark on classes that a detector knows and the data set does not have."""
    extra = classes.match(detector.spec.classes, dataset.classes, class_map).extra
    if not extra:
        return None
    return f"the data does not have {classes.shortened(extra)}: what was found of these is left out"


def _categories(detector: Detector, dataset: Dataset, class_map: ClassMap | None) -> dict[int, int]:
    """The category in the ground truth for each class number of the detector that has one."""
    found = classes.match(detector.spec.classes, dataset.classes, class_map)
    if found.missing:
        said = classes.other_classes("The detector", found)
        raise UserError(f"{said} Evaluate it on data whose classes it knows.")
    return {theirs: dataset.category_ids[mine] for theirs, mine in found.pairs}


def _stack(images: Sequence[Tensor], canvas: int) -> tuple[Tensor, Tensor]:
    """Images padded at the right and the bottom to one size, and their own sizes (B, 2)."""
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = map(max, zip(*(padded_extent(image, canvas) for image in images), strict=True))
    padded = [F.pad(i, (0, width - i.shape[-1], 0, height - i.shape[-2])) for i in images]
    return torch.stack(padded), sizes


def _padded(numbered: tuple[int, Sample]) -> tuple[int, int]:
    """Height and width of a batch of an image."""
    _, sample = numbered
    return padded_extent(sample.image, sample.canvas)


def _results(
    found: Detections,
    samples: Sequence[Sample],
    originals: Mapping[int, Mapping[str, Any]],
    categories: Mapping[int, int],
) -> list[list[dict[str, Any]]]:
    """For each image one COCO result per detection, best first."""
    scales = torch.stack([_scale(sample, originals[sample.id]) for sample in samples])
    boxes = found.boxes.double() * scales.unsqueeze(1)
    rows = zip(
        [sample.id for sample in samples],
        found.counts.tolist(),
        found.labels.tolist(),
        to_coco(boxes).tolist(),
        found.scores.tolist(),
        strict=True,
    )
    return [
        [
            {"image_id": image, "category_id": categories[label], "bbox": box, "score": score}
            for label, box, score in zip(*(column[:count] for column in columns), strict=True)
            if label in categories
        ]
        for image, count, *columns in rows
    ]


def _scale(sample: Sample, original: Mapping[str, Any]) -> Tensor:
    """(4,) from a box in the sample to the same box in the image it was resized from."""
    height, width = sample.image.shape[-2:]
    across, down = original["width"] / width, original["height"] / height
    return torch.tensor([across, down, across, down], dtype=torch.float64)
