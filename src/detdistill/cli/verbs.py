"""The commands as Python functions. Each returns what the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detdistill.cli.settings import several
from detdistill.files import require_writable, write_json
from detdistill.typed import require

if TYPE_CHECKING:
    from detdistill.cli.experiments import Request
    from detdistill.doctor import DryRun

Split = Literal["train", "tune", "test"]
Source = Literal["mmdet", "torchvision"]
Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["coco", "yolo", "pictures"]


def demo(
    *,
    budget: Literal["tiny", "small"] = "small",
    out: str = "runs/demo",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a teacher, a student alone and distilled students on built-in data, and reports.

    What is finished in the folder already is kept.

    Args:
        budget: on two cores tiny takes about a minute, small less than ten
        out: folder for the runs, summary.json and report.html
        overwrite: train everything anew

    Returns:
        What `summary.json` holds.
    """
    from detdistill import demo as runner

    require_writable(Path(out) / "summary.json")
    summary = runner.run(budget, Path(out), overwrite=overwrite)
    report([out], out=f"{out}/report.html")
    return summary


def train(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of Experiment
    """Trains a detector without a teacher.

    Args:
        settings: fields of `Experiment`, and `recipe`, `config`, `out`, `resume`, `overwrite`.

    Returns:
        What `evaluation.json` in the run folder holds.
    """
    return _trained("train", settings)


def distill(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of Experiment
    """Trains a student with a teacher; without `method` it is exactly `train`.

    Args:
        settings: as for `train`, and `teacher`, `method` and the hyper-parameters of each method
            under its name: `distill(teacher="runs/teacher", method="pkd", pkd={"weight": 6.0})`.

    Returns:
        What `evaluation.json` in the run folder holds.
    """
    return _trained("distill", settings)


def compare(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 - of an experiment and more
    """Trains a student alone and with each method over seeds, with two controls, and reports.

    Args:
        settings: fields of `Experiment` that all trainings share; `methods`, names joined by a plus
            or their settings by a name of the row; `student` and `teacher`, one or several;
            `teacher_steps`, `teacher_lr`, `seeds`; `recipe`, `config`, `out`, `parallel`,
            `cluster`, `resamples`, `against`, `overwrite`; and a method's settings under its name,
            for all:
            `compare(methods=["pkd", "crosskd+pkd"], teacher="gfl-quick-w32", pkd={"weight": 4})`.

    Returns:
        `rows`, a mapping of raw numbers for each row of the table; `failed`, why trainings failed;
        and where `report`, `csv` and `markdown` lie.
    """
    from detdistill.cli import comparisons

    return comparisons.fulfil(comparisons.from_settings(settings))


def fulfil(request: Request) -> dict[str, Any]:
    """Trains what a request asks for."""
    from detdistill.train.loop import train as run

    return run(request.experiment, request.out, resume=request.resume, overwrite=request.overwrite)


def evaluate(
    checkpoint: str,
    *,
    data: str | None = None,
    split: Split = "test",
    class_map: dict[str, str | None] | None = None,
    skippable: float = 0.01,
    out: str | None = None,
) -> dict[str, Any]:
    """COCO metrics of a checkpoint on a data set, its pictures scaled as in its training.

    Args:
        checkpoint: a run folder, a .safetensors file or an exported .onnx file
        data: shapes, shapes:hard, coco:PATH, coco:ANNOTATIONS.json,PICTURES, voc:PATH,
            yolo:PATH/data.yaml; if not given what it was trained on, or shapes
        split: part of the data set
        class_map: which class of the detector stands for which of the data, beside those whose
            names agree, as {"person": "pedestrian"}; null for none
        skippable: largest share of pictures, and of annotations, that may be left out
        out: JSON file to write the numbers to

    Returns:
        The twelve numbers as fractions under `metrics`, and VOC's two on its data, with `data`,
        `split`, `images`, and what is to be known of the data under `notes`.
    """
    from detdistill import data as datasets
    from detdistill.cli import ready
    from detdistill.evaluate import evaluate_detector, unasked, voc

    if out:
        require_writable(Path(out))
    detector, resize = ready.load(checkpoint)
    data = data or ready.data_of(checkpoint)
    dataset = datasets.open(data, split, resize=resize, skippable=skippable, decode=True)
    metrics, detections = evaluate_detector(detector, dataset, class_map=class_map)
    found = {
        "metrics": metrics.to_dict() | voc.numbers(data, dataset.ground_truth(), detections),
        "data": data,
        "split": split,
        "images": len(dataset),
        "notes": [*dataset.notes, *filter(None, [unasked(detector, dataset, class_map)])],
    }
    if out:
        write_json(Path(out), found)
    return found


def predict(
    checkpoint: str,
    paths: Sequence[str],
    *,
    out: str,
    formats: Sequence[Format] = ("coco", "pictures"),
    score: float = 0.3,
    batch_size: int = 8,
    data: str | None = None,
    split: Split = "test",
) -> dict[str, Any]:
    """Detections for picture files: COCO results, YOLO texts, drawn pictures.

    A file that cannot be read is named and skipped.

    Args:
        checkpoint: a run folder, a .safetensors file or an exported .onnx file
        paths: pictures, folders of them or of video frames, patterns as '*.jpg'
        out: folder that does not exist yet, or is empty; it appears when all is done
        formats: coco: detections.json; yolo: labels/*.txt with classes.txt; pictures:
            pictures/*.png
        score: detections below this are not drawn; the texts and detections.json have all
        batch_size: pictures at a time
        data: whose ids pictures and classes get, which are counted from 1 without it: coco:PATH,
            coco:ANNOTATIONS.json,PICTURES, voc:PATH, yolo:PATH/data.yaml
        split: the part of that data set that the pictures are from

    Returns:
        `detections`, as COCO results; and what `images.json` holds: `images` and `categories` with
        their ids, and `skipped`, by path why a picture was left out. Pictures share a batch only
        if they are padded to one size, so that it changes nothing but the rounding: on a CPU boxes
        by less than 0.01 pixels, scores by less than 0.0001.
    """
    from detdistill.cli import predicting

    require("formats", formats, tuple[Format, ...])
    return predicting.predict(
        checkpoint,
        [str(path) for path in several(paths)],
        Path(out),
        formats=formats,
        score=score,
        batch_size=batch_size,
        data=data,
        split=split,
    )


def export(
    checkpoint: str,
    *,
    out: str,
    raw: bool = False,
    precision: Precision = "fp32",
    data: str | None = None,
    split: Split = "test",
    images: int = 8,
    skippable: float = 0.01,
    overwrite: bool = False,
) -> dict[str, Any]:
    """A detector as an ONNX file, or as a .safetensors file with its card.

    What onnxruntime makes of the ONNX file is checked against PyTorch on pictures before it is put
    in place.

    Args:
        checkpoint: a run folder or a .safetensors file
        out: the .onnx or .safetensors file
        raw: boxes and scores of all priors, regions or queries, not detections
        precision: fp16 and int8 are smaller; what they cost in AP is measured on the data
        data: pictures to check on: shapes, shapes:hard, coco:PATH,
            coco:ANNOTATIONS.json,PICTURES, voc:PATH, yolo:PATH/data.yaml; if not given what it was
            trained on, or shapes
        split: part of the data set
        images: on how many pictures outputs are compared
        skippable: largest share of pictures, and of annotations, that may be left out
        overwrite: replace what is there

    Returns:
        `file`, `megabytes`, and for ONNX `precision`, `differences` of boxes and scores, and
        `metrics`, for fp16 and int8 those of PyTorch and of the file.
    """
    from detdistill.cli import exporting

    require("precision", precision, Precision)
    return exporting.export(
        checkpoint,
        Path(out),
        raw=raw,
        precision=precision,
        data=data,
        split=split,
        images=images,
        skippable=skippable,
        overwrite=overwrite,
    )


def import_checkpoint(
    source: Source,
    checkpoint: str,
    *,
    out: str,
    config: str | None = None,
    preset: str | None = None,
    classes: Sequence[str] | None = None,
    norm_eps: float | None = None,
    partial: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """A checkpoint of another framework as one of ours. Nothing in it is run.

    Args:
        source: whose file it is
        checkpoint: MMDetection 2.x or 3.x, or a state dict
        out: folder or .safetensors file for the detector
        config: MMDetection config (.py, .json) that describes it, instead of the one in the file
        preset: what it is, if no config says so: gfl-r50; for torchvision fcos_resnet50_fpn
        classes: their names in order, or coco, if the file has none
        norm_eps: what torchvision's norms add to a variance: 0 for weights that began as COCO_V1
        partial: accept missing and unexpected tensors
        overwrite: replace what is there

    Returns:
        `file`, `architecture`, and the names of tensors under `loaded`, `missing`, `unexpected`;
        what was left out and what else is to be known, in words, under `left_out` and `notes`.
    """
    from detdistill import detectors
    from detdistill.interop import foreign, transfer

    require("source", source, Source)
    require_writable(transfer.destination(Path(out), overwrite=overwrite))
    imported = foreign.load(
        source,
        Path(checkpoint),
        config=Path(config) if config else None,
        preset=preset,
        classes=None if classes is None else several(classes),
        norm_eps=norm_eps,
        partial=partial,
    )
    file = imported.save(Path(out), source=f"{source}: {checkpoint}", overwrite=overwrite)
    return {
        "file": str(file),
        "architecture": detectors.to_card(imported.detector.architecture),
        **{name: list(found) for name, found in asdict(imported.report).items()},
    }


def report(folders: Sequence[str], *, out: str | None = None, against: str | None = None) -> Path:
    """One HTML page from run folders.

    Args:
        folders: run folders, or folders that hold some
        out: the HTML file, or its folder; the first one if not given
        against: a paper's table that gets a column of its own, as crosskd:table5

    Returns:
        The page.
    """
    from detdistill.report.build import build, page_at

    paths = [Path(folder) for folder in several(folders)]
    page = page_at(Path(out) if out else paths[0])
    require_writable(page)
    return build(paths, page, against=against)


def explain(
    runs: Sequence[str],
    *,
    only: Sequence[str] = (),
    images: int = 4,
    split: Split = "test",
    alone: str | None = None,
    rivals: Sequence[str] = (),
    out: str | None = None,
) -> dict[str, Any]:
    """The papers' figures for finished runs: the teacher, the student alone and distilled.

    Pictures (PNG, SVG) and their numbers (JSON, CSV) go to the folder 'figures' of the first
    distilled run.

    Args:
        runs: run folders, or folders that hold some
        only: figures to make; all if not given
        images: how many pictures are shown
        split: part of the data set
        alone: run of the student alone, if it is not among the others
        rivals: other teachers, to be compared with the runs' own
        out: folder for the figures, if not that one

    Returns:
        `folder`; `figures`, what `index.json` there says of those that were made; `missing`, why
        others were not, by name.
    """
    from detdistill.explain.make import make

    made = make(
        [Path(run) for run in several(runs)],
        only=several(only),
        images=images,
        split=split,
        alone=Path(alone) if alone else None,
        rivals=[Path(rival) for rival in several(rivals)],
        out=Path(out) if out else None,
    )
    return {"folder": str(made.folder), "figures": made.figures, "missing": made.missing}


def methods() -> list[dict[str, Any]]:
    """Every method: name, idea, paper, what it reads, families, hyper-parameters, what it fits.

    `fits` has the families of teachers that each family of students can learn from.
    """
    from detdistill import fits
    from detdistill.cli import listings

    families = fits.families()
    return [
        {**asdict(card), "fits": {name: fits.teachers(card.name, name) for name in families}}
        for card in listings.method_cards()
    ]


def detectors() -> list[dict[str, Any]]:
    """Every named detector: name, parameters, strides, channels, for 80 classes."""
    from detdistill.cli import listings

    return [asdict(card) for card in listings.detector_cards()]


def recipes() -> list[dict[str, Any]]:
    """Every recipe: name, settings, the published number and ours on `shapes`."""
    from detdistill.cli import recipe_listing

    return recipe_listing.cards()


def doctor(**settings: Any) -> tuple[dict[str, str], DryRun | None]:  # noqa: ANN401
    """The environment, and, if there are settings, one tried step of that experiment.

    Args:
        settings: as for `distill`; `profile` to learn what each part of a step costs.
    """
    from detdistill import doctor as checks
    from detdistill.cli import experiments

    request = experiments.from_settings("doctor", settings) if settings else None
    return checks.environment(), dry_run(request) if request else None


def dry_run(request: Request) -> DryRun:
    """One tried step; on made-up data for a recipe whose data nobody has named."""
    from detdistill import doctor as checks
    from detdistill import recipes

    recipe = recipes.find(request.recipe) if request.recipe else None
    return checks.dry_run(request.experiment, recipe, profile=request.profile)


def _trained(command: str, settings: dict[str, Any]) -> dict[str, Any]:
    from detdistill.cli import experiments

    return fulfil(experiments.from_settings(command, settings))
