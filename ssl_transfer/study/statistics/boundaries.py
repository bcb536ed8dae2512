"""In-domain against cross-domain: all contrasts counted by the boundaries of both sides."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.table import SCRATCH, random_init_arms

KINDS = [*DISTANCE, "mixed", "unknown", SCRATCH]  # from near to far
VERDICTS = ("better", "worse", "equivalent", "not decided")


def by_boundary(contrasts: pd.DataFrame) -> list[dict]:
    """Count contrasts by the pair of boundaries, the nearer side first.

    Contrasts share runs, so the counts are a picture and no test.

    Args:
        contrasts: At main metrics.

    Returns:
        One dict per pair of boundaries, from near to far: `near`, `far`, `n`, `better` and `worse` (the nearer side),
        `equivalent`, `undecided`, and `median`: of the differences, positive where the nearer side is better. Within one
        boundary no side is nearer: `within` is true, and the median is of absolute differences.
    """
    random = random_init_arms(contrasts)
    sides = {side: _kinds(contrasts, side, random) for side in "ab"}
    near, far = pd.DataFrame(sides).min(axis=1), pd.DataFrame(sides).max(axis=1)
    turned = near != sides["a"]
    signs = contrasts["metric"].map({metric: metric_sign(metric) for metric in contrasts["metric"].unique()})
    gain = contrasts["difference"] * signs * (1 - 2 * turned)
    verdicts = contrasts["verdict"].replace("equivalent and different", "equivalent")
    verdicts = verdicts.where(~turned, verdicts.replace({"better": "worse", "worse": "better"}))
    found = []
    for (one, other), own in gain.groupby([near, far]):
        counts = verdicts[own.index].value_counts()
        better_, worse, equivalent, undecided = (int(counts.get(verdict, 0)) for verdict in VERDICTS)
        found.append(
            {
                "near": KINDS[one],
                "far": KINDS[other],
                "within": one == other,
                "n": len(own),
                "better": better_,
                "worse": worse,
                "equivalent": equivalent,
                "undecided": undecided,
                "median": (own.abs() if one == other else own).median(),
            }
        )
    return found


def _kinds(contrasts: pd.DataFrame, side: str, random: set[str]) -> pd.Series:
    """Place in `KINDS` of the boundary of one side."""
    places = (
        contrasts[f"boundary_{side}"]
        .map({kind: i for i, kind in enumerate(KINDS)})
        .fillna(KINDS.index("unknown"))
        .astype(int)
    )
    return places.where(~contrasts[side].isin(random), KINDS.index(SCRATCH))
