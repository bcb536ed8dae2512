"""Survival: the proportional hazards model of Cox with a ridge penalty, and the concordance of risks with survival times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True, eq=False)
class ScoredTimes:
    """Survival of N cases and their predicted risks under R sets of weights.

    Attributes:
        time: Time of the event, or of the end of the observation, (N,).
        event: Whether the event was observed; otherwise the case is censored. Bool (N,).
        risk: Predicted log hazard, up to a constant: the higher, the earlier the event is expected; (N,).
        weights: Weights of the cases, (N, R).
    """

    time: np.ndarray
    event: np.ndarray
    risk: np.ndarray
    weights: np.ndarray


def c_index(scored: ScoredTimes) -> np.ndarray:
    """Harrell's concordance index, (R,): share of the comparable pairs in which the case of higher risk has its event first.

    A pair is comparable if the earlier of the two times is an event; of equal times, if exactly one is. Equal risks count half.
    NaN without a comparable pair.

    Cases are ranked so that an event is compared with all cases of higher rank. Two ranks first differ in one bit, which makes
    them the two halves of a block of ranks. So the pairs of every bit are counted by sums of weights over the upper halves, in
    order of risk, and N cases cost O(N log² N + N log N · R).

    Source:
        Harrell et al. 1996, doi 10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4.
    """
    time, event, risk, weights = scored.time, scored.event, scored.risk, scored.weights
    rank = 2 * np.unique(time, return_inverse=True)[1] + ~event  # of equal times, events are before censored cases
    risk_code = np.unique(risk, return_inverse=True)[1]
    concordant, comparable = np.zeros((2, weights.shape[1]))
    for bit in range(int(rank.max(initial=0)).bit_length()):
        is_upper = ((rank >> bit) & 1).astype(bool)
        block = (rank >> (bit + 1)) * len(time)
        events, upper = np.flatnonzero(event & ~is_upper), np.flatnonzero(is_upper)
        key = block + risk_code
        upper = upper[np.argsort(key[upper])]
        sums = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(weights[upper], 0)])
        first, last = (np.searchsorted(key[upper], block[events] + end) for end in (0, len(time)))
        lower, upto = (np.searchsorted(key[upper], key[events], side) for side in ("left", "right"))
        own = weights[events]
        comparable += np.einsum("er,er->r", own, sums[last] - sums[first])
        concordant += np.einsum("er,er->r", own, (sums[lower] + sums[upto]) / 2 - sums[first])
    return np.divide(concordant, comparable, out=np.full_like(concordant, np.nan), where=comparable > 0)


def fit_cox(
    features: np.ndarray, time: np.ndarray, event: np.ndarray, strengths: Sequence[float]
) -> list[tuple[np.ndarray, bool]]:
    """Fit Cox models, C · (−log partial likelihood) + ½ ‖β‖², one for every C. Ties of event times are treated as Efron did.

    Args:
        features: Centred features, float64 (N, D).
        time: Time of the event, or of the end of the observation, (N,).
        event: Whether the event was observed, bool (N,); at least one.
        strengths: Values of C, ascending; each fit starts from the one before.

    Returns:
        Log hazard ratios β per unit of a feature, float64 (D,), and whether the optimum was reached, for each C.

    Source:
        Cox 1972; Efron 1977, doi 10.1080/01621459.1977.10480613; ridge: Verweij & Van Houwelingen 1994, doi
        10.1002/sim.4780132307.
    """
    likelihood = _PartialLikelihood.of(time, event)
    basis, scale, rotation = np.linalg.svd(features, full_matrices=False)  # the penalty does not depend on the axes
    kept = scale > scale[0] * 1e-10 if len(scale) else np.zeros(0, bool)
    inputs, rotation = basis[:, kept] * scale[kept], rotation[kept]
    fitted, start = [], np.zeros(inputs.shape[1])

    def objective(coefficients: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        loss, slopes = likelihood.loss(inputs @ coefficients)
        return (strength * loss + float(coefficients @ coefficients) / 2, strength * (slopes @ inputs) + coefficients)

    for strength in strengths:
        options = {"maxiter": 5000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9 * max(1.0, strength)}
        result = minimize(objective, start, args=(strength,), jac=True, method="L-BFGS-B", options=options)
        start = result.x
        residual = np.abs(result.jac).max(initial=0.0) / max(1.0, strength)
        fitted.append((rotation.T @ result.x, bool(residual < 1e-4)))
    return fitted


@dataclass(frozen=True, eq=False)
class _PartialLikelihood:
    """Efron's partial likelihood of N cases; what depends on times and events alone.

    Attributes:
        order: Cases by descending time, (N,).
        at_risk: Number of cases in that order that are at risk at each event, (E,): those whose time is not before it.
        tie: The tied event times of each event, numbers 0 to T − 1, (E,).
        share: Of the events of its tie, the share that precedes each event, (E,).
        events: The cases of the events, (E,).
        entered: For each case, the number of events at or before its time, (N,).
    """

    order: np.ndarray
    at_risk: np.ndarray
    tie: np.ndarray
    share: np.ndarray
    events: np.ndarray
    entered: np.ndarray

    @classmethod
    def of(cls, time: np.ndarray, event: np.ndarray) -> _PartialLikelihood:
        """Sort the cases."""
        order = np.argsort(-time, kind="stable")
        events = np.flatnonzero(event)
        events = events[np.argsort(time[events], kind="stable")]  # ascending
        times = time[events]
        _, tie, counts = np.unique(times, return_inverse=True, return_counts=True)
        before = np.arange(len(events)) - np.searchsorted(times, times, "left")
        at_risk = np.searchsorted(-time[order], -times, "right")
        return cls(order, at_risk, tie, before / counts[tie], events, np.searchsorted(times, time, "right"))

    def loss(self, log_hazards: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative log partial likelihood, and its derivative by the log hazard of each case, (N,)."""
        of_events = log_hazards[self.events]
        at_risk = np.logaddexp.accumulate(log_hazards[self.order])[
            self.at_risk - 1
        ]  # log of sums of hazards: none overflows
        tied = np.bincount(self.tie, np.exp(of_events - at_risk))[self.tie]  # as a share of the hazards at risk
        left = at_risk + np.log1p(-self.share * tied)
        entered = np.concatenate([[-np.inf], np.logaddexp.accumulate(-left)])[self.entered]
        slopes = np.exp(log_hazards + entered)
        within = np.bincount(self.tie, self.share * np.exp(at_risk - left))[self.tie]
        slopes[self.events] -= np.exp(of_events - at_risk) * within + 1
        return float(left.sum() - of_events.sum()), slopes
