"""The report: one page that says which pretraining to take, how sure that is, and everything it rests on."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from ssl_transfer.console import duration
from ssl_transfer.errors import UsageError
from ssl_transfer.study.report import headline
from ssl_transfer.study.report.boundaries import by_boundary
from ssl_transfer.study.report.drawing import MARKER_NAMES, arm_looks
from ssl_transfer.study.report.gallery import CAPTIONS, Gallery
from ssl_transfer.study.report.guidance import answers, unequal_budget
from ssl_transfer.study.report.headline import (
    MainMetrics,
    at_main,
    at_the_setting,
    primaries_of,
    primary_noise,
    untrained,
)
from ssl_transfer.study.report.score_validity import ScoreValidity, named
from ssl_transfer.study.report.seed_variance import EFFECTS, seed_luck
from ssl_transfer.study.report.strategies import unbeaten
from ssl_transfer.study.report.tables import page_tables, write_tables
from ssl_transfer.study.report.targets import FEW, by_target
from ssl_transfer.study.report.validation_curves import SHARES, tidy, time_to_quality
from ssl_transfer.study.report.wording import (
    fine,
    listed,
    measure,
    noisy,
    number,
    p_value,
    percent,
    rounded,
    t_value,
    whole,
    words,
)
from ssl_transfer.study.statistics import CONTRAST_COLUMNS, SUMMARY_COLUMNS, summary
from ssl_transfer.study.table import CLEAN, complete

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


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
    primary: Mapping | Sequence[Mapping],
    arms: list[dict],
    attachments: list[Attachment],
    design: Mapping[str, str] | Iterable[tuple[str, str]],
    missing: list[str],
    cost: list[tuple[str, float]],
    environment: dict,
    methods_text: str,
    warnings: list[str],
    commands: list[str],
    main_metrics: Mapping[str, str] | None = None,
    strategies: pd.DataFrame | None = None,
    variance: pd.DataFrame | None = None,
    courses: pd.DataFrame | None = None,
    cases: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
) -> Path:
    """Write `report.html` into a folder, with `tables/` (CSV, LaTeX) and `figures/` (PNG, SVG) beside it.

    The page is self-contained: it opens from disk, without a network, light or dark as the reader prefers. It is
    written last and by rename, so a page that exists is whole.

    Args:
        out: Folder; made if it is missing.
        title: Of the page.
        question: What was asked, in a sentence or two.
        frame: The tidy table; without rows the page says that nothing is finished yet.
        contrasts: `statistics.contrasts` of the same frame.
        primary: The contrast to headline, or several, answered in their order: `protocol` and `metric`, and `fraction`,
            `task` (one or a list), `strategy` where wanted; also `noise` and `noise_sigma` if the headline, and the
            figures but the robustness curves, are not to be those of the runs without noise. Where the page needs a
            single one, such as for its noise setting, it is the first.
        arms: One dict per pretraining: name, domain, boundary, images, steps, note (any but the name may be missing).
            Random initialisation is the arm `scratch`, and any of boundary `scratch`, here or in the frame.
        attachments: Pictures to embed.
        design: What was run: heading -> text.
        missing: What was planned and is not there, one line each.
        cost: Stage and seconds.
        environment: Name -> version or setting.
        methods_text: Ready to paste into a paper.
        warnings: What a reader must know before believing the page.
        commands: That make the page again.
        main_metrics: Target -> the metric by which it is told; default: see `headline.main_metrics`.
        strategies: `statistics.strategy_contrasts` of the same frame.
        variance: `statistics.variance_components` of the same frame.
        courses: Validation values over steps: columns of `courses.COURSE_COLUMNS`.
        cases: The same contrasts with patients as the unit: task, a, b, metric, difference, ci_low, ci_high, n_cases,
            n_patients.
        scores: What transferability scores and cross-validated probes said of the backbones: pretraining, pretraining_seed,
            task, criterion, value.

    Returns:
        Path of the page.

    Raises:
        UsageError: If an attachment is missing or is neither PNG nor SVG.
    """
    out, primaries = Path(out), primaries_of(primary)
    pictures = [_embedded(attachment) for attachment in attachments]
    facts = _Facts.of(frame, contrasts, primaries, arms, main_metrics, courses)
    luck = None if variance is None else seed_luck(variance, facts.results)
    foretold = ScoreValidity.of(scores, facts.frame, facts.main)
    write_tables(out / "tables", frame, facts.contrasts, facts.results, primaries[0], facts.main, strategies, luck)
    if foretold is not None:
        foretold.write(out / "tables")
    page = _template().render(
        title=title,
        question=question,
        arms=arms,
        pictures=pictures,
        design=dict(design).items(),
        missing=missing,
        cost=cost,
        environment=environment,
        total=sum(seconds for _, seconds in cost),
        methods_text=methods_text.strip(),
        commands=commands,
        warnings=[*warnings, *facts.warnings, *unequal_budget(arms)],
        asked="; ".join(_asked(facts.frame, one) for one in primaries),
        cases=None if cases is None else cases.to_dict("records"),
        **_findings(facts, strategies),
        **_adaptation(facts, strategies),
        luck=None if luck is None else _by_task(facts.headline(luck)),
        foretold=foretold,
        foretold_parts=_by_task(foretold.correlations) if foretold else None,
        effects=EFFECTS,
        figures=_drawn(out / "figures", facts, strategies, foretold),
    )
    unfinished = out / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


@dataclass(frozen=True)
class _Facts:
    """What all sections of the page start from; `targets` is the guidance."""

    frame: pd.DataFrame
    contrasts: pd.DataFrame
    results: pd.DataFrame
    primaries: list[Mapping]
    main: MainMetrics
    warnings: list[str]
    random: set[str]
    courses: pd.DataFrame | None
    targets: list[dict]
    looks: dict

    @classmethod
    def of(cls, frame, contrasts, primaries, arms, stated, courses) -> _Facts:
        frame = complete(frame)
        results = summary(frame) if len(frame) else pd.DataFrame(columns=SUMMARY_COLUMNS)
        contrasts = contrasts if len(contrasts) else pd.DataFrame(columns=CONTRAST_COLUMNS)
        main, warnings = headline.main_metrics(frame, primaries, stated)
        courses = None if courses is None else _ordered(tidy(courses), main)
        random = untrained(frame, arms)
        names = [*frame["pretraining"], *(() if courses is None else courses["pretraining"])]
        facts = cls(frame, contrasts, results, primaries, main, warnings, random, courses, [], arm_looks(names, random))
        facts.targets.extend(by_target(facts.headline(contrasts), results))
        return facts

    def headline(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows at main metrics and at the headline's noise setting, targets in order."""
        kept = at_main(
            at_the_setting(table.assign(strategy=table.get("strategy", "")), self.primaries[0])[0], self.main
        )
        return _ordered(kept, self.main)


def _ordered(table: pd.DataFrame, main: MainMetrics) -> pd.DataFrame:
    """Targets in one order throughout the page: those of the primary metrics first."""
    places = {task: place for place, task in enumerate(dict.fromkeys(task for task, _ in main))}
    return table.sort_values("task", key=lambda tasks: tasks.map(places), kind="stable")


def _findings(facts: _Facts, strategies: pd.DataFrame | None) -> dict[str, Any]:
    """What pretrainings are worth: for the answer, guidance, contrasts and results."""
    pairs = facts.headline(facts.contrasts)
    tables = {
        name: page_tables(getattr(facts, name), facts.primaries[0], facts.main, name)
        for name in ("contrasts", "results")
    }
    return {
        "runs": facts.frame["run_id"].nunique() if "run_id" in facts.frame else len(facts.frame),
        "answers": answers(facts.contrasts, facts.results, facts.primaries, strategies),
        "targets": facts.targets,
        "few": FEW,
        "boundaries": by_boundary(pairs),
        "main": dict.fromkeys(pairs["metric"]),
        "tables": tables,
        "looks": facts.looks,
        "marks": MARKER_NAMES,
        "random": facts.random,
        "noise": (facts.frame["noise"] != CLEAN).any(),
        "several_tasks": facts.frame["task"].nunique() > 1,
        "paired": "p_paired" in facts.contrasts,
    }


def _adaptation(facts: _Facts, strategies: pd.DataFrame | None) -> dict[str, Any]:
    """What strategies are worth, and how long adapting takes."""
    found = {"strategies": None, "times": None, "shares": SHARES}
    if strategies is not None and len(strategies):
        rows, names = facts.headline(strategies), sorted({*strategies["a"], *strategies["b"]})
        found["strategies"] = {"names": names, "counts": unbeaten(rows), "parts": _by_task(rows), "n": len(strategies)}
    if facts.courses is not None and len(facts.courses):
        found["times"] = _by_task(_ordered(time_to_quality(facts.courses), facts.main))
    return found


def _by_task(table: pd.DataFrame) -> list[dict]:
    """Parts of a table that the page shows under the name of each target."""
    parts = table.groupby("task", sort=False)
    return [
        {"task": task, "metrics": list(dict.fromkeys(own["metric"])), "rows": own.to_dict("records")}
        for task, own in parts
    ]


def _drawn(
    folder: Path, facts: _Facts, strategies: pd.DataFrame | None, foretold: ScoreValidity | None
) -> dict[str, list[dict]]:
    """Kind of figure -> what the page shows of each."""
    rows = [row for target in facts.targets for row in target["rows"]]
    evidence = [row[side]["row"] for row in rows for side in ("across", "random") if row[side]]
    gallery = Gallery(
        facts.frame,
        facts.headline(facts.contrasts),
        facts.headline(facts.results),
        evidence,
        strategies is not None and len(strategies) > 0,
        facts.courses,
        facts.primaries[0],
        facts.main,
        facts.looks,
        facts.random,
        foretold,
    )
    shown = {kind: [] for kind in CAPTIONS}
    for drawing in gallery.drawings():
        shown[drawing.kind].append(drawing.shown(folder))
    return shown


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
        "number": number,
        "p": p_value,
        "t": t_value,
        "words": words,
        "measure": measure,
        "percent": percent,
        "whole": whole,
        "duration": duration,
        "listed": listed,
        "rounded": rounded,
        "fine": fine,
        "named": named,
    }
    environment.filters.update(shown)
    return environment.get_template("page.html.jinja")
