"""The interface of the libraries that backbones are exported to."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.backbone import Backbone

WEIGHTS, LOADER = "model.safetensors", "load.py"


@dataclass(frozen=True)
class Home:
    """A library that reads exported backbones.

    Attributes:
        title: Name of the library.
        write: Writes weights and whatever else the library needs into a folder. Raises `BackboneError` if the library has no
            such architecture.
        features: Loads the folder as a user of the library does, and computes features (B, D) of images (B, C, H, W).
        usage: How to load it, for the README: Markdown with a block of Python, in which `FOLDER` stands for the folder.
    """

    title: str
    write: Callable[[Backbone, Path], None]
    features: Callable[[Path, torch.Tensor], torch.Tensor]
    usage: str


def save_weights(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write tensors as `model.safetensors`."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})


def loader(what: str, imports: str, lines: list[str]) -> str:
    """A script whose `build()` makes a model and whose `load()` fills it strictly with the weights beside the script.

    Args:
        what: What it loads, for its docstring.
        imports: Lines that import from the library, and what `build` needs besides.
        lines: Lines that bind `model`.
    """
    body = "\n".join(f"    {line}" for line in lines)
    return f'''"""Loads the weights beside this file into {what}."""

from pathlib import Path

import torch
from safetensors.torch import load_file
{imports}


def build():
    """The model without weights."""
{body}
    return model.eval()


def load():
    """The model with all weights; an error if one is missing or left over."""
    model = build()
    model.load_state_dict(load_file(Path(__file__).with_name("{WEIGHTS}")), strict=True)
    return model
'''


def built_by_script(folder: Path) -> Any:
    """The model that `build()` of the script in an exported folder makes, without memory for its weights.

    Raises:
        BackboneError: If the library refuses it.
    """
    with torch.device("meta"):
        try:
            return runpy.run_path(str(folder / LOADER))["build"]()
        except Exception as error:  # of the library, such as a size that patches do not divide
            raise BackboneError(f"this library cannot build the architecture: {brief(error)}") from None


def loaded_by_script(folder: Path) -> Any:
    """The model that `load()` of the script in an exported folder returns."""
    return runpy.run_path(str(folder / LOADER))["load"]()
