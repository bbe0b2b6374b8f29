"""The smallest detector and methods that the engine can train, and batches for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from detdistill.detectors import Detector
from detdistill.methods import Method
from detdistill.structures import (
    EVERYTHING,
    Batch,
    Detections,
    DetectorOutput,
    Reads,
    Spec,
    Step,
    Targets,
    Truth,
    local_mean,
)
from detdistill.train import engine
from detdistill.train.experiment import Experiment, Optimizer


class FakeDetector(Detector):
    """A neck of one convolution and statistics, a head of one scale; colours are its task."""

    def __init__(self, channels: int = 4, *, norm: bool = True) -> None:
        super().__init__()
        self.spec = Spec(family="dense", classes=("thing",), strides=(4,), channels=channels)
        self.neck = nn.Conv2d(3, channels, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.head = nn.Conv2d(channels, 4, 1)
        self.scale = nn.Parameter(torch.ones(()))
        self.asked: list[Reads] = []

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, reads: Reads = EVERYTHING
    ) -> DetectorOutput:
        del sizes
        self.asked.append(reads)
        neck = self.norm(self.neck(images.float() / 255))
        return DetectorOutput(neck=(neck,), backbone=(self.scale * self.head(neck),))

    def criterion(
        self,
        output: DetectorOutput,
        truth: Truth,
        world_mean: Callable[[Tensor], Tensor] = local_mean,
    ) -> tuple[dict[str, Tensor], Targets]:
        assert output.backbone is not None
        found = output.backbone[0].mean((2, 3))[:, None]
        errors = (found - truth.boxes / 64).square().sum(-1) * truth.valid
        positives = world_mean(truth.valid.sum(1).clamp(min=1).sum().float())
        background = found.square().sum() / positives
        nothing = torch.zeros(len(truth.boxes), 1)
        targets = Targets(labels=nothing, boxes=nothing, weights=nothing, positives=positives)
        return {"box": errors.sum() / positives, "background": 0.1 * background}, targets

    def detect(self, output: DetectorOutput, sizes: Tensor) -> Detections:
        del output
        none = torch.zeros(len(sizes), 0)
        counts = torch.zeros(len(sizes), dtype=torch.int64)
        return Detections(
            boxes=none[..., None].repeat(1, 1, 4), scores=none, labels=none, counts=counts
        )


class Pull(Method):
    """The student's neck, through a learned layer, should be the teacher's."""

    weight: float = 1.0

    def setup(self, teacher: Spec, student: Spec) -> None:
        self.adapter = nn.Conv2d(student.channels, teacher.channels, 1)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        student = self.adapter(step.student.neck[0])
        share = step.world_mean(step.teacher.neck[0].abs().mean())
        return {"neck": self.weight * F.mse_loss(student, step.teacher.neck[0]) / share}


class Random(Method):
    """Pulls at random numbers, to find out whether drawing them disturbs anybody."""

    weight: float = 1.0

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        neck = step.student.neck[0]
        return {"noise": self.weight * (neck * torch.rand_like(neck)).mean()}


class Detached(Method):
    """A mistake: its loss has no path to the student."""

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        return {"neck": step.student.neck[0].detach().square().mean()}


class Explodes(Method):
    """Becomes not a number at step `at`, on rank `rank`."""

    at: int = 2
    rank: int = 0

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        here = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        broken = step.index == self.at and here == self.rank
        return {"boom": step.student.neck[0].mean() * (float("nan") if broken else 0.1)}


def batch(seed: int = 0, images: int = 4, *, objects: int = 3, side: int = 64) -> Batch:
    """Noise with random boxes; `objects` 0 gives images without any."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, max(objects, 1), 4, generator=random).mul(side / 2)
    boxes = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:] + 4], dim=-1)
    valid = torch.full(boxes.shape[:2], objects > 0)
    pixels = torch.randint(256, (images, 3, side, side), dtype=torch.uint8, generator=random)
    truth = Truth(
        boxes=boxes,
        labels=torch.zeros(valid.shape, dtype=torch.int64),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.tensor([[side, side]] * images),
    )
    return Batch(images=pixels, truth=truth, ids=torch.arange(images) + 100 * seed)


def batches(start: int = 0, **settings: int) -> Iterator[Batch]:
    """An endless stream that is a function of the place."""
    while True:
        yield batch(start, **settings)
        start += 1


def part(whole: Batch, rows: slice) -> Batch:
    """Some images of a batch."""
    return pytree.tree_map(lambda tensor: tensor[rows], whole)


def experiment(optimizer: Optimizer | None = None, **settings: object) -> Experiment:
    """Few steps on a CPU."""
    optimizer = optimizer or Optimizer(warmup_steps=2)
    return replace(Experiment(steps=8, batch_size=4), optimizer=optimizer, **settings)


def start_engine(settings: Experiment | None = None) -> Accelerator:
    return engine.start(settings or experiment(), "cpu")


def seeded(build: Callable[[], FakeDetector], seed: int = 0) -> FakeDetector:
    torch.manual_seed(seed)
    return build()
