"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from detdistill import __version__
from detdistill.device import best_device


def describe() -> dict[str, Any]:
    """Versions, hardware and command line, ready for JSON."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": installed("torchvision"),
        "accelerate": installed("accelerate"),
        "detdistill": __version__,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if best_device().type == "cuda" else None,
        "commit": _commit(),
        "started": now(),
        "command": shlex.join(sys.argv),
    }


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory that this process has held: tensors on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    own = _high_water_mark()
    return round(own / 1e6, 1) if own else None


def _high_water_mark() -> float | None:
    """Bytes of memory that this process held at most; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` counts what the process held that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def installed(package: str) -> str | None:
    """The version of a package; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def requirements() -> tuple[list[str], list[str]]:
    """Packages that this one needs, and those of its extras, but for the tools to work on it."""
    needed: list[str] = []
    optional: list[str] = []
    for text in requires("detdistill") or ():
        name, *_ = re.split(r"[^\w.-]", text)
        extra = re.search(r"extra == ['\"](\w+)", text)
        if extra is None:
            needed.append(name)
        elif extra[1] != "dev":
            optional.append(name)
    return needed, optional


def cpu_flags() -> str:
    """What a processor can compute, as Linux lists it; empty elsewhere."""
    return _said_of_cpu("flags")


def _cpu() -> str:
    return _said_of_cpu("model name") or platform.processor() or platform.machine()


def _said_of_cpu(name: str) -> str:
    """Of the first processor; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _commit() -> str | None:
    """The commit of the source tree that this package is run from, if it is one."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # not that of a tree around us
        return _git(here.parent, "rev-parse", "HEAD") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
    return found.stdout.strip()
