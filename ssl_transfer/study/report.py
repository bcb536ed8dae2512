"""The report: one page that says which pretraining to take, how sure that is, and everything it rests on."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from ssl_transfer.errors import UsageError
from ssl_transfer.study import figures
from ssl_transfer.study.drawing import Looks, arm_looks, inline_svg, save
from ssl_transfer.study.guidance import answers, matches, primary_noise, unequal_budget
from ssl_transfer.study.listing import page_tables, write_tables
from ssl_transfer.study.statistics import summary
from ssl_transfer.study.table import CLEAN, SCRATCH, with_noise
from ssl_transfer.study.wording import duration, measure, noisy, number, p_value, percent, whole, words

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
FIGURES = {
    "learning_curves": "Learning curves of {metric}: each small point is one run, lines join the means of the seeds.",
    "robustness_curves": "Robustness of {metric} to noise: each small point is one run, lines join the means of the seeds; "
    "hollow marks at the left: without noise. Panels of a row have one scale and range.",
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
        primary: The contrast to headline: `protocol` and `metric`, and `fraction`, `task`, `strategy` where wanted; also
            `noise` and `noise_sigma` if the headline, and the figures but the robustness curves, are not to be
            those of the runs without noise.
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
    frame = with_noise(frame)
    results, looks = summary(frame), arm_looks(frame["pretraining"])
    write_tables(out / "tables", frame, contrasts, results)
    page = _template().render(
        title=title, question=question, answers=answers(contrasts, results, primary),
        results=page_tables(results, primary), contrasts=page_tables(contrasts, primary),
        figures=_draw(out / "figures", frame, contrasts, primary, looks), noise=(frame["noise"] != CLEAN).any(),
        arms=arms, pictures=pictures, design=dict(design).items(), missing=missing, cost=cost, environment=environment,
        total=sum(seconds for _, seconds in cost), methods_text=methods_text.strip(), commands=commands,
        warnings=[*warnings, *unequal_budget(arms)], looks=looks, scratch=SCRATCH,
        asked=_asked(frame, primary), several_tasks=frame["task"].nunique() > 1,
    )  # fmt: skip
    unfinished = out / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


def _metrics_to_draw(frame: pd.DataFrame, primary: Mapping) -> list[str]:
    """The primary metric, and the first metric of every task and protocol that does not have it."""
    metrics = [primary["metric"]] if (frame["metric"] == primary["metric"]).any() else []
    for _, runs in frame.groupby(["task", "protocol"], sort=False):
        if not runs["metric"].isin(metrics).any():
            metrics.append(runs["metric"].iloc[0])
    return metrics


def _draw(
    folder: Path, frame: pd.DataFrame, contrasts: pd.DataFrame, primary: Mapping, looks: Looks
) -> dict[str, list[dict]]:
    """Draw every kind of figure for every metric that is drawn, write it, and give it to the page with its caption."""
    drawn = {kind: [] for kind in FIGURES}
    for metric in _metrics_to_draw(frame, primary):
        runs, which = _at_the_setting(frame[frame["metric"] == metric], primary)
        pairs, _ = _at_the_setting(contrasts[contrasts["metric"] == metric], primary)
        made = {
            "learning_curves": figures.learning_curves(runs, metric, looks),
            "robustness_curves": figures.robustness_curves(frame, metric, looks),
            "seed_points": figures.seed_points(runs, metric, looks),
            "effects": figures.effects(pairs, looks) if len(pairs) else None,
        }
        for kind, figure in made.items():
            if figure is None:
                continue
            caption = FIGURES[kind].format(metric=measure(metric))
            caption += which if kind != "robustness_curves" else ""
            caption += " “scratch” is random initialisation." if SCRATCH in set(frame["pretraining"]) else ""
            save(figure, folder, f"{kind}_{metric}")
            drawn[kind].append({"svg": Markup(inline_svg(figure, caption)), "caption": caption})
    return drawn


def _at_the_setting(table: pd.DataFrame, primary: Mapping) -> tuple[pd.DataFrame, str]:
    """Rows at the headline's noise setting, with all rows of what was run at other settings only; a sentence on it."""
    setting = primary_noise(primary)
    own = pd.Series(matches(table, setting), index=table.index)
    elsewhere = ~own.groupby([table[name] for name in ("task", "protocol", "strategy")], dropna=False).transform("any")
    kept = table[own | elsewhere]
    if setting != {"noise": CLEAN} or len(kept) == len(table):
        return kept, ""  # titles name the noise
    return kept, " Runs without noise" + (", where there are such." if elsewhere.any() else ".")


def _asked(frame: pd.DataFrame, primary: Mapping) -> str:
    """The primary contrast in words."""
    setting = primary_noise(primary)
    noise = noisy(setting.get("noise", "noise"), setting.get("noise_sigma")) or "without noise"
    parts = [words(primary["protocol"]), measure(primary["metric"])]
    return ", ".join([*parts, noise] if (frame["noise"] != CLEAN).any() else parts)


def _embedded(attachment: Attachment) -> dict:
    path = Path(attachment.path)
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: a report attaches PNG and SVG files, not '{path.suffix}'. Save it as one of them.")
    if not path.is_file():
        raise UsageError(f"{path}: no such file to attach to the report. Make it first, or leave it out.")
    data = base64.b64encode(path.read_bytes()).decode()
    return {"title": attachment.title, "caption": attachment.caption, "uri": f"data:{kind};base64,{data}"}


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {
        "number": number, "p": p_value, "words": words, "measure": measure, "percent": percent, "whole": whole,
        "duration": duration,
    }  # fmt: skip
    environment.filters.update(shown)
    return environment.get_template("report.html.jinja")
