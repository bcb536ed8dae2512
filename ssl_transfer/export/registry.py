"""The libraries that `ssl-transfer export --to` knows."""

from __future__ import annotations

from ssl_transfer.export import hub_folder, monai_weights, onnx_graph, timm_folder, torchvision_weights
from ssl_transfer.export.home import Home

HOMES: dict[str, Home] = {
    "timm": timm_folder.HOME,
    "torchvision": torchvision_weights.HOME,
    "onnx": onnx_graph.HOME,
    "monai": monai_weights.HOME,
    "hf": hub_folder.HOME,
}
