"""timm: a folder that `timm.create_model("local-dir:…")` loads, and that the Hugging Face hub can hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ssl_transfer.errors import BackboneError
from ssl_transfer.export.home import Home, save_weights
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import timm_config

USAGE = """```python
import timm

backbone = timm.create_model("local-dir:FOLDER", pretrained=True)
```
"""


def write(backbone: Backbone, folder: Path) -> None:
    """Write `model.safetensors`, `config.json`, and `card.json`, with which `ssl_transfer.load_backbone` reads the folder, too.

    Raises:
        BackboneError: If it has the small stem, which timm's arguments cannot express.
    """
    if backbone.card.stem == "small":
        raise BackboneError(
            f"{backbone.card.name}: timm cannot build the small-image stem of {backbone.card.architecture}, and would load the "
            "weights with another stride. Take --to torchvision, --to monai or --to onnx, which can."
        )
    model = backbone.model
    save_weights(model.state_dict(), folder)
    (folder / "config.json").write_text(json.dumps(timm_config(model, backbone.card), indent=1))
    replace(backbone.card, passport=None).save(folder)


def features(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Features by plain timm."""
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)


HOME = Home("timm", write, features, USAGE)
