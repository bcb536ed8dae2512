"""Power of the former design of a study against the present one, at equal cost.

    python benchmarks/study_power.py

Four arms (CT, cell lines, photographs, random initialisation) are probed on a CT target with few labels. The former design is
that of the first quickstart: four pretraining seeds, two evaluation seeds whose label subsets all pretraining seeds share,
Welch's test, and Holm's correction over all pairs of arms and three label fractions. The present one runs CT and photographs
look by look, with draws of their own in pairs, behind the gate. Standard deviations are those measured on the quickstart (probe
at 10 %), costs are minutes on two cores. "Equal cost" gives the former design as many seeds as the present one spends on average.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math

import numpy as np
import pandas as pd
from scipy import special

from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics import decide_many

ARMS = ("CT", "cell lines", "photographs", "scratch")
GAINS = (
    0.10,
    0.0,
)  # of cell lines and photographs over random initialisation; the gate is then easy, or as hard as the question
PRETRAINING, SUBSET, ARM_SUBSET, RESIDUAL = 0.016, 0.049, 0.016, 0.036
MINUTES_PER_SEED, MINUTES_PER_DRAW = 0.945, 0.0023  # a pretraining with its features; a probe
FRACTIONS, FORMER_DRAWS, FORMER_SEEDS = 3, 2, 4
LOOKS, DRAWS = (4, 6, 8, 12, 16), 8
DIFFERENCES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)


def former(difference: float, gain: float, seeds: int, studies: int, rng: np.random.Generator) -> float:
    """Share of studies of the former design that find CT better than photographs at the primary fraction."""
    means = np.array([gain + difference, gain, gain, 0.0])[:, None, None, None]
    shape = (len(ARMS), seeds, FRACTIONS, FORMER_DRAWS)
    value = (
        means
        + rng.normal(0, PRETRAINING, (studies, len(ARMS), seeds, 1, 1))
        + rng.normal(0, SUBSET, (studies, 1, 1, FRACTIONS, FORMER_DRAWS))
        + rng.normal(0, ARM_SUBSET, (studies, len(ARMS), 1, FRACTIONS, FORMER_DRAWS))
        + rng.normal(0, RESIDUAL, (studies, *shape))
    ).mean(-1)  # (studies, arms, seeds, fractions)
    mean, variance = value.mean(2), value.var(2, ddof=1) / seeds
    p_values, of_question = [], None
    for a, b in itertools.combinations(range(len(ARMS)), 2):
        error = variance[:, a] + variance[:, b]
        df = error**2 / ((variance[:, a] ** 2 + variance[:, b] ** 2) / (seeds - 1))
        t = (mean[:, a] - mean[:, b]) / np.sqrt(error)
        if (ARMS[a], ARMS[b]) == ("CT", "photographs"):
            of_question = sum(p.shape[1] for p in p_values)
            positive = t[:, 0] > 0
        p_values.append(2 * special.stdtr(df, -np.abs(t)))
    p = np.concatenate(p_values, axis=1)
    order = np.argsort(p, axis=1)
    corrected = np.maximum.accumulate(np.take_along_axis(p, order, 1) * np.arange(p.shape[1], 0, -1), axis=1)
    rank = np.argsort(order, axis=1)[:, of_question]
    return float(np.mean((corrected[np.arange(studies), rank] <= 0.05) & positive))


def present(difference: float, gain: float, studies: int, rng: np.random.Generator) -> tuple[float, float]:
    """Share of studies of the present design that find CT better than photographs, and their mean number of seeds."""
    names = ("CT", "photographs", "scratch")
    means = np.array([gain + difference, gain, 0.0])[:, None, None]
    own = math.hypot(ARM_SUBSET, RESIDUAL)  # with draws of their own, arm × subset is one more residual
    values = (
        means
        + rng.normal(0, PRETRAINING, (studies, 3, LOOKS[-1], 1))
        + rng.normal(0, SUBSET, (studies, 1, LOOKS[-1], DRAWS))
        + rng.normal(0, own, (studies, 3, LOOKS[-1], DRAWS))
    )
    levels = [range(studies), names, range(LOOKS[-1]), range(DRAWS)]
    index = pd.MultiIndex.from_product(levels, names=["study", "pretraining", "pretraining_seed", "seed"])
    frame = pd.DataFrame({"value": values.ravel()}, index=index).reset_index()
    frame = frame.assign(task="region", protocol="linear_probe", strategy=None, fraction=0.1, metric="accuracy")

    def contrast(b: str) -> DeclaredContrast:
        return DeclaredContrast({"pretraining": "CT"}, {"pretraining": b}, ("region",), "linear_probe", "accuracy")

    table = decide_many(frame, contrast("scratch"), [contrast("photographs")], looks=LOOKS)
    primary = table[table["family"] == "primary"]
    return float((primary["verdict"] == "better").mean()), float(primary["planned"].mean())


def table(gain: float, studies: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Print a row per difference, and return them."""
    each_former = len(ARMS) * (MINUTES_PER_SEED + FRACTIONS * FORMER_DRAWS * MINUTES_PER_DRAW)
    each_present = 2 * (MINUTES_PER_SEED + DRAWS * MINUTES_PER_DRAW)
    print(f"cell lines and photographs gain {gain:g} over random initialisation")
    print("difference   former, 4 seeds   former at equal cost   present   mean seeds   minutes")
    rows: dict[str, dict[str, float]] = {}
    for difference in DIFFERENCES:
        power, seeds = present(difference, gain, studies, rng)
        equal = max(2, round(seeds * each_present / each_former))
        row = {
            "former": former(difference, gain, FORMER_SEEDS, studies, rng),
            "former_at_equal_cost": former(difference, gain, equal, studies, rng),
            "former_seeds": equal,
            "present": power,
            "mean_seeds": round(seeds, 2),
            "minutes": round(seeds * each_present, 1),
        }
        rows[f"{difference:.2f}"] = row
        before = f"{row['former']:15.3f}   {row['former_at_equal_cost']:9.3f} ({equal:2d} seeds)"
        print(f"{difference:10.2f}   {before}   {power:7.3f}   {seeds:10.1f}   {row['minutes']:7.1f}")
    return rows


def main() -> None:
    """Print a table of powers for each gain, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies per cell")
    studies, rng = parser.parse_args().studies, np.random.default_rng(16)
    answer = {f"gain {gain:g}": table(gain, studies, rng) for gain in GAINS}
    print(json.dumps({"study_power": answer, "studies": studies}))


if __name__ == "__main__":
    main()
