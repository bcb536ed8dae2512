"""Reports of external results (published logs, other tools) in tidy form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.console import warn
from ssl_transfer.errors import UsageError
from ssl_transfer.study.external_table import read_tidy
from ssl_transfer.study.report.evidence import Evidence, Provenance
from ssl_transfer.study.report.page import write_report

FAMILY = ("protocol", "metric")  # other programs' tables seldom have a plan: fractions count in one family


def report_external_results(
    results: str | Path,
    out: str | Path | None = None,
    *,
    margin: float | None = None,
    family: Sequence[str] | None = None,
    domains: str | Path | None = None,
    primary: Mapping[str, str] | None = None,
    paired: bool = False,
) -> dict[str, Any]:
    """Write the report of results that another tool made.

    Args:
        results: Tidy CSV (see `read_tidy`); rows of boundary `trivial` are a control, in no contrast.
        out: Folder; None: `studies/` and the name of the CSV.
        margin: Largest difference that counts as equivalent; None: nothing is equivalent.
        family: Columns within which Holm's correction is applied; None: `protocol` and `metric`.
        domains: CSV with pretraining, task and boundary.
        primary: Columns and values of the contrast that the answer rests on; None: the first protocol and metric of the table.
        paired: Whether runs of equal pretraining seed and evaluation seed share their label subset, head and order in all
            arms: arms are then compared in pairs, else by Welch's test.

    Returns:
        `report` (path), `contrasts` (their number) and `answers` (sentences).

    Raises:
        UsageError: If a file cannot be read or has a value that cannot be meant, or `primary` lacks the protocol or the metric.
    """
    results = Path(results)
    command = _command(results, margin, family, domains, primary) + (" --paired" if paired else "")
    family = tuple(family or FAMILY)
    frame, notes = read_tidy(results, domains)
    for note in notes:
        warn(note)
    if paired and frame["draw"].isna().all():  # label subsets are drawn anew for each pretraining seed
        frame["draw"] = frame.groupby(["pretraining_seed", "seed"], dropna=False).ngroup().astype("Int64")
    is_trivial = (frame["boundary"] == TRIVIAL).fillna(False).astype(bool)
    frame, trivial = frame[~is_trivial], frame[is_trivial]
    test = "paired t-test over shared" if paired else "Welch’s t-test over"
    unit = f"{test} pretraining seeds, or over evaluation seeds where a pretraining has one seed"
    equivalence = f"equivalence margin {margin:g}" if margin else "no equivalence margin was stated"
    provenance = Provenance(
        title=f"Results of {results.name}",
        question="Which of these pretrainings transfers best, and how certain is that?",
        design={
            "Source": f"{results}, external: {len(frame)} values.",
            "Tests": f"{unit}; Holm’s correction over {', '.join(family)}; {equivalence}.",
        },
        methods_text=f"{unit} (ddof 1), two-sided, with Holm’s correction over all pairs of one {' and '.join(family)}; "
        f"Hedges’ g as effect size; {equivalence}.",
        warnings=["These results are external: their splits, budgets and model selection are not verified.", *notes],
        commands=[command],
    )
    evidence = Evidence(
        frame=frame,
        primaries=[_primary(primary, frame)],
        provenance=provenance,
        arms=[{"name": arm} for arm in frame["pretraining"].unique()],
        margin=margin,
        family=family,
        trivial=trivial,
        shared_draws=paired,
        exploratory=(),
    )
    page = write_report(out or Path("studies") / results.stem, evidence)
    return {"report": str(page), "contrasts": len(evidence.contrasts), "answers": evidence.sentences}


def _command(
    results: Path,
    margin: float | None,
    family: Sequence[str] | None,
    domains: str | Path | None,
    primary: Mapping[str, str] | None,
) -> str:
    """The command line of a report."""
    flags = {
        "results": results,
        "margin": margin,
        "family": ",".join(family or ()),
        "domains": domains,
        "primary": ",".join(f"{key}={value}" for key, value in (primary or {}).items()),
    }
    return "ssl-transfer study report" + "".join(f" --{name} {value}" for name, value in flags.items() if value)


def _primary(primary: Mapping[str, str] | None, frame: pd.DataFrame) -> dict[str, Any]:
    """The primary contrast: as requested, or the first protocol and metric of the table."""
    if primary is None:
        return {"protocol": frame["protocol"].iloc[0], "metric": frame["metric"].iloc[0]}
    if not {"protocol", "metric"} <= set(primary):
        pairs = ",".join(f"{key}={value}" for key, value in primary.items())
        raise UsageError(f"--primary {pairs}: expected at least protocol=…,metric=…")
    return {key: float(value) if key in ("fraction", "noise_sigma") else value for key, value in primary.items()}
