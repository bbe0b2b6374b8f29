"""One training, written down: everything that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from detdistill import typed
from detdistill.augmentation import Augmentation
from detdistill.augmentation import check as check_augmentation
from detdistill.errors import UserError
from detdistill.files import read_yaml, write_text
from detdistill.run_files import HARMLESS

STAGES = 4
"""Of every backbone."""


@dataclass(kw_only=True)
class Optimizer:
    """How weights move."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 8e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging; ignored by SGD."""
    momentum: float = 0.9
    """SGD's; ignored by AdamW."""
    weight_decay: float = 0.05
    """On convolution weights and scales; biases and norms have none."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    """Where the step schedule divides by ten, as shares of the training."""
    warmup_steps: int | None = None
    """How long the learning rate rises; None for a tenth of the steps."""
    warmup_start: float = 0.01
    """Share of the peak learning rate at the first step."""
    clip: float | None = 10.0
    """Largest norm of the gradient."""
    ema: float | None = None
    """Decay of the averaged weights that are evaluated and saved; None for the plain weights."""

    def warm_up(self, steps: int) -> int:
        """The steps of a training in which the learning rate rises."""
        return steps // 10 if self.warmup_steps is None else self.warmup_steps


@dataclass(kw_only=True)
class Experiment:
    """A run: data, detectors, methods, budget. Written to the run folder, and runnable again."""

    data: str = "shapes"
    """`shapes`, `shapes:hard`, `coco:PATH`, `voc:PATH`, `yolo:PATH/data.yaml`; of any file in
    COCO's format `coco:ANNOTATIONS.json,PICTURES`, a fifth of which is held out to tune and test,
    or `coco:FILE.yaml` with a line `train: ANNOTATIONS.json,PICTURES`, likewise `val`, `test`."""
    student: str = "gfl-quick-w8"
    """Detector name, or a checkpoint to start from."""
    pretrained: str | None = None
    """What a new student's backbone starts from: `imagenet` (downloaded at the first use), or a
    `.pth`, `.pt` or `.safetensors` file; None for random weights."""
    frozen_stages: int | None = None
    """How many of the student's backbone stages are not trained, the stem with the first; None
    for the usual: 1 for a pretrained ResNet, otherwise 0, or as a checkpoint has it."""
    frozen_norm: bool | None = None
    """Whether the statistics of the backbone's BatchNorm stay as they are; None for the usual:
    those of a pretrained ResNet do, or as a checkpoint has it."""
    teacher: str | None = None
    """Checkpoint: a run folder or a `.safetensors` file."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Which of the teacher's classes stands for which of the data's, such as `{person: human}`, and
    null for none; the other classes are matched by name."""
    teacher_scale: float | None = None
    """How many times larger than the student the teacher sees the pictures, 0.25 to 4; None for as
    large."""
    teacher_cache: str | None = None
    """Folder where what the methods read of the teacher is kept, so that later passes over the
    data, and later runs, need not ask it again; None asks it at every step. It pays where pictures
    come back as they were: of one size or in a `letterbox`, without random changes but `flip`."""
    teacher_cache_gb: float | None = None
    """Gigabytes that a training may add to the cache; what could need more is refused before it
    begins. None for 10."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Method names and their hyper-parameters; empty trains without distillation."""
    images: int | None = None
    """Use only this many training images (few labels)."""
    skippable: float = 0.01
    """Largest share of pictures, and of annotations, that are left out because they cannot be
    used; with more the run does not start, or ends where it finds them."""
    resize: tuple[int, int] | None = None
    """Scale pictures, proportions kept, as far as these largest lengths of the shorter and the
    longer side allow, such as 800 and 1333; None keeps their size."""
    letterbox: int | None = None
    """Instead of `resize`: side of a square, such as 640, that pictures are scaled to fit into,
    proportions kept, and padded to at the right and the bottom, in training and evaluation."""
    steps: int = 1200
    batch_size: int = 8
    """Images per optimizer step, over all ranks and accumulated micro-batches."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    """Lay out images and weights so that the channels of a pixel stand together: faster, with other
    rounding."""
    fold_teacher: bool = True
    """Fold the BatchNorms of the teacher's backbone into its convolutions: faster, with other
    rounding."""
    winograd: bool = True
    """Compute wide 3x3 convolutions with a quarter of the multiplications: faster on a CPU, with
    other rounding, in bf16 about six times as coarse. Without effect elsewhere, compiled, or
    without `channels_last`."""
    keep_memory: bool = True
    """Keep what tensors on a CPU free for the next ones, until the process ends: faster, with a
    little more memory. Only where the C library is glibc."""
    compile: bool = False
    workers: int = 0
    """Processes that load images."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    augment: Augmentation = field(default_factory=Augmentation)
    validate_every: int | None = None
    """Steps between evaluations during the training; None for at the end only."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep_every: int | None = None
    """Steps between students that are kept for good in `snapshots`, the first before any step;
    None keeps none. `explain` shows with them how the student came to its end."""
    log_every: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        typed.check(self)


GROUPS = {"optimizer": Optimizer, "augment": Augmentation}
"""Fields that are settings of their own."""

OF_THE_TEACHER = (
    "teacher",
    "class_map",
    "teacher_scale",
    "teacher_cache",
    "teacher_cache_gb",
    "fold_teacher",
)
"""Fields without which an experiment is a plain training."""


def without_teacher(experiment: Experiment) -> Experiment:
    """The same training with everything that is said of a teacher left out."""
    plainest = Experiment()
    return replace(experiment, **{name: getattr(plainest, name) for name in OF_THE_TEACHER})


def check(experiment: Experiment) -> None:
    """Refuses settings that cannot work.

    Raises:
        UserError: a number is out of range, or methods are asked for without a teacher.
    """
    counts = ("steps", "batch_size", "accumulate", "save_every", "log_every")
    for name in counts:
        _require(getattr(experiment, name) >= 1, name, getattr(experiment, name), "at least 1")
    for name in ("images", "validate_every", "keep_every"):
        value = getattr(experiment, name)
        _require(value is None or value >= 1, name, value, "at least 1, or null")
    stages = experiment.frozen_stages
    _require(stages is None or 0 <= stages <= STAGES, "frozen_stages", stages, "0 to 4, or null")
    _require(experiment.workers >= 0, "workers", experiment.workers, "at least 0")
    _require(0 <= experiment.skippable <= 1, "skippable", experiment.skippable, "between 0 and 1")
    gigabytes = experiment.teacher_cache_gb
    _require(gigabytes is None or gigabytes > 0, "teacher_cache_gb", gigabytes, "above 0, or null")
    _require(0 <= experiment.flip <= 1, "flip", experiment.flip, "between 0 and 1")
    _require(experiment.seed >= 0, "seed", experiment.seed, "at least 0")
    shorter, longer = experiment.resize or (1, 1)
    wanted = "two lengths above 0, the shorter one first, or null"
    _require(1 <= shorter <= longer, "resize", experiment.resize, wanted)
    _check_letterbox(experiment)
    check_augmentation(experiment.augment, resize=experiment.resize, letterbox=experiment.letterbox)
    scale = experiment.teacher_scale
    wanted = "between 0.25 and 4, or null"
    _require(scale is None or 0.25 <= scale <= 4, "teacher_scale", scale, wanted)  # noqa: PLR2004
    _check_optimizer(experiment.optimizer)
    if experiment.methods and experiment.teacher is None:
        raise UserError(
            f"Method {'+'.join(experiment.methods)} needs a teacher: "
            "name a run folder or a .safetensors file."
        )


def _check_letterbox(experiment: Experiment) -> None:
    side = experiment.letterbox
    _require(side is None or side >= 1, "letterbox", side, "at least 1, or null")
    if side and experiment.resize:
        raise UserError("resize and letterbox exclude each other: choose one.")


def _check_optimizer(optimizer: Optimizer) -> None:
    _require(optimizer.lr > 0, "optimizer.lr", optimizer.lr, "above 0")
    warmup = optimizer.warmup_steps
    wanted = "at least 0, or null"
    _require(warmup is None or warmup >= 0, "optimizer.warmup_steps", warmup, wanted)
    shares = optimizer.milestones
    wanted = "shares of the training, between 0 and 1"
    _require(all(0 < share < 1 for share in shares), "optimizer.milestones", shares, wanted)
    for name in ("clip", "ema"):
        value = getattr(optimizer, name)
        _require(value is None or value > 0, f"optimizer.{name}", value, "above 0, or null")
    ema = optimizer.ema
    _require(ema is None or ema < 1, "optimizer.ema", ema, "below 1")
    for name in ("weight_decay", "momentum", "warmup_start"):
        value = getattr(optimizer, name)
        _require(value >= 0, f"optimizer.{name}", value, "at least 0")
    betas = optimizer.betas
    _require(all(0 <= b < 1 for b in betas), "optimizer.betas", betas, "from 0 to below 1")


def _require(holds: bool, name: str, value: object, what: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}, but must be {what}.")


def sizes(experiment: Experiment) -> dict[str, Any]:
    """What a detector's card says of the size of pictures."""
    side = experiment.letterbox
    return {"resize": (side, side) if side else experiment.resize, "letterbox": side}


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain values, as YAML and JSON have them."""
    values: dict[str, Any] = plain(asdict(experiment))
    return values


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """What `to_dict` wrote.

    Raises:
        UserError: a field is unknown.
    """
    rest = {name: _tuple(value) for name, value in values.items() if name not in GROUPS}
    try:
        return Experiment(**rest, **groups(values))
    except TypeError as error:
        raise UserError(f"This is not an experiment of this version: {error}.") from error


def groups(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `GROUPS`, from plain values; what is not given has its default.

    Raises:
        UserError: a group is something else than settings.
    """
    check_groups(values)
    return {
        name: group(**{key: _tuple(value) for key, value in values.get(name, {}).items()})
        for name, group in GROUPS.items()
    }


def check_groups(values: Mapping[str, Any]) -> None:
    """Refuses plain values where settings of their own are wanted.

    Raises:
        UserError: names what was given.
    """
    for name in GROUPS.keys() & values.keys():
        own, wanted = values[name], "settings of its own, as 'name: value' lines"
        _require(isinstance(own, Mapping), name, own, wanted)


def save(experiment: Experiment, path: Path) -> None:
    """Writes an experiment as YAML, which runs again as it is."""
    write_text(path, yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True))


def load(path: Path) -> Experiment:
    """Reads what `save` wrote.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold an experiment.")
    return from_dict(values)


def differences(old: Experiment, new: Experiment) -> list[str]:
    """What decides the result and is not the same, as `optimizer.lr: 0.01, now 0.02`."""
    before, after = dict(typed.leaves(to_dict(old))), dict(typed.leaves(to_dict(new)))
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {before.get(name, 'absent')}, now {after.get(name, 'absent')}"
        for name in names
        if before.get(name, _ABSENT) != after.get(name, _ABSENT) and name not in HARMLESS
    ]


_ABSENT = object()


def plain(value: Any) -> Any:  # noqa: ANN401 - any nesting of settings
    """Settings with tuples as lists and names as texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    return value


def _tuple(value: Any) -> Any:  # noqa: ANN401 - any setting
    return tuple(value) if isinstance(value, list) else value
