"""What all that write or read runs agree on: names of files, and settings that decide nothing."""

from __future__ import annotations

EXPERIMENT = "experiment.yaml"
"""The resolved experiment, which makes a folder a run folder."""
ENVIRONMENT = "environment.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
LOG = "train.log"
CHECKPOINTS = "checkpoints"
SNAPSHOTS = "snapshots"
TENSORBOARD = "tensorboard"
STUDENT = "student.safetensors"
CARD = "student.json"
"""What is said of the student beside its weights."""
DETECTIONS = "detections.json"
EVALUATION = "evaluation.json"
FIGURES = "figures"
REPORT = "report.html"
SUMMARY = "summary.json"
"""Of a demo, beside its runs."""

HARMLESS = {
    "workers",
    "save_every",
    "keep_every",
    "keep_memory",
    "tensorboard",
    "teacher_cache_gb",
}
"""Fields of an experiment that may change between stopping and going on."""
