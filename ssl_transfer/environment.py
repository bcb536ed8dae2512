"""The environment of a run: versions, git commit, device and time, as every result records them."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ssl_transfer import __version__

PACKAGES = ("torch", "torchvision", "lightly", "timm", "accelerate", "faiss", "scikit-learn", "umap-learn", "numpy")

FLOAT32 = "ieee"  # what float32 is in every computation, see `ssl_transfer.numerics`; never "tf32"


@cache
def _fixed_environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        for name in (package, f"{package}-gpu", f"{package}-cpu"):
            try:
                versions[package] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    return {
        "ssl_transfer": __version__,
        "git_commit": commit or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
    }


def thread_count() -> int:
    """Number of CPU threads of torch, or of cores if it is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else os.cpu_count() or 1


def environment(device: str) -> dict[str, Any]:
    """Versions, git commit, device and time: what a result needs to be traced."""
    return {
        **_fixed_environment(),
        "device": device,
        "float32": FLOAT32,
        "threads": thread_count(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def device_name() -> str:
    """The GPU that torch uses, by name, or `cpu`. Torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "cpu"
