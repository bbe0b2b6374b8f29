"""The options of the commands that are not experiments."""

from __future__ import annotations

from typing import Literal

from detdistill.cli.parser import Parser
from detdistill.cli.verbs import Format, Precision, Source, Split

AGAINST = "a paper's table that gets a column of its own, as crosskd:table5"
CHECKPOINT = "a run folder or a .safetensors file"
ON_DISK = "coco:PATH, coco:ANNOTATIONS.json,PICTURES, voc:PATH, yolo:PATH/data.yaml"
DATA = f"shapes, shapes:hard, {ON_DISK}"
DETECTOR = "a run folder, a .safetensors file or an exported .onnx file"


def demo() -> Parser:
    """Options of `demo`."""
    parser = Parser(
        "demo",
        purpose="Trains a teacher, a student alone and distilled students on built-in data, "
        "and reports. What is finished in the folder already is kept.",
        usage="[--budget tiny|small] [--out FOLDER] [--overwrite]",
    )
    parser.add_argument(
        "--budget",
        type=Literal["tiny", "small"],
        default="small",
        help="on two cores tiny takes about a minute, small less than ten",
    )
    parser.add_argument("--out", default="runs/demo", help="folder for runs, summary and report")
    parser.add_argument("--overwrite", action="store_true", help="train everything anew")
    return parser


def evaluate() -> Parser:
    """Options of `evaluate`."""
    parser = Parser(
        "evaluate",
        purpose="COCO metrics of a checkpoint on a data set.",
        usage="CHECKPOINT [--data DATA] [--split train|tune|test] [--out FILE]",
    )
    parser.add_argument("checkpoint", help=DETECTOR)
    parser.add_argument("--data", default="shapes", help=DATA)
    parser.add_argument(
        "--split",
        type=Split,
        default="test",
        help="part of the data set",
    )
    _add_skippable(parser)
    parser.add_argument("--out", help="JSON file to write the numbers to")
    return parser


def _add_skippable(parser: Parser) -> None:
    parser.add_argument(
        "--skippable",
        type=float,
        default=0.01,
        help="largest share of pictures, and of annotations, that may be left out",
    )


def predict() -> Parser:
    """Options of `predict`."""
    parser = Parser(
        "predict",
        purpose="Detections for picture files: COCO results, YOLO texts, drawn pictures. A file "
        "that cannot be read is named and skipped.",
        usage="CHECKPOINT PATHS... --out FOLDER [--format FORMATS...] [--data DATA]",
    )
    parser.add_argument("checkpoint", help=DETECTOR)
    parser.add_argument(
        "paths", nargs="+", help="pictures, folders of them or of video frames, patterns as '*.jpg'"
    )
    parser.add_argument("--out", required=True, help="folder that does not exist, or is empty")
    parser.add_argument(
        "--format",
        nargs="+",
        type=Format,
        default=["coco", "pictures"],
        help="detections.json, labels/*.txt with classes.txt, or pictures/*.png",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.3,
        help="detections below this are not drawn; the texts and detections.json have all",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="pictures at a time")
    parser.add_argument("--data", help=f"whose ids pictures and classes get: {ON_DISK}")
    parser.add_argument(
        "--split",
        type=Split,
        default="test",
        help="the part of that data set that the pictures are from",
    )
    return parser


def export() -> Parser:
    """Options of `export`."""
    parser = Parser(
        "export",
        purpose="A detector as an ONNX file that onnxruntime runs, checked against PyTorch on "
        "pictures before it is put in place; or as a .safetensors file with its card.",
        usage="CHECKPOINT --out FILE [--raw] [--precision fp32|fp16|int8] [--data DATA]",
    )
    parser.add_argument("checkpoint", help=CHECKPOINT)
    parser.add_argument("--out", required=True, help="the .onnx or .safetensors file")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="boxes and scores of all priors, regions or queries, not detections",
    )
    parser.add_argument(
        "--precision",
        type=Precision,
        default="fp32",
        help="fp16 and int8 are smaller; what they cost in AP is measured on the data",
    )
    parser.add_argument("--data", default="shapes", help=f"pictures to check on: {DATA}")
    parser.add_argument(
        "--split",
        type=Split,
        default="test",
        help="part of the data set",
    )
    parser.add_argument(
        "--images", type=int, default=8, help="on how many pictures outputs are compared"
    )
    _add_skippable(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    return parser


def import_checkpoint() -> Parser:
    """Options of `import`."""
    parser = Parser(
        "import",
        purpose="A checkpoint of another framework as one of ours. Nothing in it is run.",
        usage="mmdet|torchvision CHECKPOINT --out OUT [--config FILE] [--preset NAME] "
        "[--classes NAMES...]",
    )
    parser.add_argument("source", type=Source, help="whose file it is")
    parser.add_argument("checkpoint", help="MMDetection 2.x or 3.x, or a state dict")
    parser.add_argument("--out", required=True, help="folder or .safetensors file for the detector")
    parser.add_argument("--config", help="MMDetection config (.py, .json) that describes it")
    parser.add_argument(
        "--preset",
        help="what it is, if no config says so: gfl-r50; for torchvision fcos_resnet50_fpn",
    )
    parser.add_argument(
        "--classes", nargs="+", help="their names in order, or coco, if the file has none"
    )
    parser.add_argument(
        "--norm_eps",
        type=float,
        help="what torchvision's norms add to a variance: 0 for weights that began as COCO_V1",
    )
    parser.add_argument(
        "--partial", action="store_true", help="accept missing and unexpected tensors"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    return parser


def report() -> Parser:
    """Options of `report`."""
    parser = Parser(
        "report",
        purpose="One HTML page from run folders.",
        usage="FOLDERS... [--out FILE] [--against PAPER:TABLE]",
    )
    parser.add_argument("folders", nargs="+", help="run folders, or folders that hold some")
    parser.add_argument("--out", help="the HTML file, or its folder; the first one if not given")
    parser.add_argument("--against", help=AGAINST)
    return parser


def explain() -> Parser:
    """Options of `explain`."""
    parser = Parser(
        "explain",
        purpose="The papers' figures for finished runs that are compared with each other: the "
        "teacher, the student alone and distilled. Pictures (PNG, SVG) and their numbers (JSON, "
        "CSV) go to the folder 'figures' of the first distilled run.",
        usage="RUNS... [--only NAMES...] [--images N] [--alone RUN] [--rivals TEACHERS...] "
        "[--out FOLDER]",
    )
    parser.add_argument("runs", nargs="+", help="run folders, or folders that hold some")
    parser.add_argument("--only", nargs="+", default=[], help="figures to make; all if not given")
    parser.add_argument("--images", type=int, default=4, help="how many pictures are shown")
    parser.add_argument(
        "--split",
        type=Split,
        default="test",
        help="part of the data set",
    )
    parser.add_argument("--alone", help="run of the student alone, if it is not among the others")
    parser.add_argument(
        "--rivals", nargs="+", default=[], help="other teachers, to be compared with the runs' own"
    )
    parser.add_argument("--out", help="folder for the figures")
    return parser


def methods() -> Parser:
    """Options of `methods`."""
    parser = Parser("methods", purpose="The distillation methods.", usage="[NAME] [--table]")
    parser.add_argument("name", nargs="?", help="show all about one method")
    parser.add_argument(
        "--table", action="store_true", help="show which method fits which detectors"
    )
    return parser


def detectors() -> Parser:
    """Options of `detectors`: none."""
    return Parser("detectors", purpose="The detectors that can be named.", usage="")


def recipes() -> Parser:
    """Options of `recipes`."""
    parser = Parser(
        "recipes",
        purpose="Settings with a name: rows of the papers' tables, and small twins of them.",
        usage="[NAME]",
    )
    parser.add_argument("name", nargs="?", help="show all about one recipe")
    return parser
