"""The report: one page that says which pretraining to take, how sure that is, and everything it rests on."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from ssl_transfer.errors import UsageError
from ssl_transfer.study import figures
from ssl_transfer.study.guidance import answers, unequal_budget
from ssl_transfer.study.statistics import NEARNESS, summary
from ssl_transfer.study.table import SCRATCH, write_table
from ssl_transfer.study.wording import duration, number, p_value, percent, whole, words

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
FIGURES = {
    "learning_curves": "Learning curves of {metric}: each small point is one run, lines join the means of the seeds.",
    "seed_points": "Every seed of {metric}: points are pretraining seeds, fine-tuning seeds averaged within them "
    "(where an arm has one pretraining: its fine-tuning seeds). The bar is the 95 % t-interval of the mean. Panels "
    "of a row have one scale.",
    "effects": "Differences in {metric} with 95 % intervals, not corrected for their number. Filled, in the colour of "
    "the better arm: decided after correction. Hollow: not decided, or equivalent.",
}


@dataclass(frozen=True)
class Attachment:
    """A picture made elsewhere (a UMAP, a contact sheet) that the report carries inside it.

    Attributes:
        title: Heading above it.
        caption: What it shows and how it was made.
        path: A PNG or SVG file.
    """

    title: str
    caption: str
    path: Path


def write_report(
    out: str | Path,
    *,
    title: str,
    question: str,
    frame: pd.DataFrame,
    contrasts: pd.DataFrame,
    primary: Mapping,
    arms: list[dict],
    attachments: list[Attachment],
    design: Mapping[str, str] | Iterable[tuple[str, str]],
    missing: list[str],
    cost: list[tuple[str, float]],
    environment: dict,
    methods_text: str,
    warnings: list[str],
    commands: list[str],
) -> Path:
    """Write `report.html` into a folder, with `tables/` (CSV, LaTeX) and `figures/` (PNG, SVG) beside it.

    The page is self-contained: it opens from disk, without a network, light or dark as the reader prefers. It is
    written last and by rename, so a page that exists is whole.

    Args:
        out: Folder; made if it is missing.
        title: Of the page.
        question: What was asked, in a sentence or two.
        frame: The tidy table.
        contrasts: `statistics.contrasts` of the same frame.
        primary: The contrast to headline: `protocol` and `metric`, and `fraction`, `task`, `strategy` where wanted.
        arms: One dict per pretraining: name, domain, boundary, images, steps, note (any but the name may be missing).
        attachments: Pictures to embed.
        design: What was run: heading -> text.
        missing: What was planned and is not there, one line each.
        cost: Stage and seconds.
        environment: Name -> version or setting.
        methods_text: Ready to paste into a paper.
        warnings: What a reader must know before believing the page.
        commands: That make the page again.

    Returns:
        Path of the page.

    Raises:
        UsageError: If an attachment is missing or is neither PNG nor SVG.
    """
    out = Path(out)
    pictures = [_embedded(attachment) for attachment in attachments]
    results = summary(frame)
    _write_tables(out / "tables", frame, contrasts, results)
    metrics = _metrics_to_draw(frame, primary)
    page = _template().render(
        title=title, question=question, answers=answers(contrasts, results, primary),
        results=_by_metric(results, primary),
        contrasts=_by_metric(contrasts, primary), figures=_draw(out / "figures", frame, contrasts, metrics),
        arms=arms, pictures=pictures, design=dict(design).items(), missing=missing, cost=cost, environment=environment,
        total=sum(seconds for _, seconds in cost), methods_text=methods_text.strip(), commands=commands,
        warnings=[*warnings, *unequal_budget(arms)], looks=figures.arm_looks(frame["pretraining"]), scratch=SCRATCH,
        primary=primary, several_tasks=frame["task"].nunique() > 1,
    )  # fmt: skip
    unfinished = out / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


def _write_tables(folder: Path, frame: pd.DataFrame, contrasts: pd.DataFrame, results: pd.DataFrame) -> None:
    write_table(frame, folder)
    contrasts.to_csv(folder / "contrasts.csv", index=False)
    results.to_csv(folder / "results.csv", index=False)
    cell = {"Task": "task", "Protocol": "protocol", "Strategy": "strategy", "Fraction": "fraction", "Metric": "metric"}

    def lay(table: pd.DataFrame, **columns) -> pd.DataFrame:
        shared = {title: table[name].map(percent if name == "fraction" else words) for title, name in cell.items()}
        return pd.DataFrame({**shared, **columns}).replace("", np.nan).dropna(axis=1, how="all").fillna("")

    c, r = contrasts, results
    interval = [
        f"{number(low, True)} to {number(high, True)}" for low, high in zip(c["ci_low"], c["ci_high"], strict=True)
    ]
    spread = [f"{number(m)} ± {number(s)}" for m, s in zip(r["mean"], r["sd"], strict=True)]
    signed = c["difference"].map(lambda x: number(x, True))
    latex = {
        "contrasts": lay(
            c, A=c["a"], B=c["b"], n=c["n_a"].astype(str) + "/" + c["n_b"].astype(str), Difference=signed,
            **{"95 % interval": interval, "p (Holm)": c["p_holm"].map(p_value), "g": c["hedges_g"].map(number)},
            Verdict=c["verdict"],
        ),
        "results": lay(r, Pretraining=r["pretraining"], Boundary=r["boundary"], n=r["n"], **{"Mean ± SD": spread}),
    }  # fmt: skip
    for name, table in latex.items():
        text = table.to_latex(index=False, escape=True) if len(table) else ""
        text = text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace("< .001", "$<$ .001")
        (folder / f"{name}.tex").write_text(text, encoding="utf-8")


def _metrics_to_draw(frame: pd.DataFrame, primary: Mapping) -> list[str]:
    """The primary metric, and the first metric of every task and protocol that does not have it."""
    metrics = [primary["metric"]] if (frame["metric"] == primary["metric"]).any() else []
    for _, runs in frame.groupby(["task", "protocol"], sort=False):
        if not runs["metric"].isin(metrics).any():
            metrics.append(runs["metric"].iloc[0])
    return metrics


def _draw(folder: Path, frame: pd.DataFrame, contrasts: pd.DataFrame, metrics: list[str]) -> dict[str, list[dict]]:
    drawn = {kind: [] for kind in FIGURES}
    for metric in metrics:
        own = contrasts[contrasts["metric"] == metric]
        made = {
            "learning_curves": figures.learning_curves(frame, metric),
            "seed_points": figures.seed_points(frame, metric),
        }
        if len(own):
            made["effects"] = figures.effects(own)
        for kind, figure in made.items():
            caption = FIGURES[kind].format(metric=words(metric))
            caption += " “scratch” is random initialisation." if SCRATCH in set(frame["pretraining"]) else ""
            figures.save(figure, folder, f"{kind}_{metric}")
            drawn[kind].append({"svg": Markup(figures.inline_svg(figure, caption)), "caption": caption})
    return drawn


def _embedded(attachment: Attachment) -> dict:
    path = Path(attachment.path)
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: a report attaches PNG and SVG files, not '{path.suffix}'. Save it as one of them.")
    if not path.is_file():
        raise UsageError(f"{path}: no such file to attach to the report. Make it first, or leave it out.")
    data = base64.b64encode(path.read_bytes()).decode()
    return {"title": attachment.title, "caption": attachment.caption, "uri": f"data:{kind};base64,{data}"}


def _by_metric(contrasts: pd.DataFrame, primary: Mapping) -> dict[str, list[dict]]:
    """Contrasts as dicts, the primary metric first; within one from pairs inside the domain outwards."""
    order = sorted(set(contrasts["metric"]), key=lambda metric: (metric != primary["metric"], metric))
    near = [name for name in ("boundary_a", "boundary_b") if name in contrasts]
    outwards = (
        contrasts.sort_values(near, key=lambda c: c.map(NEARNESS).fillna(3), kind="stable") if near else contrasts
    )
    return {metric: _records(outwards[outwards["metric"] == metric]) for metric in order}


def _records(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {"number": number, "p": p_value, "words": words, "percent": percent, "whole": whole, "duration": duration}
    environment.filters.update(shown)
    return environment.get_template("report.html.jinja")
