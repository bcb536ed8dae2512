"""Cox's model against statsmodels, the concordance index against all pairs one by one, and both against lifelines' numbers."""

import numpy as np
import pytest
from statsmodels.duration.hazard_regression import PHReg

from ssl_transfer.measures.survival import ScoredTimes, c_index, fit_cox

# Computed once by lifelines 0.30.3, which cannot be installed beside pandas 3: CoxPHFitter(penalizer=1 / (C · n)) at C = 0.5,
# and concordance_index of each feature, of `cohort(7, cases=30, features=2, coarse=True)`.
LIFELINES = ([1.0590732914820915, 0.11311100893770493], [0.77734375, 0.44921875])


def cohort(seed, cases=150, features=4, coarse=False):
    """Standardised features, times (tied where coarse) and events; the first feature raises the hazard."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(cases, features))
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    time, end = draw.exponential(np.exp(-x[:, 0])), draw.exponential(1.5, cases)
    event, time = time <= end, np.minimum(time, end)
    return x, np.ceil(time * 4) if coarse else time, event


def concordance(time, risk, event):
    """Harrell's definition, pair by pair."""
    won, pairs = 0.0, 0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if time[i] < time[j] or (time[i] == time[j] and not event[j]):
                pairs += 1
                won += (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
    return won / pairs


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
def test_the_concordance_of_a_resample_is_that_of_all_pairs_of_its_copies(coarse):
    x, time, event = cohort(0, cases=50, coarse=coarse)
    risk = np.round(x[:, 0] + x[:, 1], 1 if coarse else 9)
    weights = np.random.default_rng(1).poisson(1.0, (len(time), 6)).astype(float)
    rows = [np.repeat(np.arange(len(time)), drawn.astype(int)) for drawn in weights.T]
    expected = [concordance(time[at], risk[at], event[at]) for at in rows]
    assert c_index(ScoredTimes(time, event, risk, weights)) == pytest.approx(expected, abs=1e-9)


def test_without_an_event_no_pair_can_be_compared():
    assert np.isnan(c_index(ScoredTimes(np.arange(4.0), np.zeros(4, bool), np.arange(4.0), np.ones((4, 2))))).all()


def all_pairs(scored):
    """The weighted concordance from a matrix of all pairs."""
    time, event, risk, weights = scored.time, scored.event, scored.risk, scored.weights
    comparable = event[:, None] & ((time > time[:, None]) | ((time == time[:, None]) & ~event))
    won = comparable * ((risk < risk[:, None]) + 0.5 * (risk == risk[:, None]))
    return (weights * (won @ weights)).sum(0) / (weights * (comparable @ weights)).sum(0)


@pytest.mark.parametrize("cases", [2, 3, 64, 1500])
@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
def test_sorted_sums_give_the_concordance_of_all_pairs(cases, coarse):
    draw = np.random.default_rng(cases)
    time, event, risk = draw.exponential(size=cases), draw.random(cases) < 0.6, draw.normal(size=cases)
    time, risk = (np.round(time, 1), np.round(risk, 1)) if coarse else (time, risk)
    event[np.argmin(time)] = True  # a pair can be compared
    weights = draw.poisson(1.0, (cases, 5)) * draw.random((cases, 5)) + 1e-3
    scored = ScoredTimes(time, event, risk, weights)
    assert c_index(scored) == pytest.approx(all_pairs(scored), abs=1e-12)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("strength", [0.01, 1.0, 1e6])
def test_the_slope_of_the_likelihood_at_the_optimum_is_that_of_the_penalty(strength, coarse):
    """C · ∂ log likelihood / ∂β = β, with the slope of statsmodels' likelihood, ties as Efron treated them."""
    x, time, event = cohort(3, coarse=coarse)
    ((found, converged),) = fit_cox(x, time, event, [strength])
    slope = PHReg(time, x, status=event.astype(int), ties="efron").score(found)
    assert converged and slope == pytest.approx(found / strength, abs=1e-5 * max(1, 1 / strength))


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
def test_with_hardly_any_penalty_the_hazard_ratios_are_statsmodels_s(coarse):
    x, time, event = cohort(4, coarse=coarse)
    expected = PHReg(time, x, status=event.astype(int), ties="efron").fit().params
    ((found, converged),) = fit_cox(x, time, event, [1e6])
    assert converged and found == pytest.approx(expected, abs=1e-5)


def test_numbers_are_those_of_lifelines():
    x, time, event = cohort(7, cases=30, features=2, coarse=True)
    ((found, _),) = fit_cox(x, time, event, [0.5])
    assert found == pytest.approx(LIFELINES[0], abs=1e-7)
    concordances = [c_index(ScoredTimes(time, event, x[:, column], np.ones((30, 1))))[0] for column in (0, 1)]
    assert concordances == pytest.approx(LIFELINES[1], abs=1e-9)


def test_more_features_than_cases_have_one_optimum_from_any_start():
    x, time, event = cohort(5, cases=40, features=200)
    (_, alone), (strong, _) = fit_cox(x, time, event, [1e-3, 1.0])[1], fit_cox(x, time, event, [1.0])[0]
    path = fit_cox(x, time, event, [1e-3, 1.0])[1][0]
    assert alone and path == pytest.approx(strong, abs=1e-6)


def test_risks_far_apart_do_not_overflow():
    x, time, event = cohort(6)
    ((found, _),) = fit_cox(1000 * x, time, event, [1.0])
    assert np.isfinite(found).all()
