"""Levels of the looks at a growing study."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from support.command_line import ROOT

from ssl_transfer.errors import RunError
from ssl_transfer.study.declared import Spending
from ssl_transfer.study.statistics.sequential import holm_levels, nominal_levels

LOOKS = (4, 6, 8, 12, 16)


@pytest.mark.parametrize("gamma", [-4.0, -2.0, 0.0, 1.0])
def test_spending_starts_at_nothing_ends_at_alpha_and_grows(gamma):
    spent = [Spending(gamma=gamma).spent(share, 0.05) for share in np.linspace(0, 1, 11)]
    assert spent[0] == 0
    assert spent[-1] == pytest.approx(0.05)
    assert np.all(np.diff(spent) > 0)


def test_spending_is_the_formula_of_hwang_shih_and_decani():
    assert Spending(gamma=-2).spent(0.25, 0.05) == pytest.approx(0.05 * (1 - math.exp(0.5)) / (1 - math.exp(2)))


def test_one_look_has_all_of_alpha():
    assert nominal_levels(0.05, (6,)) == (0.05,)


def test_the_first_level_is_what_is_spent_by_then():
    assert nominal_levels(0.05, LOOKS)[0] == pytest.approx(Spending().spent(0.25, 0.05))


@pytest.mark.parametrize(
    ("alpha", "looks", "levels"),
    [  # from independent simulations of paired t-tests (the protocols' table), known to a few per cent
        (0.05, LOOKS, [0.0052, 0.0045, 0.0063, 0.0166, 0.0333]),
        (0.025, LOOKS, [0.0026, 0.0021, 0.0031, 0.0080, 0.0160]),
        (0.05, (4, 8, 12), [0.0075, 0.0155, 0.0354]),
    ],
)
def test_levels_equal_those_of_an_independent_simulation(alpha, looks, levels):
    assert nominal_levels(alpha, looks) == pytest.approx(levels, rel=0.06)


def test_the_table_of_the_documentation_has_these_levels():
    table = (ROOT / "docs/deciding.md").read_text().partition("| looks at |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert len(rows) == 5
    for looks, alpha, levels in rows:
        expected = nominal_levels(float(alpha), tuple(int(look) for look in looks.split(",")))
        assert [float(level) for level in levels.split(",")] == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("looks", [LOOKS, (3, 10), (4, 8, 12, 16, 24)])
def test_all_looks_together_reject_a_true_null_at_alpha(looks):
    studies = 200_000
    differences = np.random.default_rng(7).normal(size=(studies, looks[-1]))
    rejected = np.zeros(studies, bool)
    for look, level in zip(looks, nominal_levels(0.05, looks), strict=True):
        rejected |= stats.ttest_1samp(differences[:, :look], 0, axis=1).pvalue <= level
    assert rejected.mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / studies) + 0.0005)


def test_holm_gives_the_alpha_of_decided_contrasts_to_the_open_ones():
    assert holm_levels(0.05, 2, 0, LOOKS) == nominal_levels(0.025, LOOKS)
    assert holm_levels(0.05, 2, 1, LOOKS) == nominal_levels(0.05, LOOKS)


@pytest.mark.parametrize("looks", [(), (1, 4), (4, 4), (8, 4)])
def test_looks_that_do_not_ascend_are_refused(looks):
    with pytest.raises(RunError, match="expected ascending numbers of seeds"):
        nominal_levels(0.05, looks)
