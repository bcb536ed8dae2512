"""Power of the former design of a study against the present one, at equal cost.

    python benchmarks/study_power.py

Arms (CT, photographs, others like photographs, random initialisation) are probed on a CT target with few labels. The former
design has four pretraining seeds, two evaluation seeds whose label subsets all pretraining seeds share, Welch's test, and Holm's
correction over all pairs of arms and all cells (targets × label fractions) of a protocol: 18 contrasts in the first quickstart
(four arms, three cells), 135 in the first `in_vs_cross_domain_mini` (six arms, nine cells). The present one runs CT and
photographs look by look, with draws of their own in pairs, behind the gate. Standard deviations are those measured on the
quickstart (probe at 10 %), costs are minutes on two cores. "Equal cost" gives the former design of the quickstart as many seeds
as the present one spends on average.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
import pandas as pd
from scipy import special

from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics import decide_many

GAINS = (0.10, 0.0)  # of all but CT over random initialisation; the gate is then easy, or as hard as the question
PRETRAINING, SUBSET, ARM_SUBSET, RESIDUAL = 0.016, 0.049, 0.016, 0.036
MINUTES_PER_SEED, MINUTES_PER_DRAW = 0.945, 0.0023  # a pretraining with its features; a probe
FORMER_DRAWS, FORMER_SEEDS = 2, 4
QUICKSTART, MINI = (4, 3), (6, 9)  # arms and cells of a protocol in the former studies
LOOKS, DRAWS = (4, 6, 8, 12, 16), 8
DIFFERENCES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)


def former(
    difference: float,
    gain: float,
    seeds: int,
    studies: int,
    rng: np.random.Generator,
    family: tuple[int, int] = QUICKSTART,
) -> float:
    """Share of studies of the former design that find CT better than photographs in the primary cell."""
    arms, cells = family  # CT, photographs, others, random initialisation
    means = np.array([gain + difference, *[gain] * (arms - 2), 0.0])[:, None, None, None]
    value = (
        means
        + rng.normal(0, PRETRAINING, (studies, arms, seeds, 1, 1))
        + rng.normal(0, SUBSET, (studies, 1, 1, cells, FORMER_DRAWS))
        + rng.normal(0, ARM_SUBSET, (studies, arms, 1, cells, FORMER_DRAWS))
        + rng.normal(0, RESIDUAL, (studies, arms, seeds, cells, FORMER_DRAWS))
    ).mean(-1)  # (studies, arms, seeds, cells)
    mean, variance = value.mean(2), value.var(2, ddof=1) / seeds
    first, second = np.triu_indices(arms, 1)  # pairs; that of CT and photographs is the first one
    error = variance[:, first] + variance[:, second]
    df = error**2 / ((variance[:, first] ** 2 + variance[:, second] ** 2) / (seeds - 1))
    t = (mean[:, first] - mean[:, second]) / np.sqrt(error)
    p = 2 * special.stdtr(df, -np.abs(t)).reshape(studies, -1)  # that of the question is the first one
    order = np.argsort(p, axis=1)
    corrected = np.maximum.accumulate(np.take_along_axis(p, order, 1) * np.arange(p.shape[1], 0, -1), axis=1)
    rank = np.argmin(order, axis=1)  # where the question stands
    return float(np.mean((corrected[np.arange(studies), rank] <= 0.05) & (t[:, 0, 0] > 0)))


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
    arms, cells = QUICKSTART
    each_former = arms * (MINUTES_PER_SEED + cells * FORMER_DRAWS * MINUTES_PER_DRAW)
    each_present = 2 * (MINUTES_PER_SEED + DRAWS * MINUTES_PER_DRAW)
    print(f"all but CT gain {gain:g} over random initialisation")
    print("difference   former, 135   former, 18   former at equal cost   present   mean seeds   minutes")
    rows: dict[str, dict[str, float]] = {}
    for difference in DIFFERENCES:
        power, seeds = present(difference, gain, studies, rng)
        equal = max(2, round(seeds * each_present / each_former))
        row = {
            "former_mini": former(difference, gain, FORMER_SEEDS, studies, rng, MINI),
            "former": former(difference, gain, FORMER_SEEDS, studies, rng),
            "former_at_equal_cost": former(difference, gain, equal, studies, rng),
            "former_seeds": equal,
            "present": power,
            "mean_seeds": round(seeds, 2),
            "minutes": round(seeds * each_present, 1),
        }
        rows[f"{difference:.2f}"] = row
        before = f"{row['former_mini']:11.3f}   {row['former']:10.3f}   {row['former_at_equal_cost']:9.3f} ({equal:2d} seeds)"
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
