"""Decisions as rows of the table that also has all pairs of pretrainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.decisions import Decision
from ssl_transfer.study.statistics.tables import CONTRAST_COLUMNS
from ssl_transfer.study.statistics.two_samples import Samples, differences, hedges_g, paired_hedges_g

LOOK_COLUMNS = ["n_a", "n_b", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "t", "df", "p_value", "p_tost"]


def decision_rows(decisions: Sequence[Decision], boundaries: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Decisions as rows of `CONTRAST_COLUMNS`, for the table that also has all pairs of pretrainings.

    Several targets are joined by ` + `; several fractions leave that column empty. `p_holm` is the p-value in units in which
    .05 decides: p · .05 / level.

    Args:
        decisions: From `decide`; those without a look have no row.
        boundaries: (pretraining, task) -> boundary.
    """
    rows = [_row(decision, boundaries) for decision in decisions if decision.look is not None]
    return pd.DataFrame(rows, columns=CONTRAST_COLUMNS)


def _row(decision: Decision, boundaries: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    contrast, look = decision.contrast, decision.look
    assert look is not None and decision.at is not None
    sides = {"a": contrast.a, "b": contrast.b}
    strategies = contrast.on.get("strategy", ())
    a, b = decision.units_at[decision.at].values()
    if decision.units.test == "paired":
        pairs = differences(a, b, np.zeros(len(a), int), 1)[0]
        effect = vars(paired_hedges_g(Samples.of(a), Samples.of(b), pairs, look.confidence))
    else:
        effect = vars(hedges_g(a, b, look.confidence))
    row: dict[str, Any] = {
        "protocol": contrast.protocol,
        "task": " + ".join(contrast.tasks),
        "strategy": strategies[0] if len(strategies) == 1 else "",
        "fraction": contrast.fractions[0] if contrast.fractions and len(contrast.fractions) == 1 else np.nan,
        "noise": contrast.noise,
        "noise_sigma": contrast.noise_sigma or 0.0,
        "metric": contrast.metric,
        "a": contrast.name_a,
        "b": contrast.name_b,
        "unit": decision.units.unit,
        **{name: getattr(look, name) for name in LOOK_COLUMNS},
        "p_holm": min(1.0, look.p_value * ALPHA / look.level) if np.isfinite(look.p_value) else np.nan,
        "hedges_g": effect["g"],
        "g_low": effect["ci_low"],
        "g_high": effect["ci_high"],
        "verdict": decision.verdict,
        "test": decision.units.test,
        "family": decision.family,
        "level": look.decides_at,
        "confidence": look.confidence,
        "holds_for": decision.holds_for,
    }
    for side, columns in sides.items():
        of_side = {boundaries.get((columns.get("pretraining", ""), task), "") for task in contrast.tasks}
        row[f"boundary_{side}"] = of_side.pop() if len(of_side) == 1 else ""
    return row
