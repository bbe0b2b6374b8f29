"""Run folders that no training has written, for pages that are quick to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from detdistill import data

Json = dict[str, Any]

IMAGES = 24
PKD = {"weight": 6.0}
ROLES = ("teacher", "alone", "distilled")


def run(
    folder: Path,
    *,
    ap: float | None = 0.4,
    methods: dict[str, Json] | None = None,
    teacher: Path | None = None,
    student: str = "gfl-mini-w8",
    steps: int = 600,
    seed: int = 0,
    step_ms: float = 190.0,
    skill: float = 0.5,
    card: Json | None = None,
    **changes: Any,
) -> Path:
    """Writes a finished run, or with `ap=None` one that was interrupted."""
    folder.mkdir(parents=True)
    if card:
        write(folder / "student.json", json.dumps(card))
    experiment = {
        "data": "shapes",
        "student": student,
        "teacher": str(teacher) if teacher else None,
        "methods": methods or {},
        "images": None,
        "steps": steps,
        "batch_size": 16,
        "optimizer": {"name": "adamw", "lr": 0.012, "schedule": "cosine", "warmup_steps": 60},
        "seed": seed,
        "precision": "fp32",
        **changes,
    }
    write(folder / "experiment.yaml", yaml.safe_dump(experiment, sort_keys=False))
    write(folder / "environment.json", json.dumps(_environment(folder)))
    write(folder / "metrics.jsonl", _log(steps, methods or {}, ap))
    state = {"state": "interrupted" if ap is None else "finished", "step": steps, "steps": steps}
    write(folder / "status.json", json.dumps(state))
    if ap is not None:
        write(folder / "evaluation.json", json.dumps(evaluation(ap, steps, step_ms, experiment)))
        write(folder / "detections.json", json.dumps(detections(skill, seed)))
    return folder


def demo(root: Path) -> Path:
    """A folder like the demo's: a teacher, the student in two lengths, and two distilled ones."""
    teacher = run(root / "teacher", ap=0.707, student="gfl-mini-w32", steps=1500, skill=0.95)
    run(root / "student", ap=0.315, skill=0.4)
    run(root / "student-equal-compute", ap=0.505, steps=1300, skill=0.6)
    both = {"crosskd": {"cut": 1}, "pkd": PKD}
    run(root / "crosskd+pkd", ap=0.553, methods=both, teacher=teacher, step_ms=420, skill=0.75)
    run(root / "tid", ap=0.42, methods={"tid": {}}, teacher=teacher, step_ms=380, skill=0.5)
    write(root / "summary.json", json.dumps({"budget": "small"}))
    return root


def several_seeds(root: Path) -> Path:
    """A teacher, and a student alone and distilled at three seeds each."""
    teacher = run(root / "teacher", ap=0.707, student="gfl-mini-w32", steps=1500, skill=0.95)
    for seed, (alone, pkd) in enumerate([(0.337, 0.45), (0.259, 0.41), (0.31, 0.46)]):
        run(root / f"student-{seed}", ap=alone, seed=seed)
        methods = {"pkd": PKD}
        run(root / f"pkd-{seed}", ap=pkd, methods=methods, teacher=teacher, seed=seed, skill=0.7)
    return root


def everything(root: Path) -> Path:
    """A demo with figures of its best run."""
    explained(demo(root) / "crosskd+pkd")
    return root


def checkpoint(file: Path, *, fingerprint: str = "f1") -> Path:
    """A teacher's weights as far as a page reads them: not at all; and their card."""
    architecture = {"family": "gfl", "backbone": {"name": "resnet50", "width": 64}}
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, "weights")
    card = {"architecture": architecture, "fingerprint": fingerprint}
    write(file.with_suffix(".json"), json.dumps(card))
    return file


def explained(run: Path) -> Path:
    """The folder of figures: a single one, and two groups for tabs."""
    figures = [
        ("errors", "", "", (640, 320)),
        *((f"values-{i}", "value_maps", f"picture {i}", (400 + i, 200)) for i in (3, 14)),
        *(
            (f"scores-{who}", "scores", who, (300, 300))
            for who in ("teacher", "alone", "distilled")
        ),
    ]
    folder = run / "figures"
    folder.mkdir()
    for shade, (name, _, _, size) in enumerate(figures):
        Image.new("RGB", size, (40 * shade, 120, 200)).save(folder / f"{name}.png")
    index = [_figure(name, group, tab) for name, group, tab, _ in figures]
    write(folder / "index.json", json.dumps(index))
    return folder


def _figure(name: str, group: str, tab: str) -> Json:
    files = {ending: f"{name}.{ending}" for ending in ("png", "svg", "json", "csv")}
    words = {"title": f"Title of {group or name}", "caption": "Lower is better."}
    more = {"alt": f"A drawing: {name}.", "source": "TID, figure 4"}
    return {
        "figure": group or name,
        "name": name,
        "group": group,
        "tab": tab,
        **words,
        **more,
        **files,
    }


def evaluation(ap: float, steps: int, step_ms: float, experiment: Json) -> Json:
    """What a finished run knows of itself."""
    metrics = {"AP": ap, "AP50": min(1, ap * 1.4), "AP75": ap * 1.05, "APs": ap * 0.6}
    metrics |= {"APm": ap * 1.1, "APl": -1.0, "AR100": min(1, ap * 1.2), "per_class": {}}
    seconds = steps * step_ms / 1000
    cost = {"seconds": seconds, "cpu_seconds": seconds * 1.8, "step_ms": step_ms}
    wide = experiment["student"] == "gfl-mini-w32"
    facts = {
        "parameters": 785_171 if wide else 125_627,
        "flops": 420_000_000 if wide else 96_000_000,
        "latency_ms": {"median": 14.2, "low": 13.8, "high": 15.1},
        "peak_tensor_mb": 5.25,
        "image_size": [128, 128],
        "batch_size": 1,
        "device": "x86_64",
        "threads": 2,
    }
    return {
        "metrics": metrics,
        "split": "test",
        "images": IMAGES,
        "data": experiment["data"],
        "step": steps,
        "cost": {**cost, "peak_memory_mb": 812.0},
        "facts": facts,
    }


def detections(skill: float, seed: int) -> list[Json]:
    """The true boxes of which a share is found, shaken, and some false alarms."""
    dataset = data.open("shapes", "test", IMAGES)
    truth = dataset.ground_truth()
    chance = torch.Generator().manual_seed(seed + int(skill * 100))
    found = []
    for note in truth["annotations"]:
        luck, *shake = torch.rand(5, generator=chance).tolist()
        x, y, w, h = (
            side + 0.3 * (1 - skill) * (s - 0.5) * note["bbox"][2 + i % 2]
            for i, (side, s) in enumerate(zip(note["bbox"], shake, strict=True))
        )
        if luck < 1 - skill:
            x = 128 - x - w
        score = 0.35 + 0.6 * luck
        found.append(
            {
                "image_id": note["image_id"],
                "category_id": note["category_id"],
                "bbox": [x, y, w, h],
                "score": score,
            }
        )
    return found


def write(path: Path, text: str) -> None:
    """UTF-8."""
    path.write_text(text, encoding="utf-8")


def _environment(folder: Path) -> Json:
    return {
        "python": "3.12.3",
        "torch": "2.14.0",
        "torchvision": "0.29.0",
        "detdistill": "0.1.0",
        "platform": "Linux-6.1-x86_64",
        "cpu": "A processor, 2.5 GHz",
        "cores": 2,
        "threads": 2,
        "gpu": None,
        "commit": "0123abc",
        "started": "2026-01-31T12:00:00+00:00",
        "command": f"detdistill train --out {folder.name}",
    }


def _log(steps: int, methods: dict[str, Json], ap: float | None) -> str:
    rows: list[Json] = []
    for step in range(10, steps + 1, 10):
        decay = 1 / (1 + step / 100)
        task = {"cls": 1.2 * decay, "box": 0.9 * decay, "dfl": 0.3 * decay}
        distill = {f"{name}/level{i}": (1 + i) * decay for name in methods for i in range(3)}
        row = {"step": step, "kind": "train", "lr": 0.01, "seconds": step * 0.2, "task": task}
        rows.append({**row, "cpu_seconds": step * 0.36, "distill": distill, "grad_norm": 3.0})
        if step % 100 == 0 and ap is not None:
            metrics = {"AP": ap * step / steps}
            rows.append({"step": step, "kind": "eval", "metrics": metrics})
    return "".join(json.dumps(row) + "\n" for row in rows)
