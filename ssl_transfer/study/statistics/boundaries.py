"""In-domain against cross-domain: all contrasts counted by the boundaries of both sides."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ssl_transfer.domains import DISTANCE, UNKNOWN
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.table import SCRATCH, random_init_arms

KINDS = [*DISTANCE, "mixed", UNKNOWN, SCRATCH]  # from near to far
VERDICTS = ("better", "worse", "equivalent", "not decided")


def by_boundary(contrasts: pd.DataFrame) -> list[dict]:
    """Count contrasts by the pair of boundaries, the nearer side first.

    Contrasts share runs, so the counts are descriptive, not a test.

    Args:
        contrasts: At main metrics.

    Returns:
        One dict per pair of boundaries, from near to far: `near`, `far`, `n`, `better` and `worse` (the nearer side),
        `equivalent`, `undecided`, and `median`: of the differences, positive where the nearer side is better. Within one
        boundary, and where one is unknown, no side is nearer (random initialisation is farther than any): `within` is true, and
        the median is of absolute differences.
    """
    random_init = random_init_arms(contrasts)
    sides = {side: _positions(contrasts, side, random_init) for side in "ab"}
    near, far = pd.DataFrame(sides).min(axis=1), pd.DataFrame(sides).max(axis=1)
    turned = near != sides["a"]
    signs = contrasts["metric"].map({metric: metric_sign(metric) for metric in contrasts["metric"].unique()})
    gain: pd.Series = contrasts["difference"] * signs * (1 - 2 * turned)
    verdicts = contrasts["verdict"].replace("equivalent and different", "equivalent")
    verdicts = verdicts.where(~turned, verdicts.replace({"better": "worse", "worse": "better"}))
    rows = []
    pairs: Any = gain.groupby([near, far])
    for (nearer, farther), gains in pairs:
        counts = verdicts[gains.index].value_counts()
        better, worse, equivalent, undecided = (int(counts.get(verdict, 0)) for verdict in VERDICTS)
        within = nearer == farther or KINDS[farther] == UNKNOWN  # `unknown` comes last but for random initialisation
        rows.append(
            {
                "near": KINDS[nearer],
                "far": KINDS[farther],
                "within": within,
                "n": len(gains),
                "better": better,
                "worse": worse,
                "equivalent": equivalent,
                "undecided": undecided,
                "median": (gains.abs() if within else gains).median(),
            }
        )
    return rows


def _positions(contrasts: pd.DataFrame, side: str, random_init: set[str]) -> pd.Series:
    """Index in `KINDS` of the boundary of one side."""
    order = {kind: position for position, kind in enumerate(KINDS)}
    positions = contrasts[f"boundary_{side}"].map(order).fillna(KINDS.index(UNKNOWN)).astype(int)
    return positions.where(~contrasts[side].isin(random_init), KINDS.index(SCRATCH))
