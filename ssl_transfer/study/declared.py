"""What a study declares before it sees results: its contrasts, and how alpha is shared among looks. Read without pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Expected = Literal["better", "worse", "equivalent", "not better", "not worse"]
Stated = float | Mapping[str, float] | None  # for all metrics, or by metric; None: not stated
NO_NOISE = "none"
CELL = ["protocol", "task", "strategy", "fraction", "noise", "noise_sigma", "metric"]  # compared within, never across


def of_metric(stated: Stated, metric: str) -> float | None:
    """What is stated for a metric, such as a margin; None: nothing."""
    return stated.get(metric) if isinstance(stated, Mapping) else stated


@dataclass(frozen=True)
class DeclaredContrast:
    """A contrast that a study declares before it sees results: side a against side b, over some targets and fractions.

    Attributes:
        a: Columns of the tidy frame and their value on side a, such as `{"pretraining": "CT"}`.
        b: The same columns and their value on side b.
        tasks: Targets that are averaged.
        protocol: Protocol of all runs.
        metric: Metric of all runs.
        fractions: Label fractions that are averaged; None: all.
        on: Further columns and their values, such as a strategy; a column with several values is averaged.
        noise: Noise of the runs, `none` for runs without.
        noise_sigma: Its sigma; None: any.
        claim: The claim of the literature that it tests, in words; None: none.
        published: Where it was published, and the effect there.
        expect: What side a is by this claim; None: not stated.
    """

    a: Mapping[str, str]
    b: Mapping[str, str]
    tasks: tuple[str, ...]
    protocol: str
    metric: str
    fractions: tuple[float, ...] | None = None
    on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    noise: str = NO_NOISE
    noise_sigma: float | None = None
    claim: str | None = None
    published: str | None = None
    expect: Expected | None = None

    @property
    def name_a(self) -> str:
        """Side a in words: its arm, its strategy, or both."""
        return " · ".join(self.a.values())

    @property
    def name_b(self) -> str:
        """Side b in words."""
        return " · ".join(self.b.values())

    @property
    def pretrainings(self) -> tuple[str, ...] | None:
        """The pretrainings whose runs it compares; None: all."""
        named = [side["pretraining"] for side in (self.a, self.b) if "pretraining" in side]
        return tuple(named) or self.on.get("pretraining")

    def runs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of a complete frame that the contrast is about, of both sides and others."""
        keep = np.asarray(frame["protocol"] == self.protocol) & np.asarray(frame["metric"] == self.metric)
        keep &= np.asarray(frame["noise"] == self.noise) & np.asarray(frame["task"].isin(self.tasks))
        if self.noise_sigma is not None:
            keep &= np.isclose(frame["noise_sigma"], self.noise_sigma)
        if self.fractions is not None:
            keep &= np.isclose(frame["fraction"].to_numpy(float)[:, None], list(self.fractions)).any(1)
        for column, values in self.on.items():
            keep &= np.asarray(frame[column].isin(values))
        return frame[keep]


@dataclass(frozen=True)
class Spending:
    """Alpha that the looks up to a share of all seeds may spend: α · (1 − e^(−γ·share)) / (1 − e^(−γ)).

    Attributes:
        kind: `hsd`, the family of Hwang, Shih and DeCani.
        gamma: Below 0 little is spent early: −4 is close to O'Brien and Fleming's boundaries, 1 to Pocock's.

    References:
        Hwang, Shih and DeCani 1990, https://doi.org/10.1002/sim.4780091207.
    """

    kind: str = "hsd"
    gamma: float = -2.0

    def spent(self, share: float, alpha: float) -> float:
        """Alpha spent once a share of all seeds (0 to 1) is there."""
        if self.gamma == 0:
            return alpha * share
        return alpha * math.expm1(-self.gamma * share) / math.expm1(-self.gamma)
