"""What an open contrast can still show: the difference that its last look detects, and the seeds that a difference needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssl_transfer.study.statistics.decisions import Decision
from ssl_transfer.study.statistics.detectable import fewest
from ssl_transfer.study.statistics.power import detectable_difference
from ssl_transfer.study.statistics.power_components import FixedSide


@dataclass(frozen=True)
class Outlook:
    """What an open contrast can still show.

    Attributes:
        level: Level of the last planned look.
        next_look: Pretraining seeds at the next look; None: no look is left.
        last_look: Pretraining seeds at the last look.
        sd: Standard deviation of a pair's difference; unpaired: of a unit, pooled over both sides.
        detects: The smallest true difference that the last look detects with 80 % power, in units of the metric; where no look is
            left, with the units there are.
        effect: The smallest difference worth detecting; None: not stated.
        needed: The fewest pairs (unpaired: units per side) that detect `effect` at `level`; None: unknown, or too many to count.
    """

    level: float
    next_look: int | None
    last_look: int
    sd: float
    detects: float
    effect: float | None
    needed: int | None


def outlook(decision: Decision, effect: float | None) -> Outlook | None:
    """What an open contrast can still show, from the variance of its units so far.

    Power counts the last look alone, so it is a little more with the looks before it. Without pairs it is that of Welch's test
    with the standard deviation of each side.

    Args:
        decision: A contrast without a verdict.
        effect: The smallest difference worth detecting, in units of the metric; None: not stated.

    Returns:
        None with fewer than two units on a side, or where they do not vary.
    """
    table, paired = decision.units.table, decision.units.test == "paired"
    if paired:
        sides = [(table["a"] - table["b"]).to_numpy(float)]
    else:
        sides = [table.loc[table["side"] == side, "value"].to_numpy(float) for side in "ab"]
    sizes = [len(side) for side in sides]
    if not decision.planned_looks or min(sizes) < 2:
        return None
    sd = math.sqrt(float(np.average([side.var(ddof=1) for side in sides], weights=[n - 1 for n in sizes])))
    if not sd > 0 or decision.is_constant:
        return None
    last, level = decision.planned_looks[-1], decision.levels[-1]
    grows = decision.units.by_pretraining  # public weights have no more units at later looks
    left = len(decision.looks) < len(decision.planned_looks) and any(grows.values())
    ends = [last if left and grows[side] else size for side, size in zip("ab", sizes, strict=False)]
    sds = [float(side.std(ddof=1)) for side in sides]

    def detectable(*units: int) -> float:
        """In units of the metric, with so many pairs, or units on each side."""
        against = None if paired else FixedSide(units[1], sds[1])
        return detectable_difference(units[0], level, sds[0], against=against)

    return Outlook(
        level=level,
        next_look=decision.planned_looks[len(decision.looks)] if left else None,
        last_look=last,
        sd=sd,
        detects=detectable(*ends),
        effect=effect,
        needed=None if effect is None else fewest(lambda n: detectable(n, n), effect),
    )
