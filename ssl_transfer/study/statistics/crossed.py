"""Seeds and patients together: would the difference of two arms hold for other pretraining seeds *and* other patients?

Every pretraining seed is tested on the same patients, so the two sources of variance are crossed, not nested. Radiology has the
same design where several readers read the same cases, and its standard analysis is that of Obuchowski and Rockette. Let D_s be
the difference of the metric between both arms at pretraining seed s, on all patients. Then

    variance of the mean difference = var(D_s) / n + C

where var is the sample variance over the n seeds (it includes what patients do to each seed apart), and C is the
covariance of D_s and D_t, s ≠ t, over patients: what the choice of patients does to all seeds alike. C is estimated from
a bootstrap over patients that uses the same draws for all seeds and both arms; it is set to 0 where its estimate is
negative. The interval is Student's t with Satterthwaite's degrees of freedom: close to n − 1 where seeds dominate, close
to the number of patients less 1 where patients do. These are estimated: two or three seeds that happen to agree pass for seeds
that do not matter. So the interval is never narrower, and the p-value never smaller, than over seeds alone, by Student's t with
the degrees of freedom of the seeds. (Without this, intervals of high confidence miss the truth several
times too often with two to four seeds.)

For a mean over cases, this is the analysis of variance of seeds × patients without replication. A percentile interval of
the pigeonhole bootstrap, which draws seeds as well as patients, is not used: with four seeds it is too narrow, as every
bootstrap of four values is: of 95 % intervals 87 to 95 % cover the truth.

References:
    Obuchowski and Rockette 1995, https://doi.org/10.1080/03610919508813243; degrees of freedom: Hillis 2007,
    https://doi.org/10.1002/sim.2532, here with a term for the number of patients. Pigeonhole bootstrap: Owen 2007,
    https://doi.org/10.1214/07-AOAS122.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_transfer.measures.resampling import percentile_interval

ROUNDING = 1e-12  # differences below this share of the values are of rounding
FEWEST_DEFINED = 0.5  # share of the resamples in which the metric must be defined


@dataclass(frozen=True, eq=False)
class ResampledUnits:
    """An arm's independent values (pretraining seeds, as a rule) and what they become under resampled patients.

    Attributes:
        value: The metric on all patients, shape (n,).
        drawn: The metric in each resample of the patients, shape (n, R); the same resamples for all units and arms.
    """

    value: np.ndarray
    drawn: np.ndarray


@dataclass(frozen=True)
class CrossedInterval:
    """The difference a − b, over patients alone and over seeds and patients.

    Attributes:
        difference: Mean of a less mean of b.
        patients_low, patients_high: Percentile interval over resampled patients, for these trained models.
        p_false_patients: `probability_of_false_outperformance` for these trained models.
        se_seeds, se_patients: Square roots of both terms of the variance; see the text of this module.
        df: Satterthwaite's degrees of freedom.
        ci_low, ci_high: Interval over seeds and patients, at least as wide as over seeds alone.
        p_value: Two-sided, of the t-test over seeds and patients, at least that over seeds alone.
        p_false: `probability_of_false_outperformance` over seeds and patients: half of the p-value.
    """

    difference: float
    patients_low: float
    patients_high: float
    p_false_patients: float
    se_seeds: float
    se_patients: float
    df: float
    ci_low: float
    ci_high: float
    p_value: float
    p_false: float


def crossed_interval(
    a: ResampledUnits, b: ResampledUnits, patients: int, *, paired: bool, confidence: float = 0.95
) -> CrossedInterval:
    """Compare two arms over seeds and patients.

    Without two units on each side, or if all seeds give the same, the variance between seeds is unknown: what is over
    seeds is NaN then, and what is over patients holds for these trained models. With fewer than two patients, or where
    the metric is undefined in more than half of the resamples, everything but the difference is NaN.

    Simulated (2,000 studies each of 40 patients and 4, 8 or 12 seeds; standard deviations of seeds, patients and their
    interaction from 1 : 0 : 0 to 1 : 8 : 8), a 95 % interval covers the truth in 94 to 96 %, paired or not. The interval over
    patients alone covers it in 0 to 93 %.

    Args:
        a: Units of the first arm.
        b: Units of the second arm; `paired`: in the same order, of the same seeds.
        patients: Number of patients that were resampled.
        paired: Whether unit i of both arms has the same seed.
        confidence: Level of both intervals.
    """
    difference = float(a.value.mean() - b.value.mean())
    drawn = a.drawn.mean(0) - b.drawn.mean(0)
    defined = np.isfinite(drawn)
    if patients < 2 or defined.mean() < FEWEST_DEFINED:
        return CrossedInterval(difference, *[np.nan] * 10)
    over_a, over_b, unbiased = a.drawn[:, defined], b.drawn[:, defined], patients / (patients - 1)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    rounding = (ROUNDING * max(np.abs(a.value).max(), np.abs(b.value).max())) ** 2
    of_these_models = _above(unbiased * float(drawn[defined].var()), rounding)
    p_false_patients = probability_of_false_outperformance(difference, np.sqrt(of_these_models), patients - 1)
    if paired:
        seeds = [_Term.of(a.value - b.value, rounding)]
        shared = _between_units(over_a - over_b)
    else:
        seeds = [_Term.of(a.value, rounding), _Term.of(b.value, rounding)]
        of_both = float(
            np.mean((over_a - over_a.mean(1, keepdims=True)).mean(0) * (over_b - over_b.mean(1, keepdims=True)).mean(0))
        )
        shared = _between_units(over_a) + _between_units(over_b) - 2 * of_both
    terms = [*seeds, _Term(_above(unbiased * shared, rounding), patients - 1)]
    of_seeds = sum(term.variance for term in seeds)
    variance = sum(term.variance for term in terms) if of_seeds > 0 else np.nan
    df = _satterthwaite(terms) if variance > 0 else np.nan
    together = _t_test(difference, variance, df, confidence)
    alone = _t_test(difference, of_seeds, _satterthwaite(seeds), confidence)
    reach, p = (max(pair) for pair in zip(together, alone, strict=True))
    return CrossedInterval(
        difference,
        *percentile_interval(drawn[defined], tails),
        p_false_patients,
        float(np.sqrt(of_seeds)),
        float(np.sqrt(terms[-1].variance)),
        df,
        difference - reach,
        difference + reach,
        p,
        p / 2,
    )


def probability_of_false_outperformance(difference: float, error: float, df: float) -> float:
    """The probability that the arm with the higher observed mean is not truly better: T_df(−|difference| / error).

    T_df is the distribution function of Student's t. This is the posterior probability under a flat (Jeffreys) prior and a normal
    model. Christodoulou et al. give it for the Dice of two models over n test cases, where error² is the variance of the
    differences over n and df is n − 1; here the error is the one that the caller has estimated, over patients alone or
    over seeds and patients. It is at most ½, and half of the p-value of the two-sided test: a small value supports the claim
    of outperformance, and 1 less it is no probability that the difference is large enough to matter.

    Args:
        difference: Observed difference of the means.
        error: Its standard error.
        df: Degrees of freedom of the error.

    Returns:
        NaN where the error is 0 or unknown.

    Source:
        Christodoulou et al. 2025, https://arxiv.org/abs/2505.04720 (Claims Reloaded), segmentation.

    Example:
        >>> round(probability_of_false_outperformance(0.02, 0.01, 11), 3)
        0.035
    """
    from scipy import special

    if not error > 0:
        return np.nan
    return float(special.stdtr(df, -abs(difference) / error))


@dataclass(frozen=True)
class _Term:
    """A term of a variance and its degrees of freedom."""

    variance: float
    df: int

    @classmethod
    def of(cls, values: np.ndarray, rounding: float) -> _Term:
        """The variance of the mean of independent values; NaN for a single one, 0 if they are equal up to rounding."""
        n = len(values)
        return cls(_above(float(values.var(ddof=1)), rounding) / n if n > 1 else np.nan, n - 1)


def _above(variance: float, rounding: float) -> float:
    """A variance; 0 if it is negative or of rounding alone."""
    return variance if variance > rounding else 0.0


def _between_units(drawn: np.ndarray) -> float:
    """Covariance over resamples between two different units, averaged over all pairs; the variance of a single unit. (n, R)."""
    n = len(drawn)
    of_mean, of_each = float(drawn.mean(0).var()), float(drawn.var(1).mean())
    return of_mean if n == 1 else (n * of_mean - of_each) / (n - 1)


def _satterthwaite(terms: list[_Term]) -> float:
    """Degrees of freedom of a sum of variances; NaN where one is unknown."""
    variance = sum(term.variance for term in terms)
    if not variance > 0:
        return np.nan
    return float(variance**2 / sum(term.variance**2 / max(term.df, 1) for term in terms))


def _t_test(difference: float, variance: float, df: float, confidence: float) -> tuple[float, float]:
    """Half of the interval, and the two-sided p-value; NaN without a variance."""
    from scipy import special

    if not variance > 0:
        return np.nan, np.nan
    error = float(np.sqrt(variance))
    reach = float(special.stdtrit(df, (1 + confidence) / 2)) * error
    return reach, float(2 * special.stdtr(df, -abs(difference) / error))
