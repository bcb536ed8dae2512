"""Images and patients that the runs of a study learnt from, selected on and were tested on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from ssl_transfer.result import EvalResult

SPLITS = ("train", "val", "test")


def images_and_patients(results: Sequence[EvalResult]) -> pd.DataFrame | None:
    """Images and patients of each split, by target and label fraction.

    Returns:
        Columns task, fraction, and for each of `SPLITS` `…_images` and `…_patients`: a number, or `9–14` where the draws differ;
        empty if patients are unknown. None without results.
    """
    counts: dict[tuple[str, float], list[EvalResult]] = {}
    for result in results:
        counts.setdefault((result.task["name"], result.fraction), []).append(result)
    rows = [
        {
            "task": task,
            "fraction": fraction,
            **{
                f"{split}_{kind}": _range(result.n.get(split, {}).get(kind) for result in of_cell)
                for split in SPLITS
                for kind in ("images", "patients")
            },
        }
        for (task, fraction), of_cell in sorted(counts.items())
    ]
    return pd.DataFrame(rows) if rows else None


def _range(numbers: Iterable[int | None]) -> str:
    known = [number for number in numbers if number is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
