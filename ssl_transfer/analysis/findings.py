"""What an analysis found, in sentences: numbers from its tables, and how far each can be believed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.analysis.explorer import Finding
from ssl_transfer.analysis.measured import Measured, Question
from ssl_transfer.analysis.similarity import FEATURES
from ssl_transfer.analysis.subject import before_and_after

WIDTH = 120  # characters of a line on a terminal
CLEAR = 0.05  # difference of R² or AUROC that is told as one


def findings(asked: Question, found: Measured, pictures: Mapping[str, Path]) -> list[Finding]:
    """One paragraph per question, with its picture where there is one; the questions nothing is known of are left out."""
    told = [
        ("Near-duplicates", _leaks(found), "leaks"),
        ("Neighbours", _neighbors(found), None),
        ("Maps", _maps(found), "maps"),
        ("What the features encode", _encoded(found), "encoded"),
        ("Before and after", _reuse(asked, found), None),
        ("How alike the layers are", _clouds(found), "clouds"),
        ("Domains", _domains(found), None),
        ("Shared failures", _failures(found), None),
        ("Far from all others", _outliers(found), "outliers"),
    ]
    return [Finding(title, text, pictures.get(picture)) for title, text, picture in told if text]


def listing(answer: dict[str, Any]) -> str:
    """What `analyze` prints for people.

    Args:
        answer: As `analysis.json` has it, and where things lie.
    """
    lines = []
    for one in answer["findings"]:
        paragraphs = [
            textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
            for text in one["text"].split("\n\n")
        ]
        lines += [one["title"], *paragraphs, ""]
    places = {"tables and figures": answer["analysis"], "explorer": answer["explorer"]}
    return "\n".join([*lines, *(f"{name}: {place}" for name, place in places.items())])


def _leaks(found: Measured) -> str:
    within = int((~found.leaks.pairs["across"].astype(bool)).sum())
    more = f" {within:,} more lie within a split, in different patients." if within else ""
    return found.leaks.sentence() + more


def _neighbors(found: Measured) -> str:
    """One sentence per column, the backbone with the purest neighbourhoods first."""
    lines = []
    for column, own in found.tables["neighbors"].groupby("column", sort=False):
        ranked = own.sort_values("purity", ascending=False).dropna(subset="purity")
        if len(ranked):
            shares = ", ".join(f"{row.purity:.2f} under {row.backbone}" for row in ranked.itertuples())
            k, chance = ranked["k"].iloc[0], ranked["by_chance"].iloc[0]
            lines.append(f"Of the {k} nearest images, the same {column} have {shares} (by chance {chance:.2f}).")
    return "\n\n".join(lines)


def _maps(found: Measured) -> str:
    said = [
        f"{row.backbone}: trustworthiness {row.trustworthiness:.2f}, continuity {row.continuity:.2f}"
        + ("" if row.index == "exact" else f", neighbours by {row.index} at recall {row.recall:.3f}")
        for row in found.tables["maps"].itertuples()
    ]
    beside = " Maps begin where the first one ended, so that images can be followed." if len(said) > 1 else ""
    return f"{'; '.join(said)}. Distances between islands of a UMAP mean little; read neighbourhoods, not distances.{beside}"


def _encoded(found: Measured) -> str:
    table = found.tables["encoded"]
    last = table[table["layer"] == FEATURES]
    if not len(last):
        return ""
    lines = []
    for (name, measure), own in last.groupby(["property", "measure"], sort=False):
        ranked = own.sort_values("value", ascending=False)
        best, worst = ranked.iloc[0], ranked.iloc[-1]
        if len(ranked) > 1 and best["value"] - worst["value"] >= CLEAR:
            lines.append(
                (best["value"] - worst["value"],
                 f"{name.replace('_', ' ')}: {measure.replace('R2', 'R²')} {best['value']:.2f} under {best['backbone']}, "
                 f"{worst['value']:.2f} under {worst['backbone']}")
            )  # fmt: skip
    chance = last.groupby("measure")["chance"].agg(["min", "max"])
    spans = ", ".join(
        f"{measure.replace('R2', 'R²')} {row['min']:.2f} to {row['max']:.2f}".replace("-", "−")
        for measure, row in chance.iterrows()
    )
    n, patients = int(last["n"].max()), found.rows
    head = (
        f"Linear probes on {n:,} of {len(patients):,} sampled images, cross-validated over patients. With values exchanged "
        f"between patients the same probes reach {spans}: that is chance."
    )
    differences = [text for _, text in sorted(lines, reverse=True)]
    if not differences:
        return head + (
            " No two backbones differ by .05 or more in any property." if last["backbone"].nunique() > 1 else ""
        )
    return head + f" Where backbones differ by .05 or more: {'; '.join(differences)}."


def _reuse(asked: Question, found: Measured) -> str:
    """For every backbone that came from another one: layers kept, neighbours kept, properties gained and lost."""
    lines, similar = [], found.tables["similarity"].set_index(["backbone_a", "layer_a", "backbone_b", "layer_b"])
    encoded = found.tables["encoded"].set_index(["backbone", "layer", "property"])["value"]
    for before, after in before_and_after(list(asked.subjects)):
        names = {before.name, after.name}
        same = similar[[a in names and b in names and a != b and la == lb for a, la, b, lb in similar.index]]
        kept = ", ".join(f"{index[1]} {row['cka']:.2f}" for index, row in same.iterrows())
        features = same[[index[1] == FEATURES for index in same.index]].iloc[0]
        text = (
            f"{before.name} → {after.name}: linear CKA by layer {kept} (features: RBF {features['cka_rbf']:.2f}, Procrustes "
            f"distance {features['procrustes']:.2f}); {features['neighbors_shared']:.0%} of an image's neighbours are still its "
            "neighbours."
        )
        changes = (
            (encoded.xs(after.name).xs(FEATURES) - encoded.xs(before.name).xs(FEATURES)).dropna()
            if len(encoded)
            else []
        )
        for word, chosen in (("Gained", [c for c in changes.items() if c[1] >= CLEAR]),
                             ("Lost", [c for c in changes.items() if c[1] <= -CLEAR])):  # fmt: skip
            if chosen:
                ranked = sorted(chosen, key=lambda item: -abs(item[1]))
                text += (
                    f" {word}: "
                    + ", ".join(f"{p.replace('_', ' ')} {d:+.2f}" for p, d in ranked).replace("-", "−")
                    + "."
                )
        lines.append(text)
    return "\n\n".join(lines)


def _clouds(found: Measured) -> str:
    table = found.tables["similarity"]
    pairs = table[
        (table["layer_a"] == FEATURES) & (table["layer_b"] == FEATURES) & (table["backbone_a"] != table["backbone_b"])
    ].sort_values("cka", ascending=False)
    last = found.tables["clouds"]
    last = last[last["layer"] == FEATURES]
    shape = "; ".join(
        f"{row.backbone}: effective rank {row.effective_rank:.0f} of {row.dimensions}, intrinsic dimension "
        f"{row.intrinsic_dimension:.1f}, alignment {row.alignment:.2f}, uniformity {row.uniformity:.2f}, "
        f"hubness {row.hubness:.1f}".replace("-", "−")
        for row in last.itertuples()
    )
    said = "; ".join(
        f"{word} alike by CKA of features: {row['backbone_a']} and {row['backbone_b']}, {row['cka']:.2f} "
        f"({row['neighbors_shared']:.0%} of neighbours shared)"
        for word, (_, row) in zip(("Most", "least"), pairs.iloc[[0, -1][: len(pairs)]].iterrows(), strict=False)
    )
    return (f"{said}.\n\n" if said else "") + f"{shape}."


def _domains(found: Measured) -> str:
    lines = []
    for (a, b), own in found.tables["domains"].groupby(["domain_a", "domain_b"], sort=False):
        each = "; ".join(
            f"{row.backbone}: Fréchet {row.frechet:.2f} (halves of one domain {row.frechet_by_chance:.2f}), MMD² {row.mmd:.3f}"
            + (f", separable with AUROC {row.separability:.2f}" if row.separability == row.separability else "")
            for row in own.itertuples()
        )
        lines.append(f"{a} and {b}: {each}.".replace("-0", "−0"))
    return "\n\n".join(lines)


def _failures(found: Measured) -> str:
    lines = []
    for row in found.tables["failures"].itertuples():
        lines.append(
            f"{row.task}: {row.result_a} is wrong in {row.wrong_a:.1%} of {row.n:,} cases, {row.result_b} in {row.wrong_b:.1%}, "
            f"both in {row.both_wrong:.1%} (independent errors: {row.by_chance:.1%}); error consistency κ {row.consistency:.2f} "
            f"[{row.consistency_low:.2f}, {row.consistency_high:.2f}]."
        )
    return "\n\n".join(lines)


def _outliers(found: Measured) -> str:
    table: pd.DataFrame = found.tables["outliers"]
    first = table.groupby("backbone", sort=False).first()
    said = "; ".join(f"{name}: row {int(row['row'])}, {row['of_median']:.1f} ×" for name, row in first.iterrows())
    return f"The image farthest from its neighbours, in medians of that distance: {said}."
