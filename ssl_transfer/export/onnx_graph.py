"""ONNX: a graph of any architecture, for any number of images of the stated size."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.export.home import Home
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.backbone import Backbone

GRAPH, INPUT, OUTPUT = "model.onnx", "images", "features"
EXPORTERS = (  # of torch: the first takes a tenth of the time, the second knows more operators; both give the same graph
    {"dynamo": False, "dynamic_axes": {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}},
    {"dynamo": True, "dynamic_shapes": {"images": {0: "batch"}}, "external_data": False, "verbose": False},
)
USAGE = """The batch is dynamic; channels, height and width are those of the preprocessing. With onnxruntime:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx", providers=["CPUExecutionProvider"])
(inputs,) = session.get_inputs()
images = np.zeros((2, *inputs.shape[1:]), np.float32)
(features,) = session.run(None, {inputs.name: images})
```
"""


def write(backbone: Backbone, folder: Path) -> None:
    """Write `model.onnx`: input `images` (B, C, H, W), float32, preprocessed; output `features` (B, D).

    Raises:
        UsageError: If onnx is not installed.
        BackboneError: If torch cannot express the architecture in ONNX.
    """
    _assert_installed()
    card = backbone.card
    example = torch.zeros(2, card.in_channels, card.image_size, card.image_size)
    problems = []
    for exporter in EXPORTERS:
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # where torch prints what it cannot write
                warnings.simplefilter("ignore")
                names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
                torch.onnx.export(backbone, (example,), str(folder / GRAPH), **names, **exporter)
            return
        except Exception as error:  # torch's own, of an operator that ONNX does not have
            problems.append(brief(error))
    raise BackboneError(f"{card.name}: torch cannot write {card.architecture} as ONNX: {' '.join(problems)}")


def features(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Features by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def _assert_installed() -> None:
    from importlib.util import find_spec

    absent = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if absent:
        raise UsageError(
            f"--to onnx: {', '.join(absent)} is not installed. Install it: pip install 'ssl-transfer[export]'"
        )


HOME = Home("ONNX", write, features, USAGE)
