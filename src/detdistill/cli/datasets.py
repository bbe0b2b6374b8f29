"""What `detdistill data` does: look through a data set, convert it, show some of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detdistill.augmentation import Augmentation
from detdistill.cli import tables
from detdistill.cli.parser import Parser
from detdistill.errors import UserError, unknown_name
from detdistill.files import replace_file, require_writable
from detdistill.train.experiment import Experiment, check, groups

if TYPE_CHECKING:
    from PIL.Image import Image

    from detdistill.data import Dataset
    from detdistill.data.survey import Survey
    from detdistill.structures import Batch

DATA = (
    "shapes, shapes:hard, coco:PATH, coco:ANNOTATIONS.json,PICTURES, voc:PATH, yolo:PATH/data.yaml"
)
PARTS = {"train": "train", "tune": "val", "test": "test"}
"""What the splits are called on disk."""


def run(arguments: Sequence[str]) -> bool:
    """`check DATA`, `convert DATA --to LAYOUT --out FOLDER` or `show DATA --out FILE`.

    Returns:
        Whether nothing is wrong with the data, as far as was to be found out.
    """
    name, *rest = arguments or ["--help"]
    if name in {"-h", "--help"}:
        tables.say(PURPOSE)
        return True
    if name not in _ACTIONS:
        raise unknown_name("action of 'data'", name, _ACTIONS)
    return _ACTIONS[name](rest)


PURPOSE = """\
usage: detdistill data ACTION DATA [options]

  check DATA                             counts, sizes, classes, and everything that is wrong
  convert DATA --to LAYOUT --out FOLDER  the same in the layout of coco, voc or yolo
  show DATA --out FILE                   pictures with their boxes, as the training sees them

'detdistill data ACTION --help' explains an action."""


def _check(arguments: Sequence[str]) -> bool:
    parser = Parser("data check", purpose="What there is, and what is wrong.", usage="DATA")
    parser.add_argument("name", help=DATA)
    name = parser.parse_args(list(arguments)).name
    from detdistill.data.survey import survey

    surveys = survey(name)
    sound = [one for one in surveys if one.error is None]
    for one in sound:
        tables.say(f"{one.split}: width x height from smallest over median to largest: {one.sizes}")
    counts = [one.counts for one in sound]
    if counts:
        rows = [[one.split, *map(str, one.counts.values())] for one in sound]
        tables.show(["split", *counts[0]], rows)
        tables.show(["class", *(one.split for one in sound)], _balance(sound))
    found = (defect for one in surveys for defect in (*one.defects, *filter(None, [one.error])))
    defects = list(dict.fromkeys(found))  # one file of annotations may be that of all splits
    for defect in defects:
        tables.warn(f"defect: {defect}")
    tables.say(f"\n{len(defects) or 'no'} defect(s)")
    return not defects


def _balance(surveys: Sequence[Survey]) -> list[list[str]]:
    """Objects of each class in each split."""
    names = dict.fromkeys(name for one in surveys for name in one.classes)
    return [[name, *(str(one.classes.get(name, 0)) for one in surveys)] for name in names]


def _convert(arguments: Sequence[str]) -> bool:
    parser = Parser(
        "data convert",
        purpose="Writes a data set in another layout; stored pictures are copied as they are.",
        usage="DATA --to coco|voc|yolo --out FOLDER [--skippable SHARE]",
    )
    parser.add_argument("name", help=DATA)
    parser.add_argument("--to", type=Literal["coco", "voc", "yolo"], required=True, help="layout")
    parser.add_argument("--out", required=True, help="folder that does not exist, or is empty")
    parser.add_argument("--skippable", type=float, default=0.01, help="share that may be left out")
    options = parser.parse_args(list(arguments))
    from detdistill import data as datasets
    from detdistill.data import writing

    parts = {
        PARTS[split]: datasets.open(options.name, split, skippable=options.skippable)
        for split in datasets.splits(options.name)
    }
    if not parts:
        raise UserError(f"{options.name} has neither training, tuning nor test pictures.")
    writing.write(Path(options.out), parts, options.to)
    for part, dataset in parts.items():
        tables.say(f"{part}: {len(dataset)} pictures")
        for note in dataset.notes:
            tables.warn(f"note: {part}: {note}")
    tables.say(f"\nThe data set: {options.out}")
    return True


def _show(arguments: Sequence[str]) -> bool:
    options = _show_parser().parse_args(list(arguments))
    count = max(1, options.count)
    experiment = _experiment(options.as_dict())
    from detdistill import data as datasets
    from detdistill.show.detections import png, side_by_side
    from detdistill.train.assembly import augmenter

    require_writable(Path(options.out))
    dataset = datasets.open(options.name, "train")
    batches = datasets.stream(
        dataset,
        seed=experiment.seed,
        batch_size=1,
        steps=count,
        flip=experiment.flip,
        change=augmenter(experiment),
    )
    panels = {
        _title(number, batch): _drawn(batch, dataset)
        for number, batch in enumerate(batches, start=1)
    }
    sheet = png(side_by_side(panels, legend=False))
    replace_file(Path(options.out), lambda file: file.write_bytes(sheet))
    tables.say(options.out)
    return True


def _show_parser() -> Parser:
    parser = Parser(
        "data show",
        purpose="Draws the first pictures of a training with their boxes, as the training sees "
        "them: resized, changed at random, flipped.",
        usage="DATA --out FILE [--count COUNT] [--resize SIDES | --letterbox SIDE] [options]",
    )
    parser.add_argument("name", help=DATA)
    parser.add_argument("--out", required=True, help="PNG file")
    parser.add_argument("--count", type=int, default=4, help="how many pictures")
    parser.add_argument("--resize", type=tuple[int, int], help="as in a training: [800,1333]")
    parser.add_argument("--letterbox", type=int, help="as in a training: 640")
    parser.add_argument("--flip", type=float, default=0.5, help="chance of a horizontal flip")
    parser.add_argument("--seed", type=int, default=0, help="as in a training")
    parser.add_class_arguments(Augmentation, "augment")
    parser.hide_config_options()
    return parser


def _experiment(values: dict[str, Any]) -> Experiment:
    """A training that sees pictures as the options say, checked as one."""
    seen = ("flip", "seed", "resize", "letterbox")
    experiment = Experiment(
        data=values["name"], **{name: values[name] for name in seen}, **groups(values)
    )
    check(experiment)
    return experiment


def _title(number: int, batch: Batch) -> str:
    height, width = batch.truth.sizes[0].tolist()
    return f"{number}: picture {int(batch.ids)}, {width} x {height}"


def _drawn(batch: Batch, dataset: Dataset) -> Image:
    """The one picture of a batch, with its padding and its objects."""
    from detdistill.show.detections import Objects, draw

    real = batch.truth.valid[0]
    objects = Objects(boxes=batch.truth.boxes[0][real], labels=batch.truth.labels[0][real].tolist())
    return draw(batch.images[0], objects, dataset.classes)


_ACTIONS = {"check": _check, "convert": _convert, "show": _show}
