"""Summary of an analysis in sentences, with intervals or chance levels."""

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
from ssl_transfer.analysis.projection import quality_text
from ssl_transfer.analysis.similarity import FEATURES
from ssl_transfer.result import Analysis

WIDTH = 120  # characters of a line on a terminal
REPORTED_DIFFERENCE = 0.05  # smallest difference of R² or AUROC that is reported


def summary_text(spec: AnalysisSpec, measured: Measurements, pictures: Mapping[str, Path]) -> list[Finding]:
    """One finding per topic, with its figure if there is one; topics without data are left out."""
    topics = [
        ("Near-duplicates", _leaks(measured), "leaks"),
        ("Neighbours", _neighbors(measured), None),
        ("UMAP", _embeddings(measured), "umap"),
        ("Linearly decodable properties", _property_probes(measured), "property_probes"),
        ("Before and after", _reuse(spec, measured), None),
        ("Similarity of layers", _clouds(measured), "clouds"),
        ("Domains", _domains(measured), None),
        ("Robustness", _robustness(measured), None),
        ("Shortcuts", _shortcuts(measured), None),
        ("Shared failures", _failures(spec, measured), None),
        ("Outliers", _outliers(measured), "outliers"),
    ]
    return [Finding(title, text, pictures.get(picture)) for title, text, picture in topics if text]


def as_text(analysis: Analysis, folder: str | Path) -> str:
    """What `analyze` prints on a terminal.

    Args:
        analysis: The analysis.
        folder: Its folder, with tables, figures and explorer.
    """
    lines = []
    for finding in analysis.findings:
        paragraphs = [
            textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
            for text in finding["text"].split("\n\n")
        ]
        lines += [finding["title"], *paragraphs, ""]
    return "\n".join([*lines, f"tables and figures: {folder}", f"explorer: {Path(folder) / 'explorer.html'}"])


def _leaks(measured: Measurements) -> str:
    within = measured.leaks.pairs[~measured.leaks.pairs["across"].astype(bool)]
    patients_known = within[["patient_a", "patient_b"]].notna().all(axis=None)
    patients = ", in different patients" if patients_known else ", their patients unknown"
    return measured.leaks.sentence() + (f" {len(within):,} more lie within a split{patients}." if len(within) else "")


def _neighbors(measured: Measurements) -> str:
    """One sentence per column; backbones in descending order of purity."""
    lines = []
    for column, group in measured.tables["neighbors"].groupby("column", sort=False):
        ranked = group.sort_values("purity", ascending=False).dropna(subset="purity")
        if len(ranked):
            shares = ", ".join(f"{row.purity:.2f} under {row.backbone}" for row in ranked.itertuples())
            k, chance = ranked["k"].iloc[0], ranked["by_chance"].iloc[0]
            lines.append(f"Of the {k} nearest images, the same {column} have {shares} (by chance {chance:.2f}).")
    return "\n\n".join(lines)


def _embeddings(measured: Measurements) -> str:
    quality = [
        f"{row['backbone']}: {quality_text(row['trustworthiness'], row['continuity'])}"
        + ("" if row["index"] == "exact" else f", neighbours by {row['index']} at recall {row['recall']:.3f}")
        for row in measured.tables["embedding_quality"].to_dict("records")
    ]
    aligned = (
        " The embeddings are aligned with the first one, so that images can be followed." if len(quality) > 1 else ""
    )
    advice = "Distances between clusters of a UMAP mean little; interpret neighbourhoods, not distances."
    return f"{'; '.join(quality)}. {advice}{aligned}"


def _property_probes(measured: Measurements) -> str:
    """The chance level, then the properties in which backbones differ, the largest difference first."""
    table = measured.tables["property_probes"]
    last = table[table["layer"] == FEATURES]
    if not len(last):
        return f"Too few values to probe: {', '.join(map(_words, measured.unprobed))}." if measured.unprobed else ""
    chance = last.groupby("measure")["chance"].agg(["min", "max"])
    spans = ", ".join(f"{_measure(name)} {_number(low)} to {_number(high)}" for name, low, high in chance.itertuples())
    text = (
        f"Linear probes on {last['n'].max():,} of {len(measured.rows):,} sampled images, cross-validated over patients. "
        f"With values permuted across patients the same probes reach {spans}: that is chance."
    )
    if measured.unprobed:
        text += f" Too few values to probe: {', '.join(map(_words, measured.unprobed))}."
    differences = []
    for (name, measure), group in last.dropna(subset="value").groupby(["property", "measure"], sort=False):
        best, worst = (group.loc[extreme(group["value"])] for extreme in (pd.Series.idxmax, pd.Series.idxmin))
        difference = (
            f"{_words(name)}: {_measure(measure)} {_number(best['value'])} under {best['backbone']}, "
            f"{_number(worst['value'])} under {worst['backbone']}"
        )
        differences.append((best["value"] - worst["value"], difference))
    clear = [difference for size, difference in sorted(differences, reverse=True) if size >= REPORTED_DIFFERENCE]
    if clear:
        return f"{text} Where backbones differ by {REPORTED_DIFFERENCE} or more: {'; '.join(clear)}."
    several = last["backbone"].nunique() > 1
    return text + (f" No two backbones differ by {REPORTED_DIFFERENCE} or more in any property." if several else "")


def _reuse(spec: AnalysisSpec, measured: Measurements) -> str:
    """For every backbone that was trained from another: similarity of layers, shared neighbours, properties gained and lost."""
    table, lines = measured.tables["similarity"], []
    probes = measured.tables["property_probes"]
    values = (
        probes[probes["layer"] == FEATURES].pivot(index="property", columns="backbone", values="value").clip(lower=0)
    )
    for before, after in before_and_after(list(spec.backbones)):
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
            gained, lost = changes[changes >= REPORTED_DIFFERENCE][::-1], changes[changes <= -REPORTED_DIFFERENCE]
            for word, group in (("Gained", gained), ("Lost", lost)):
                if len(group):
                    changes_text = ", ".join(f"{_words(name)} {_number(abs(by))}" for name, by in group.items())
                    text += f" {word} in R² or AUROC: {changes_text}."
        lines.append(text)
    return "\n\n".join(lines)


def _clouds(measured: Measurements) -> str:
    table, last = measured.tables["similarity"], measured.tables["clouds"]
    features = (table["layer_a"] == FEATURES) & (table["layer_b"] == FEATURES)
    pairs = table[features & (table["backbone_a"] != table["backbone_b"])].sort_values("cka", ascending=False)
    extremes = pairs.iloc[[0, -1][: len(pairs)]]
    words = ("Most", "least") if len(pairs) > 1 else ("How",)
    sentences = "; ".join(
        f"{word} alike by CKA of features: {row.backbone_a} and {row.backbone_b}, {_number(row.cka)} "
        f"({row.neighbors_shared:.0%} of neighbours shared)"
        for word, row in zip(words, extremes.itertuples(), strict=False)
    )
    shape = "; ".join(
        f"{row.backbone}: effective rank {_number(row.effective_rank, 0)} of {row.dimensions}, intrinsic dimension "
        f"{_number(row.intrinsic_dimension, 1)}, alignment {_number(row.alignment)}, uniformity {_number(row.uniformity)}, "
        f"hubness {_number(row.hubness)}"
        for row in last[last["layer"] == FEATURES].itertuples()
    )
    return (f"{sentences}.\n\n" if sentences else "") + f"{shape}."


def _domains(measured: Measurements) -> str:
    lines = []
    for (a, b), group in measured.tables["domains"].groupby(["domain_a", "domain_b"], sort=False):
        each = "; ".join(
            f"{row.backbone}: Fréchet {_number(row.frechet)} (halves of one domain {_number(row.frechet_by_chance)}), "
            f"MMD² {_number(row.mmd, 3)}"
            + (f", separable with AUROC {_number(row.separability)}" if _number(row.separability) != "unknown" else "")
            for row in group.itertuples()
        )
        lines.append(f"{a} and {b}: {each}.")
    return "\n\n".join(lines)


def _robustness(measured: Measurements) -> str:
    """One sentence per nuisance column; backbones in descending order of the index."""
    lines = []
    for (target, nuisance), group in measured.tables["robustness"].groupby(["target", "nuisance"], sort=False):
        ranked = group.dropna(subset="index").sort_values("index", ascending=False)
        if len(ranked):
            indices = ", ".join(
                f"{_number(row['index'])} [{_number(row['low'])}, {_number(row['high'])}] under {row['backbone']}"
                for row in ranked.to_dict("records")
            )
            lines.append(
                f"Of the neighbours of other patients that share either {_words(target)} or {_words(nuisance)}, these share the "
                f"{_words(target)}: {indices} (by chance {_number(ranked['by_chance'].iloc[0])}). Below .5, "
                f"{_words(nuisance)} decides more."
            )
    return "\n\n".join(lines)


def _shortcuts(measured: Measurements) -> str:
    """The columns that are shortcuts, the largest drop first, and the names of the others."""
    table = measured.tables["shortcuts"]
    is_found = table["shortcut"].astype(bool)
    lines = [
        f"{row.backbone}: {_words(row.nuisance)} explains {row.explained:.0%} of the score of {_words(row.target)}: AUROC "
        f"{_number(row.before)}, and {_number(row.after)} after the linear erasure of {_words(row.nuisance)} (drop "
        f"[{_number(row.drop_low)}, {_number(row.drop_high)}], by chance up to {_number(row.by_chance)}); "
        f"{_words(row.nuisance)} alone reaches {_number(row.nuisance_alone)}."
        for row in table[is_found].sort_values("drop", ascending=False).itertuples()
    ]
    for name, group in table[~is_found].groupby("nuisance", sort=False):
        lines.append(f"{_words(str(name))}: no shortcut under {', '.join(group['backbone'])}.")
    return "\n\n".join(lines)


def _failures(spec: AnalysisSpec, measured: Measurements) -> str:
    if spec.results and not len(measured.tables["failures"]):
        return "The results are of different tasks, so no two of them can be compared."
    lines = []
    for row in measured.tables["failures"].itertuples():
        lines.append(
            f"{row.task}: {row.result_a} is wrong in {row.wrong_a:.1%} of {row.n:,} cases, {row.result_b} in {row.wrong_b:.1%}, "
            f"both in {row.both_wrong:.1%} (independent errors: {row.by_chance:.1%}); error consistency "
            f"κ {_number(row.consistency)} [{_number(row.consistency_low)}, {_number(row.consistency_high)}]."
        )
    return "\n\n".join(lines)


def _outliers(measured: Measurements) -> str:
    table: pd.DataFrame = measured.tables["outliers"]
    first = table.groupby("backbone", sort=False).first()
    sentences = "; ".join(
        f"{name}: row {int(row['row'])}, {_number(row['of_median'], 1)} ×" for name, row in first.iterrows()
    )
    return f"The image farthest from its neighbours, in medians of that distance: {sentences}."


def _number(value: Any, digits: int = 2) -> str:
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "infinite"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no negative zero


def _measure(name: str) -> str:
    return name.replace("R2", "R²")


def _words(name: object) -> str:
    return str(name).replace("_", " ")
