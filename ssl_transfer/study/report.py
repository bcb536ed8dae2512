"""The report: one page that says which pretraining to take, how sure that is, and everything it rests on."""

from __future__ import annotations

import base64
import math
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
from ssl_transfer.study.figures import percent, words
from ssl_transfer.study.statistics import CELL, minimal_detectable_effect, summary
from ssl_transfer.study.table import SCRATCH, write_table

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
FIGURES = {
    "learning_curves": "Learning curves of {metric}: each small point is one run, lines join the means of the seeds.",
    "seed_points": "Every seed of {metric}: points are pretraining seeds, fine-tuning seeds averaged within them (where "
    "an arm has one pretraining: its fine-tuning seeds). The bar is the 95 % t-interval of the mean. Panels of a row "
    "have one scale.",
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
        warnings=[*warnings, *_unequal_budget(arms)], looks=figures.arm_looks(frame["pretraining"]), scratch=SCRATCH,
        primary=primary, several_tasks=frame["task"].nunique() > 1,
    )  # fmt: skip
    unfinished = out / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


# --- the answer in words ---------------------------------------------------------------------------------------------


def answers(contrasts: pd.DataFrame, results: pd.DataFrame, primary: Mapping) -> list[dict]:
    """What the primary contrasts say: one answer per task and strategy they were taken on.

    Args:
        contrasts: As `statistics.contrasts` returns them.
        results: As `statistics.summary` returns them.
        primary: As for `write_report`.

    Returns:
        Dicts of `where` (task, protocol, fraction, metric), `advice` (what to take), `pairs` (contrasts as dicts)
        and `detects` (what the design can find). Empty if nothing was measured there.
    """
    chosen = contrasts[_matches(contrasts, primary)]
    found = []
    for (task, strategy, fraction), pairs in chosen.groupby(["task", "strategy", "fraction"], dropna=False):
        cell = {**primary, "task": task, "strategy": strategy, "fraction": fraction}
        protocol = " · ".join(filter(None, [words(primary["protocol"]), words(strategy)]))
        share = f"with {percent(fraction)} of the labelled patients" if percent(fraction) else ""
        where = ", ".join(filter(None, [words(task), protocol, share, words(primary["metric"])]))
        spread = results.loc[_matches(results, cell), "sd"]
        found.append(
            {"where": where, "advice": advice(pairs), "pairs": _records(pairs), "detects": _detects(pairs, spread)}
        )
    return found


def advice(pairs: pd.DataFrame) -> str:
    """Which arm to take, in a sentence that claims no more than the verdicts do.

    Args:
        pairs: All contrasts of one cell.
    """
    arms = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    beaten = {arm: set() for arm in arms}  # arm -> those it was better than
    equivalent = set()
    for row in pairs.itertuples():
        if row.verdict.startswith("better"):
            beaten[row.a].add(row.b)
        elif row.verdict.startswith("worse"):
            beaten[row.b].add(row.a)
        elif row.verdict.startswith("equivalent"):
            equivalent.add(frozenset((row.a, row.b)))
    decided = ~pairs["verdict"].str.startswith("not decided")
    one_checkpoint = (decided & (pairs["unit"] == "seed")).any()
    only = " This holds for the checkpoints compared, not for their recipes." if one_checkpoint else ""
    losers = set().union(*beaten.values())
    if not losers:
        return _undecided(arms, equivalent) + only
    unbeaten = [arm for arm in arms if arm not in losers]
    most = max((len(beaten[arm]) for arm in unbeaten), default=0)
    leaders = [arm for arm in unbeaten if len(beaten[arm]) == most > 0]
    if not leaders:
        return (
            f"Not decided: no arm stands unbeaten with a win of its own among {_list(arms)}; see the pairs below."
            + only
        )
    return _take(leaders, arms, beaten, equivalent) + only


def _undecided(arms: list[str], equivalent: set) -> str:
    if len(equivalent) == len(arms) * (len(arms) - 1) // 2:
        return f"Take any: {_list(arms)} are equivalent within the stated margin."
    text = f"Not decided: this design does not tell {_list(arms)} apart."
    return text + (" No pretraining was shown to be better than random initialisation." if SCRATCH in arms else "")


def _take(leaders: list[str], arms: list[str], beaten: dict, equivalent: set) -> str:
    behind = [arm for arm in arms if all(arm in beaten[leader] for leader in leaders)]
    rest = [arm for arm in arms if arm not in behind and arm not in leaders]
    same = [arm for arm in rest if all(frozenset((arm, leader)) in equivalent for leader in leaders)]
    open_ = [arm for arm in rest if arm not in same]
    start = "Do not pretrain: " if leaders == [SCRATCH] else "Take "
    text = start + _list(leaders, "or")
    if behind:
        text += f"{' was' if leaders == [SCRATCH] else ':'} better than {_list(behind)}"
    if same:
        text += f"; equivalent to {_list(same)} within the margin"
    if open_:
        text += f"; against {_list(open_)} the design does not decide"
    if len(leaders) > 1:
        together = all(frozenset((x, y)) in equivalent for x in leaders for y in leaders if x != y)
        text += "; they are equivalent within the margin" if together else "; between them the design does not decide"
    return text + "."


def _list(arms: list[str], word: str = "and") -> str:
    names = ["random initialisation (scratch)" if arm == SCRATCH else arm for arm in arms]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _detects(pairs: pd.DataFrame, spread: pd.Series) -> str:
    n_a, n_b = min(zip(pairs["n_a"], pairs["n_b"], strict=True), key=sum)
    effect = minimal_detectable_effect(n_a, n_b)
    if math.isnan(effect):
        return f"With {n_a} against {n_b} no difference can be tested: each side needs two seeds at least, better four."
    pooled = math.sqrt(float(np.mean(np.square(spread)))) if len(spread) else math.nan
    absolute = f", here about {number(effect * pooled)}" if pooled > 0 else ""
    return (
        f"What this design can detect: with {n_a} against {n_b} seeds, 80 % power needs a true difference of "
        f"{effect:.2g} standard deviations{absolute}, and more after correction for several tests. "
        "A smaller difference may exist and stay undecided."
    )


def _matches(table: pd.DataFrame, cell: Mapping) -> np.ndarray:
    keep = np.ones(len(table), bool)
    for name, value in cell.items():
        if name not in CELL or value is None:
            continue
        column = table[name]
        keep &= np.isclose(column.astype(float), value, equal_nan=True) if name == "fraction" else (column == value)
    return keep


def _unequal_budget(arms: list[dict]) -> list[str]:
    found = []
    for budget in ("images", "steps"):
        known = {a["name"]: a[budget] for a in arms if a["name"] != SCRATCH and a.get(budget) is not None}
        if len(set(known.values())) > 1:
            shares = ", ".join(f"{name} {whole(value)}" for name, value in known.items())
            found.append(f"Unequal budget: pretrainings differ in {budget} ({shares}), so not in domain alone.")
    return found


# --- numbers for readers ---------------------------------------------------------------------------------------------


def number(value: float | None, sign: bool = False) -> str:
    """Three digits: 0.873, 4.94, 12.3, 1234; a dash for what is not known; `sign` shows + as well as −."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 3 if abs(value) < 0.9995 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value as papers print it: .012, < .001; a dash if there is none."""
    if p is None or math.isnan(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def whole(value) -> str:
    """Thousands apart (12,800); anything else as it is; a dash for None."""
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds: float) -> str:
    """0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


# --- tables, figures, page -------------------------------------------------------------------------------------------


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
    outwards = contrasts.sort_values(near, key=lambda c: c.map(_distance), kind="stable") if near else contrasts
    return {metric: _records(outwards[outwards["metric"] == metric]) for metric in order}


def _distance(boundary: str) -> int:
    return {"none": 0, "soft": 1, "hard": 2}.get(boundary, 3)


def _records(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {"number": number, "p": p_value, "words": words, "percent": percent, "whole": whole, "duration": duration}
    environment.filters.update(shown)
    return environment.get_template("report.html.jinja")
