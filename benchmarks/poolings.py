"""Cost of extracting all poolings of a ViT (`cls`, `mean`, `last4`) in one forward pass, against that of its class token alone.

    python benchmarks/poolings.py            # about a minute on two cores
    python benchmarks/poolings.py --quick    # fewer images, for a trial

A store of 64 grey images of 64 px (--images), read at 224 px by a randomly initialised ViT-S/16. Both passes are
`models.embedding` from the store, float32, and take turns; the last line is one JSON object with the ratio of the medians:

- poolings_of_one: seconds of `embed_poolings` over those of `embed`. Limit 1.1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Measure, print a table, and the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 16 images")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from ssl_transfer.data.store import StoreWriter
    from ssl_transfer.models.backbone import load_backbone
    from ssl_transfer.models.embedding import embed, embed_poolings
    from ssl_transfer.models.pooling import STORED

    count, draw = 16 if options.quick else options.images, np.random.default_rng(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder) / "store", (1, 64, 64), np.uint8) as writer:
            for number in range(count):
                writer.append(draw.integers(0, 255, (1, 64, 64), np.uint8), {"patient": str(number), "label": "a"})
            store = writer.finish(np.repeat("train", count), units="display", domain="ct", split_by="patient")
        backbone, rows = load_backbone("scratch:vit_small_patch16_224,in_channels=1,size=224"), np.arange(count)
        backbone.to(device)
        contestants: dict[str, Callable[[], object]] = {
            "class token": lambda: embed(backbone, store, rows, device=device, batch_size=32),
            "all poolings": lambda: embed_poolings(backbone, store, rows, STORED, device=device, batch_size=32),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):
            for name, run in contestants.items():
                started = time.perf_counter()
                run()
                if number:  # the first one warms up
                    seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:<14}{value:8.2f} s  {count / value:8.1f} images/s  (of {options.rounds} rounds)")
    print(json.dumps({"poolings_of_one": round(medians["all poolings"] / medians["class token"], 3)}))


if __name__ == "__main__":
    main()
