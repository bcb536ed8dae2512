"""ssl_transfer: pretrain without labels on one domain, measure what it is worth on another.

The names below load on first use, so that `import ssl_transfer` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "open_store": ("ssl_transfer.data.store", "ImageStore"),
    "open_task": ("ssl_transfer.data.tasks", "Task"),
    "load_backbone": ("ssl_transfer.models.backbone", "load_backbone"),
    "extract_features": ("ssl_transfer.features", "extract_features"),
    "LinearProbe": ("ssl_transfer.evaluate.linear_probe", "LinearProbe"),
    "open_study": ("ssl_transfer.study.plan", "open_study"),
    "project": ("ssl_transfer.analysis.projection", "project"),
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ssl_transfer' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
