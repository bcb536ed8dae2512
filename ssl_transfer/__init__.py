"""ssl_transfer: pretrain a backbone without labels on one domain, transfer it to another, compare with statistics.

The names below load on first use, so that `import ssl_transfer` costs nothing.
"""

from __future__ import annotations

import importlib
import operator

__version__ = "0.1.0"

_PUBLIC = {
    "open_store": ("ssl_transfer.data.store", "ImageStore"),
    "open_task": ("ssl_transfer.data.tasks", "Task.load"),
    "load_backbone": ("ssl_transfer.models.backbone", "load_backbone"),
    "extract_features": ("ssl_transfer.features", "extract_features"),
    "LinearProbe": ("ssl_transfer.evaluation.linear_probe", "LinearProbe"),
    "probe": ("ssl_transfer.evaluation.stage", "probe"),
    "neighbors": ("ssl_transfer.measures.neighborhood", "Neighborhood.of"),
    "project": ("ssl_transfer.analysis.projection", "project"),
    "transform": ("ssl_transfer.analysis.projection", "transform"),
    "cka": ("ssl_transfer.measures.geometry", "cka"),
    "open_study": ("ssl_transfer.study.plan", "open_study"),
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ssl_transfer' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return operator.attrgetter(attribute)(importlib.import_module(module))


def __dir__() -> list[str]:
    return sorted(__all__)
