"""Hugging Face hub: a folder that is ready to be uploaded; timm loads it from there as from the disk."""

from __future__ import annotations

from ssl_transfer.export import timm_folder
from ssl_transfer.export.home import Home

USAGE = """Upload the folder with `hf upload OWNER/NAME FOLDER`; then it is
`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`. From the disk:

```python
import timm

backbone = timm.create_model("local-dir:FOLDER", pretrained=True)
```
"""
HOME = Home("the Hugging Face hub", timm_folder.write, timm_folder.features, USAGE)
