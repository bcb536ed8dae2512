"""A contrast over targets: its average effect, how much it varies from target to target, and what to expect on another one.

A study compares two arms on several targets. Each target gives a difference with its standard error; the random-effects
model takes the true differences of the targets as a sample from a distribution with mean μ and standard deviation τ. The
summary is the estimate of μ, with the interval of Hartung, Knapp, Sidik and Jonkman, whose t distribution has k − 1
degrees of freedom and so says how little two or three targets can tell. The prediction interval is for the true
difference on a further target of the same kind.

Targets are summarised by the boundaries of both arms to them, because a contrast such as CT − photographs is expected to differ
between CT targets and X-ray targets. The targets of a study share their pretraining seeds, and with them a part of their errors
that no number of targets averages out: a summary generalises over targets, for these pretrainings.

References:
    DerSimonian and Laird 1986, https://doi.org/10.1016/0197-2456(86)90046-2; Viechtbauer 2005 (REML),
    https://doi.org/10.3102/10769986030003261; Knapp and Hartung 2003, https://doi.org/10.1002/sim.1482; Higgins, Thompson and
    Spiegelhalter 2009 (prediction), https://doi.org/10.1111/j.1467-985X.2008.00552.x.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics.corrections import ALPHA

FEWEST_PREDICTED = 3  # targets: with two, the prediction interval has no degrees of freedom
SETTING = ["protocol", "strategy", "noise", "noise_sigma", "metric", "a", "b"]
BOUNDARIES = ["boundary_a", "boundary_b"]
REFINEMENTS = 6  # each makes the grid of τ² sixteen times finer
EVERY = "all"  # boundary of a summary over all targets
EFFECT_COLUMNS = [*SETTING, *BOUNDARIES, "task", "fractions", "difference", "se", "ci_low", "ci_high"]
Method = Literal["reml", "dl"]


@dataclass(frozen=True)
class RandomEffects:
    """A random-effects summary of k effects.

    Attributes:
        k: Number of effects.
        estimate: Estimate of their mean μ.
        se: Its standard error by Hartung and Knapp, and at least that of the model with the estimated τ.
        ci_low, ci_high, p_value: By Student's t with k − 1 degrees of freedom.
        tau: Standard deviation of the true effects.
        q, q_p: Cochran's statistic of heterogeneity, and its p-value (χ², k − 1 degrees of freedom).
        i2: Share of the variance of the effects that is heterogeneity, max(0, (Q − k + 1) / Q).
        predicted_low, predicted_high: Interval for a further true effect (k − 2 degrees of freedom); NaN below three effects.
    """

    k: int
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p_value: float
    tau: float
    q: float
    q_p: float
    i2: float
    predicted_low: float
    predicted_high: float


SUMMARY_COLUMNS = [
    *SETTING,
    *BOUNDARIES,
    "targets",
    *RandomEffects.__dataclass_fields__,
    "without_low",
    "without_high",
    "influential",
]


def random_effects(
    effects: np.ndarray, errors: np.ndarray, *, method: Method = "reml", confidence: float = 0.95
) -> RandomEffects:
    """Summarise effects that vary around a common mean.

    Args:
        effects: Shape (k,).
        errors: Their standard errors, above 0, shape (k,).
        method: Of estimating τ²: restricted maximum likelihood, or DerSimonian and Laird's.
        confidence: Level of the interval and of the prediction interval.

    Returns:
        The summary. With one effect it is that effect, and all else is NaN: nothing is known of other targets.

    Raises:
        RunError: If there is no effect, or an error is not a positive number.
    """
    from scipy import special

    effects, errors = np.asarray(effects, float), np.asarray(errors, float)
    k = len(effects)
    if not k or effects.shape != errors.shape or not (np.isfinite(effects) & (errors > 0) & np.isfinite(errors)).all():
        raise RunError(
            f"random effects: found {effects.tolist()} with standard errors {errors.tolist()}; expected as many positive "
            "standard errors as effects, and at least one."
        )
    if k == 1:
        return RandomEffects(1, float(effects[0]), *[np.nan] * 10)
    q = _heterogeneity(effects, errors**2)
    variance = {"reml": _reml, "dl": _dersimonian_laird}[method](effects, errors**2)
    weights = 1 / (errors**2 + variance)
    mean = np.sum(weights * effects) / weights.sum()
    scale = np.sum(weights * (effects - mean) ** 2) / (k - 1)
    error = np.sqrt(max(scale, 1.0) / weights.sum())  # not below the model's own, as few effects may happen to agree
    reach = special.stdtrit(k - 1, (1 + confidence) / 2) * error
    expected = np.nan
    if k >= FEWEST_PREDICTED:
        expected = special.stdtrit(k - 2, (1 + confidence) / 2) * np.sqrt(variance + error**2)
    return RandomEffects(
        k,
        float(mean),
        float(error),
        float(mean - reach),
        float(mean + reach),
        float(2 * special.stdtr(k - 1, -abs(mean) / error)),
        float(np.sqrt(variance)),
        float(q),
        float(special.chdtrc(k - 1, q)),
        float(max(0.0, (q - k + 1) / q)) if q > 0 else 0.0,
        float(mean - expected),
        float(mean + expected),
    )


def _heterogeneity(effects: np.ndarray, variances: np.ndarray) -> float:
    """Cochran's Q."""
    weights = 1 / variances
    return float(np.sum(weights * (effects - np.sum(weights * effects) / weights.sum()) ** 2))


def _dersimonian_laird(effects: np.ndarray, variances: np.ndarray) -> float:
    """τ² by the method of moments."""
    weights = 1 / variances
    scale = weights.sum() - np.sum(weights**2) / weights.sum()
    return max(0.0, (_heterogeneity(effects, variances) - (len(effects) - 1)) / scale)


def _reml(effects: np.ndarray, variances: np.ndarray) -> float:
    """τ² by restricted maximum likelihood: the best of a grid, refined between its neighbours."""

    def loss(candidates: np.ndarray) -> np.ndarray:
        weights = 1 / (variances + candidates[:, None])
        total = weights.sum(1)
        rest = effects - (weights @ effects / total)[:, None]
        return np.log(total) - np.log(weights).sum(1) + (weights * rest**2).sum(1)

    grid = np.r_[0.0, np.geomspace(1e-6, 1.0, 61) * (np.ptp(effects) ** 2 + variances.min())]
    for _ in range(REFINEMENTS):
        best = int(np.argmin(loss(grid)))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 33)
    return float(grid[np.argmin(loss(grid))])


def standard_errors(contrasts: pd.DataFrame) -> np.ndarray:
    """The standard error of each difference, from its t statistic or, where that is 0, from its interval; NaN if unknown.

    Args:
        contrasts: `statistics.contrasts`: difference, t, df, ci_low and ci_high (at `confidence`, by default 95 %).
    """
    from scipy import special

    difference, t = contrasts["difference"].to_numpy(float), contrasts["t"].to_numpy(float)
    confidence = (
        contrasts["confidence"].to_numpy(float) if "confidence" in contrasts else np.full(len(contrasts), np.nan)
    )
    half = (contrasts["ci_high"] - contrasts["ci_low"]).to_numpy(float) / 2
    quantile = special.stdtrit(
        contrasts["df"].to_numpy(float), (1 + np.where(confidence > 0, confidence, 1 - ALPHA)) / 2
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(t) > 0, difference / t, half / quantile)


def target_effects(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The difference of every pair of arms on every target.

    Label fractions of a target are averaged. Their errors share the pretraining seeds, so the standard error is the mean
    of theirs, as if they were perfectly correlated. A pair has one direction on all targets, the one of most rows.

    Args:
        contrasts: `statistics.contrasts` at main metrics.

    Returns:
        `EFFECT_COLUMNS`; a row for each setting, pair and target, where the standard error is known. `fractions` is how many were
        averaged, and the interval is at 95 %.
    """
    table = contrasts.assign(se=standard_errors(contrasts))
    table = _in_one_direction(table[np.isfinite(table["se"]) & (table["se"] > 0)])
    keys = [*SETTING, *BOUNDARIES, "task"]
    groups = table.assign(reach=_reach(table)).groupby(keys, dropna=False, sort=False)
    effects = groups.agg(
        fractions=("difference", "size"), difference=("difference", "mean"), se=("se", "mean"), reach=("reach", "mean")
    ).reset_index()
    low, high = effects["difference"] - effects["reach"], effects["difference"] + effects["reach"]
    return effects.assign(ci_low=low, ci_high=high)[EFFECT_COLUMNS]


def _reach(table: pd.DataFrame) -> np.ndarray:
    """Half of the 95 % interval of each difference."""
    from scipy import special

    return special.stdtrit(table["df"].to_numpy(float), 1 - ALPHA / 2) * table["se"].to_numpy(float)


def _in_one_direction(table: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of a pair of arms as a − b everywhere, in the direction that most of its rows have."""
    directions = Counter(zip(table["a"], table["b"], strict=True))
    turned = np.array(
        [
            directions[b, a] > directions[a, b] or (directions[b, a] == directions[a, b] and b < a)
            for a, b in zip(table["a"], table["b"], strict=True)
        ],
        bool,
    )
    swapped = {"a": "b", "b": "a", "boundary_a": "boundary_b", "boundary_b": "boundary_a"}
    columns = {name: table[name].where(~turned, table[other]) for name, other in swapped.items()}
    return table.assign(**columns, difference=table["difference"].where(~turned, -table["difference"]))


def over_targets(effects: pd.DataFrame) -> pd.DataFrame:
    """Random-effects summary of every pair of arms over targets, by the boundaries of both arms to the targets.

    Args:
        effects: `target_effects`.

    Returns:
        `SUMMARY_COLUMNS`: a row for each setting, pair and pair of boundaries, and one over all targets (boundaries `all`) where
        there are several pairs of boundaries. `without_low` and `without_high` are the smallest and largest estimate with one
        target left out, and `influential` is the target whose absence changes the estimate most.
    """
    rows = []
    setting: Any
    boundaries: Any
    for setting, of_setting in effects.groupby(SETTING, dropna=False, sort=False):
        classes = list(of_setting.groupby(BOUNDARIES, dropna=False, sort=False))
        if len(classes) > 1:
            classes.append(((EVERY, EVERY), of_setting))
        for boundaries, targets in classes:
            summary = random_effects(targets["difference"].to_numpy(), targets["se"].to_numpy())
            rows.append(
                {
                    **dict(zip([*SETTING, *BOUNDARIES], [*setting, *boundaries], strict=True)),
                    "targets": ", ".join(targets["task"]),
                    **vars(summary),
                    **_leave_one_out(targets, summary.estimate),
                }
            )
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _leave_one_out(targets: pd.DataFrame, estimate: float) -> dict[str, Any]:
    """The range of the estimate with one target left out, and the target that moves it most."""
    if len(targets) < 2:
        return {"without_low": np.nan, "without_high": np.nan, "influential": ""}
    effects, errors = targets["difference"].to_numpy(), targets["se"].to_numpy()
    kept = ~np.eye(len(targets), dtype=bool)
    estimates = np.array([random_effects(effects[rows], errors[rows]).estimate for rows in kept])
    most = targets["task"].iloc[int(np.argmax(np.abs(estimates - estimate)))]
    return {"without_low": estimates.min(), "without_high": estimates.max(), "influential": most}
