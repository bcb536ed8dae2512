"""What an analysis found, in sentences: numbers from its tables, and how far each can be believed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.analysis.analyzed_backbone import before_and_after
from ssl_transfer.analysis.explorer.page import Finding
from ssl_transfer.analysis.measurements import AnalysisSpec, Measurements
from ssl_transfer.analysis.similarity import FEATURES
from ssl_transfer.result import Analysis

WIDTH = 120  # characters of a line on a terminal
CLEAR = 0.05  # difference of R² or AUROC that is told as one


def findings(asked: AnalysisSpec, found: Measurements, pictures: Mapping[str, Path]) -> list[Finding]:
    """One paragraph per question, with its picture where there is one; the questions nothing is known of are left out."""
    told = [
        ("Near-duplicates", _leaks(found), "leaks"),
        ("Neighbours", _neighbors(found), None),
        ("Maps", _maps(found), "maps"),
        ("What the features encode", _encoded(found), "encoded"),
        ("Before and after", _reuse(asked, found), None),
        ("How alike the layers are", _clouds(found), "clouds"),
        ("Domains", _domains(found), None),
        ("Shared failures", _failures(asked, found), None),
        ("Far from all others", _outliers(found), "outliers"),
    ]
    return [Finding(title, text, pictures.get(picture)) for title, text, picture in told if text]


def as_text(analysis: Analysis, folder: str | Path) -> str:
    """What `analyze` prints for people.

    Args:
        analysis: Of the backbones.
        folder: Where it lies, with its tables, figures and explorer.
    """
    lines = []
    for finding in analysis.findings:
        paragraphs = [
            textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
            for text in finding["text"].split("\n\n")
        ]
        lines += [finding["title"], *paragraphs, ""]
    return "\n".join([*lines, f"tables and figures: {folder}", f"explorer: {Path(folder) / 'explorer.html'}"])


def _leaks(found: Measurements) -> str:
    within = found.leaks.pairs[~found.leaks.pairs["across"].astype(bool)]
    known = within[["patient_a", "patient_b"]].notna().all(axis=None)
    whose = ", in different patients" if known else ", their patients unknown"
    return found.leaks.sentence() + (f" {len(within):,} more lie within a split{whose}." if len(within) else "")


def _neighbors(found: Measurements) -> str:
    """One sentence per column, the backbone with the purest neighbourhoods first."""
    lines = []
    for column, own in found.tables["neighbors"].groupby("column", sort=False):
        ranked = own.sort_values("purity", ascending=False).dropna(subset="purity")
        if len(ranked):
            shares = ", ".join(f"{row.purity:.2f} under {row.backbone}" for row in ranked.itertuples())
            k, chance = ranked["k"].iloc[0], ranked["by_chance"].iloc[0]
            lines.append(f"Of the {k} nearest images, the same {column} have {shares} (by chance {chance:.2f}).")
    return "\n\n".join(lines)


def _maps(found: Measurements) -> str:
    said = [
        f"{row.backbone}: trustworthiness {row.trustworthiness:.2f}, continuity {row.continuity:.2f}"
        + ("" if row.index == "exact" else f", neighbours by {row.index} at recall {row.recall:.3f}")
        for row in found.tables["maps"].itertuples()
    ]
    beside = " Maps begin where the first one ended, so that images can be followed." if len(said) > 1 else ""
    return f"{'; '.join(said)}. Distances between islands of a UMAP mean little; read neighbourhoods, not distances.{beside}"


def _encoded(found: Measurements) -> str:
    """What chance looks like, then the properties in which backbones differ, the largest difference first."""
    table = found.tables["encoded"]
    last = table[table["layer"] == FEATURES]
    if not len(last):
        return f"Too little is known of {', '.join(map(_words, found.unread))}." if found.unread else ""
    chance = last.groupby("measure")["chance"].agg(["min", "max"])
    spans = ", ".join(f"{_measure(name)} {_number(low)} to {_number(high)}" for name, low, high in chance.itertuples())
    said = (
        f"Linear probes on {last['n'].max():,} of {len(found.rows):,} sampled images, cross-validated over patients. With values "
        f"exchanged between patients the same probes reach {spans}: that is chance."
    )
    if found.unread:
        said += f" Too little is known of {', '.join(map(_words, found.unread))}."
    differences = []
    for (name, measure), own in last.dropna(subset="value").groupby(["property", "measure"], sort=False):
        best, worst = (own.loc[place(own["value"])] for place in (pd.Series.idxmax, pd.Series.idxmin))
        text = (
            f"{_words(name)}: {_measure(measure)} {_number(best['value'])} under {best['backbone']}, "
            f"{_number(worst['value'])} under {worst['backbone']}"
        )
        differences.append((best["value"] - worst["value"], text))
    clear = [text for difference, text in sorted(differences, reverse=True) if difference >= CLEAR]
    if clear:
        return f"{said} Where backbones differ by {CLEAR} or more: {'; '.join(clear)}."
    several = last["backbone"].nunique() > 1
    return said + (f" No two backbones differ by {CLEAR} or more in any property." if several else "")


def _reuse(asked: AnalysisSpec, found: Measurements) -> str:
    """For every backbone that came from another one: layers kept, neighbours kept, properties gained and lost."""
    table, lines = found.tables["similarity"], []
    encoded = found.tables["encoded"]
    values = (
        encoded[encoded["layer"] == FEATURES].pivot(index="property", columns="backbone", values="value").clip(lower=0)
    )
    for before, after in before_and_after(list(asked.subjects)):
        pair = table["backbone_a"].isin([before.name, after.name]) & table["backbone_b"].isin([before.name, after.name])
        same = table[pair & (table["backbone_a"] != table["backbone_b"]) & (table["layer_a"] == table["layer_b"])]
        features = same[same["layer_a"] == FEATURES].iloc[0]
        kept = ", ".join(f"{row.layer_a} {_number(row.cka)}" for row in same.itertuples())
        text = (
            f"From {before.name} to {after.name}, linear CKA by layer: {kept} (features: RBF {_number(features['cka_rbf'])}, "
            f"Procrustes distance {_number(features['procrustes'])}); {features['neighbors_shared']:.0%} of an image's "
            "neighbours are still its neighbours."
        )
        if {before.name, after.name} <= set(values):
            changes = (values[after.name] - values[before.name]).dropna().sort_values()
            for word, own in (("Gained", changes[changes >= CLEAR][::-1]), ("Lost", changes[changes <= -CLEAR])):
                if len(own):
                    listed = ", ".join(f"{_words(name)} {_number(abs(by))}" for name, by in own.items())
                    text += f" {word} in R² or AUROC: {listed}."
        lines.append(text)
    return "\n\n".join(lines)


def _clouds(found: Measurements) -> str:
    table, last = found.tables["similarity"], found.tables["clouds"]
    features = (table["layer_a"] == FEATURES) & (table["layer_b"] == FEATURES)
    pairs = table[features & (table["backbone_a"] != table["backbone_b"])].sort_values("cka", ascending=False)
    ends = pairs.iloc[[0, -1][: len(pairs)]]
    words = ("Most", "least") if len(pairs) > 1 else ("How",)
    said = "; ".join(
        f"{word} alike by CKA of features: {row.backbone_a} and {row.backbone_b}, {_number(row.cka)} "
        f"({row.neighbors_shared:.0%} of neighbours shared)"
        for word, row in zip(words, ends.itertuples(), strict=False)
    )
    shape = "; ".join(
        f"{row.backbone}: effective rank {_number(row.effective_rank, 0)} of {row.dimensions}, intrinsic dimension "
        f"{_number(row.intrinsic_dimension, 1)}, alignment {_number(row.alignment)}, uniformity {_number(row.uniformity)}, "
        f"hubness {_number(row.hubness)}"
        for row in last[last["layer"] == FEATURES].itertuples()
    )
    return (f"{said}.\n\n" if said else "") + f"{shape}."


def _domains(found: Measurements) -> str:
    lines = []
    for (a, b), own in found.tables["domains"].groupby(["domain_a", "domain_b"], sort=False):
        each = "; ".join(
            f"{row.backbone}: Fréchet {_number(row.frechet)} (halves of one domain {_number(row.frechet_by_chance)}), "
            f"MMD² {_number(row.mmd, 3)}"
            + (f", separable with AUROC {_number(row.separability)}" if row.separability == row.separability else "")
            for row in own.itertuples()
        )
        lines.append(f"{a} and {b}: {each}.")
    return "\n\n".join(lines)


def _failures(asked: AnalysisSpec, found: Measurements) -> str:
    if asked.results and not len(found.tables["failures"]):
        return "The results are of different tasks, so no two of them can be compared."
    lines = []
    for row in found.tables["failures"].itertuples():
        lines.append(
            f"{row.task}: {row.result_a} is wrong in {row.wrong_a:.1%} of {row.n:,} cases, {row.result_b} in {row.wrong_b:.1%}, "
            f"both in {row.both_wrong:.1%} (independent errors: {row.by_chance:.1%}); error consistency "
            f"κ {_number(row.consistency)} [{_number(row.consistency_low)}, {_number(row.consistency_high)}]."
        )
    return "\n\n".join(lines)


def _outliers(found: Measurements) -> str:
    table: pd.DataFrame = found.tables["outliers"]
    first = table.groupby("backbone", sort=False).first()
    said = "; ".join(
        f"{name}: row {int(row['row'])}, {_number(row['of_median'], 1)} ×" for name, row in first.iterrows()
    )
    return f"The image farthest from its neighbours, in medians of that distance: {said}."


def _number(value: Any, digits: int = 2) -> str:
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "infinite"
    return f"{value:.{digits}f}".replace("-", "−")


def _measure(name: str) -> str:
    return name.replace("R2", "R²")


def _words(name: str) -> str:
    return name.replace("_", " ")
