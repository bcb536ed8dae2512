"""Reports of results that were made elsewhere: published logs, another tool, in tidy form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.errors import UsageError
from ssl_transfer.study.report.guidance import answers
from ssl_transfer.study.report.page import write_report
from ssl_transfer.study.statistics import contrasts, strategy_contrasts, summary, variance_components

FAMILY = "protocol,metric"


def report_elsewhere(options: argparse.Namespace) -> dict[str, Any]:
    """`study report --results CSV [--margin M] [--family COLUMNS] [--domains CSV] [--primary KEY=VALUE,…] [--out DIR]`."""
    frame = read_tidy(options.results, options.domains)
    family = (options.family or FAMILY).split(",")
    table = contrasts(frame, margin=options.margin, family=family)
    primary = _primary(options.primary, frame)
    unit = "Welch’s t over pretraining seeds, or over fine-tuning seeds where a pretraining has one seed"
    margin = f"margin of equivalence {options.margin:g}" if options.margin else "no margin of equivalence was stated"
    given = [(name, getattr(options, name)) for name in ("results", "margin", "family", "domains", "primary")]
    page = write_report(
        options.out or Path("studies") / options.results.stem,
        title=f"Results of {options.results.name}",
        question="Which of these pretrainings is worth more, and how sure is that?",
        frame=frame,
        contrasts=table,
        primary=primary,
        arms=[{"name": arm} for arm in frame["pretraining"].unique()],
        attachments=[],
        design={
            "Source": f"{options.results}, made elsewhere: {len(frame)} values.",
            "Tests": f"{unit}; Holm over {', '.join(family)}; {margin}.",
        },
        missing=[],
        cost=[],
        environment={},
        methods_text=f"{unit} (ddof 1), two-sided, with Holm’s correction over all pairs of one {' and '.join(family)}; "
        f"Hedges’ g as effect size; {margin}.",
        warnings=["These results were made elsewhere: how splits, budgets and selection were done is not known here."],
        commands=["ssl-transfer study report" + "".join(f" --{name} {value}" for name, value in given if value)],
        strategies=strategy_contrasts(frame),
        variance=variance_components(frame),
    )
    return {
        "report": str(page),
        "contrasts": len(table),
        "answers": [f"{answer['where']}: {answer['advice']}" for answer in answers(table, summary(frame), primary)],
    }


def _primary(text: str | None, frame: pd.DataFrame) -> dict[str, Any]:
    """The contrast to headline: as asked, or the first protocol and metric of the table."""
    if text is None:
        return {"protocol": frame["protocol"].iloc[0], "metric": frame["metric"].iloc[0]}
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    if not {"protocol", "metric"} <= set(pairs):
        raise UsageError(f"--primary {text}: expected at least protocol=…,metric=…")
    return {key: float(value) if key in ("fraction", "noise_sigma") else value for key, value in pairs.items()}


def read_tidy(path: str | Path, domains: str | Path | None = None) -> pd.DataFrame:
    """A tidy table that was made elsewhere.

    Args:
        path: CSV with the columns protocol, pretraining, task, strategy, fraction, pretraining_seed, seed, metric, value; also
            boundary, noise and noise_sigma where there are such.
        domains: CSV with pretraining, task and boundary; None: the table's own boundaries, if any.

    Raises:
        UsageError: If a file is missing or not readable, or a column is missing.
    """
    frame = _csv(path, ("protocol", "pretraining", "task", "metric", "value"))
    for name in ("strategy", "fraction", "pretraining_seed", "seed", "boundary"):
        if name not in frame:
            frame[name] = None
    frame = frame.astype({"pretraining_seed": "Int64", "seed": "Int64", "fraction": "float64", "value": "float64"})
    if domains is not None:
        known = _csv(domains, ("pretraining", "task", "boundary")).set_index(["pretraining", "task"])["boundary"]
        keys = pd.MultiIndex.from_frame(frame[["pretraining", "task"]])
        frame["boundary"] = known.reindex(keys).to_numpy()
    return frame


def _csv(path: str | Path, needed: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable as CSV: {error}") from None
    if missing := [name for name in needed if name not in frame]:
        raise UsageError(f"{path}: no column {', '.join(missing)}; expected at least {', '.join(needed)}.")
    return frame
