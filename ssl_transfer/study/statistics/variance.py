"""Variance components of a cell: pretraining seeds, label subsets, subsets that suit one arm more than another, the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.study.table import CELL, complete

COMPONENTS = ("pretraining", "subset", "arm_subset", "residual")
VARIANCE_COLUMNS = [
    *CELL,
    *(f"sd_{name}" for name in COMPONENTS),
    "n_arms",
    "n_pretraining_seeds",
    "n_draws",
    "n_runs",
    "method",
]
SEPARABLE = (
    0.01  # share of a component's squared norm that the others must leave, for it to be estimated apart from them
)


def variance_components(frame: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations between pretraining seeds, label subsets, subsets within arms, and of the rest.

    The model of the runs of a cell is value = arm (fixed) + pretraining seed of the arm + label subset + label subset of the
    arm + residual; all but the first are random, independent, and of one variance for all arms. The subset is that of the
    column `draw`, else the evaluation seed.

    Pretraining, subset within arm and residual come from what is left of the runs when the effects of arms and of subsets are
    fitted: r, with effects of subsets however large gone. Their variances are those for which r rᵀ is closest to its
    expectation in the sum of squared deviations (MINQUE with prior weight on the residual alone); the variance of subsets
    follows from the squares of their sums (Henderson's method 3). None is below 0. Without this bound estimates are unbiased
    for every design, and for balanced ones equal to the analysis of variance. Where no two runs share a subset, subsets
    are not fitted.

    A component that a design cannot separate from another is NaN, and the other includes it: subset within arm and residual
    where every subset is drawn for a single pretraining seed, or pretraining seed and residual with one run each. One that does
    not vary within arms (pretraining, with a single seed of it per arm) is NaN as well. A run without a value does not
    enter and is not counted.

    Args:
        frame: As for `statistics.contrasts`; also `draw`.

    Returns:
        `VARIANCE_COLUMNS`, one row per cell. n_pretraining_seeds: summed over arms; runs without one share the seed
        "unknown". n_draws: label subsets. method: `minque`, and which components include others; `not estimable` with fewer
        than two runs of every arm.

    References:
        Rao 1971, https://doi.org/10.1016/0047-259X(71)90001-7.
        Searle, Casella and McCulloch 1992, Variance Components, sections 5.5 and 11.3.
    """
    frame = complete(frame)
    arm = [*CELL, "pretraining"]
    draw = frame["draw"].fillna(frame["seed"]) if "draw" in frame else frame["seed"]
    unknown = pd.Series(-1 - np.arange(len(frame)), frame.index, dtype="Int64")  # not the same as any other
    frame = frame.assign(_draw=draw.astype("Int64").fillna(unknown))
    groups = {
        "cell": CELL,
        "arm": arm,
        "pretraining": [*arm, "pretraining_seed"],
        "subset": [*CELL, "_draw"],
        "arm_subset": [*arm, "_draw"],
    }
    codes = {name: frame.groupby(keys, dropna=False).ngroup().to_numpy() for name, keys in groups.items()}
    order = np.lexsort((codes["arm_subset"], codes["pretraining"], codes["arm"], codes["cell"]))
    value = frame["value"].to_numpy(float, na_value=np.nan)[order]
    codes = {name: code[order] for name, code in codes.items()}
    cells, designs, rows = frame[CELL].iloc[order], {}, []
    starts = np.flatnonzero(np.diff(codes["cell"], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(frame)][: len(starts)], strict=True):
        kept = start + np.flatnonzero(np.isfinite(value[start:stop]))
        rows.append((*cells.iloc[start], *_components(value[kept], {k: v[kept] for k, v in codes.items()}, designs)))
    return pd.DataFrame(rows, columns=VARIANCE_COLUMNS)


def _components(value: np.ndarray, codes: Mapping[str, np.ndarray], designs: dict[bytes, _Design]) -> tuple:
    """The columns of `VARIANCE_COLUMNS` after the cell; `designs` has those met before."""
    levels = {name: np.unique(codes[name], return_inverse=True)[1] for name in ("arm", *COMPONENTS[:3])}
    key = b"".join(level.tobytes() for level in levels.values())
    if key not in designs:
        designs[key] = _Design.of(levels)
    design = designs[key]
    variances = design.variances(value)
    counts = [int(levels[name].max(initial=-1)) + 1 for name in ("arm", "pretraining", "subset")]
    sds = [np.sqrt(variances.get(name, np.nan)) for name in COMPONENTS]
    return *sds, *counts, len(value), design.method


@dataclass(frozen=True)
class _Fit:
    """Variances of some components from runs less fixed effects.

    Attributes:
        fixed: The fixed effects.
        levels: Component that is estimated -> level of each run, shape (N,).
        gram: Scalar products of the projected covariances of these components, tr(M V_i M V_j).
        includes: Component that cannot be separated -> the one that includes it.
    """

    fixed: _Fixed
    levels: dict[str, np.ndarray]
    gram: np.ndarray
    includes: dict[str, str]

    @classmethod
    def of(cls, fixed: _Fixed, levels: dict[str, np.ndarray]) -> _Fit:
        """Choose the components that can be separated, in their order."""
        gram, names, kept, includes = fixed.gram(levels), list(levels), [], {}
        for i, name in enumerate(names):
            if not gram[i, i] > 1e-9 * len(fixed.group):  # fitted by the fixed effects
                continue
            shares = np.linalg.solve(gram[np.ix_(kept, kept)], gram[kept, i])
            if gram[i, i] - gram[i, kept] @ shares > SEPARABLE * gram[i, i]:
                kept.append(i)
            else:
                includes[name] = names[kept[int(np.argmax(shares))]]
        return cls(fixed, {names[i]: levels[names[i]] for i in kept}, gram[np.ix_(kept, kept)], includes)

    def variances(self, value: np.ndarray) -> dict[str, float]:
        """Component -> its variance, not negative."""
        from scipy.optimize import nnls

        rest = self.fixed.rest(value)
        scale = np.sqrt(np.diag(self.gram))
        root = np.linalg.cholesky(self.gram / np.outer(scale, scale))
        squares = [np.sum(np.bincount(level, rest) ** 2) for level in self.levels.values()]
        solution = nnls(root.T, np.linalg.solve(root, squares / scale))[0] / scale
        return dict(zip(self.levels, map(float, solution), strict=True))


@dataclass(frozen=True)
class _Design:
    """How the components of a cell are estimated: which runs share which levels decides it.

    Attributes:
        paired: The fit to runs less arms and subsets; None where that leaves nothing.
        alone: The fit to runs less arms: of all components without `paired`, of the subsets with it.
        method: See `variance_components`.
    """

    paired: _Fit | None
    alone: _Fit
    method: str

    @classmethod
    def of(cls, codes: Mapping[str, np.ndarray]) -> _Design:
        arm, subset = codes["arm"], codes["subset"]
        residual = np.arange(len(arm))
        within = {"residual": residual, "pretraining": codes["pretraining"], "arm_subset": codes["arm_subset"]}
        paired = _Fit.of(_Fixed.of(arm, subset), within)
        every = {"residual": residual, "pretraining": codes["pretraining"], "subset": subset}
        alone = _Fit.of(_Fixed.of(arm), {**every, "arm_subset": codes["arm_subset"]})
        includes = dict(alone.includes)
        if "residual" in paired.levels:
            includes = dict(paired.includes)
            if "arm_subset" not in {**paired.levels, **includes} and "subset" in alone.levels:
                includes["arm_subset"] = "subset"  # a single arm
        notes = [f"sd_{other} includes {name}" for name, other in includes.items()]
        method = "; ".join(["minque", *notes]) if alone.levels else "not estimable"
        return cls(paired if "residual" in paired.levels else None, alone, method)

    def variances(self, value: np.ndarray) -> dict[str, float]:
        """Component -> its variance, not negative; those that cannot be estimated are left out."""
        if not self.alone.levels:
            return {}
        if self.paired is None:
            return self.alone.variances(value)
        found = self.paired.variances(value)
        if "subset" not in self.alone.levels:
            return found
        names = list(self.alone.levels)
        expected = dict(zip(names, self.alone.gram[names.index("subset")], strict=True))
        rest = self.alone.fixed.rest(value)
        square = np.sum(np.bincount(self.alone.levels["subset"], rest) ** 2)
        others = sum(expected.get(name, 0.0) * variance for name, variance in found.items())
        return {**found, "subset": max((square - others) / expected["subset"], 0.0)}


@dataclass(frozen=True)
class _Fixed:
    """Fixed effects, and the projection M that takes them off: means of groups, then an orthonormal basis of what is left.

    Attributes:
        group: Group of each run, 0 … G − 1, shape (N,).
        basis: Of the other effects less the means of groups, shape (N, K).
    """

    group: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, arm: np.ndarray, subset: np.ndarray | None = None) -> _Fixed:
        """Effects of arms, or of subsets and arms."""
        if subset is None:
            return cls(arm, np.zeros((len(arm), 0)))
        left = _less_means(np.eye(arm.max(initial=-1) + 1)[arm], subset)
        vectors, sizes, _ = np.linalg.svd(left, full_matrices=False)
        return cls(subset, vectors[:, sizes > 1e-8])

    def rest(self, value: np.ndarray) -> np.ndarray:
        """M · value; what is rounding becomes 0."""
        rest = _less_means(value[:, None], self.group)[:, 0]
        rest = rest - self.basis @ (self.basis.T @ rest)
        rest[np.abs(rest) <= 1e-12 * np.abs(value).max()] = 0.0
        return rest

    def gram(self, levels: Mapping[str, np.ndarray]) -> np.ndarray:
        """tr(M V_i M V_j) of all pairs of components, with V = Z Zᵀ and Z the incidence of levels.

        It is the squared norm of Zᵢᵀ M Z_j = Zᵢᵀ Z_j − Uᵢ C⁻¹ U_jᵀ − Gᵢ G_jᵀ, where U (sparse) has the runs of each level in each
        group, C those of each group, and G = Zᵀ basis. No product is larger than runs × arms, or groups × groups.
        """
        from scipy import sparse

        n, codes = np.bincount(self.group), list(levels.values())
        ones = np.ones(len(self.group))
        sizes = [level.max(initial=-1) + 1 for level in codes]
        runs = [sparse.csr_array((ones, (k, self.group)), (size, len(n))) for k, size in zip(codes, sizes, strict=True)]
        scaled = [table.multiply(1 / n).tocsr() for table in runs]
        squares = [(table.T @ table).multiply(1 / n).tocsr() for table in runs]  # Uᵀ U C⁻¹
        sums = [np.zeros((size, self.basis.shape[1])) for size in sizes]
        for table, level in zip(sums, codes, strict=True):
            np.add.at(table, level, self.basis)
        gram = np.zeros((len(codes), len(codes)))
        for i, j in zip(*np.triu_indices(len(codes)), strict=True):
            shared = np.unique(codes[i].astype(np.int64) * sizes[j] + codes[j], return_counts=True)[1].astype(float)
            cross = scaled[i][codes[i]].multiply(runs[j][codes[j]]).sum()
            of_groups = shared @ shared - 2 * cross + squares[i].multiply(squares[j].T).sum()
            of_basis = np.sum(_less_means(sums[i][codes[i]], self.group) * sums[j][codes[j]])
            gram[i, j] = of_groups - 2 * of_basis + np.sum((sums[i].T @ sums[i]) * (sums[j].T @ sums[j]))
            gram[j, i] = gram[i, j]
        return gram


def _less_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values, shape (N, K), less the mean of their group."""
    sums = np.zeros((group.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return values - (sums / np.bincount(group)[:, None])[group]
