"""Section "Mean ranks": how the pretrainings rank over targets, with a critical-difference diagram for each protocol.

Ranks put targets of different metrics on one scale. They need at least three targets that all pretrainings were evaluated on.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.palette import INK
from ssl_transfer.study.report.drawing import STYLE, Looks, grid
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, render
from ssl_transfer.study.report.wording import joined, listed, noisy, number, p_value, words
from ssl_transfer.study.statistics import MeanRanks, rank_table, ranks_over_targets

TITLE = "Mean ranks"
CAPTION = (
    "{where}: mean rank over {targets} targets (1 is the best; small points: single targets). Bars on the right join "
    "pretrainings whose mean ranks differ by less than the critical difference (CD, Nemenyi’s test at 5 %)."
)
TEMPLATE = """
<p class="quiet">On each target the pretrainings are ranked by their main metric, 1 being the best. Friedman’s test (by
permutation within targets) asks whether mean ranks differ more than by chance; two pretrainings differ if their mean ranks are
further apart than the critical difference. Ranks ignore the size of a difference and the number of seeds behind it.</p>
<ul>
{% for sentence in sentences %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{{ drawn(figures) }}
"""


def section(evidence: Evidence) -> Section | None:
    """A sentence and a diagram per protocol and strategy; None with fewer than three targets or pretrainings."""
    ranked = list(ranks_over_targets(evidence.main_results)) if len(evidence.main_results) else []
    if not ranked:
        return None
    figures, sentences = [], []
    for position, (setting, ranks, left_out) in enumerate(ranked):
        where = _setting(setting)
        sentences.append(summary_sentence(where, ranks, left_out))
        caption = CAPTION.format(where=where, targets=len(ranks.ranks))
        figure = critical_difference_diagram(ranks, evidence.looks)
        figures.append(Drawing(f"ranks_{position}", figure, caption[0].upper() + caption[1:], where, len(ranked) > 1))
    html = render(evidence, TEMPLATE, sentences=sentences, figures=figures)
    table = pd.concat([rank_table(*each) for each in ranked], ignore_index=True)
    return Section(title=TITLE, html=html, tables={"ranks": table}, figures=figures)


def _setting(setting: dict[str, Any]) -> str:
    noise = noisy(setting["noise"], setting["noise_sigma"])
    return joined(words(setting["protocol"]), words(setting["strategy"]), noise)


def summary_sentence(where: str, ranks: MeanRanks, left_out: list[str]) -> str:
    """What the ranks show: whether they differ, who is first, and which pretrainings are no worse.

    Args:
        where: The setting, in words.
        ranks: As `statistics.mean_ranks` returns them.
        left_out: Pretrainings that lack a target.
    """
    means, targets = ranks.means, len(ranks.ranks)
    p = p_value(ranks.p_value)
    text = f"{where}: over {targets} targets, Friedman’s test has p {'' if '<' in p else '= '}{p}"
    first, others = means.index[0], means.index[1:]
    worse = [arm for arm in others if means[arm] - means[first] > ranks.critical_difference]
    text += f"; {first} has the best mean rank ({number(means[first])})"
    if worse:
        text += f" and ranks significantly better than {listed(worse, most=6)}."
    elif not ranks.can_differ:
        text += f"; with {targets} targets no difference of mean ranks can be significant."
    else:
        text += ", and no other pretraining ranks significantly worse."
    return text + (f" Left out, for want of a target: {listed(left_out, most=6)}." if left_out else "")


def critical_difference_diagram(ranks: MeanRanks, looks: Looks) -> Figure:
    """Mean ranks of arms below each other, the best on top, with bars that join those that do not differ.

    Args:
        ranks: As `statistics.mean_ranks` returns them.
        looks: Colour and marker of each arm.
    """
    means, arms = ranks.means, list(ranks.means.index)
    with matplotlib.rc_context(STYLE):
        figure, (ax,) = grid(1, 1, height=0.9 + 0.3 * len(arms))
        for y, arm in enumerate(arms):
            color, marker = looks[arm]
            of_arm = ranks.ranks[arm].to_numpy()
            jitter = np.linspace(-0.2, 0.2, len(of_arm))
            ax.scatter(of_arm, y + jitter, color=color, marker=marker, s=13, alpha=0.45, linewidths=0)
            ax.plot(means[arm], y, color=color, marker=marker, markersize=8, linestyle="none")
        for position, (first, last) in enumerate(ranks.groups):
            x = len(arms) + 0.35 + 0.2 * position
            ax.plot([x, x], [first - 0.2, last + 0.2], color=INK, linewidth=3.2, solid_capstyle="round")
        end = 1 + min(ranks.critical_difference, len(arms) - 1 + 0.2 * len(ranks.groups))
        ax.plot([1, end], [-0.9, -0.9], color=INK, linewidth=1.6, marker="|", markersize=7)
        ax.text((1 + end) / 2, -1.05, f"CD {number(ranks.critical_difference)}", ha="center", va="bottom", fontsize=8)
        ax.set_xlim(0.8, len(arms) + 0.55 + 0.2 * max(len(ranks.groups), 1))
        ax.set_ylim(len(arms) - 0.5, -1.6)
        ax.set_xticks(range(1, len(arms) + 1))
        ax.set_yticks(range(len(arms)), arms)
        ax.set_xlabel("rank (1 is the best)")
        ax.grid(axis="y", visible=False)
    return figure
