"""`ssl-transfer study plan|run|status|report|extend|freeze|job`: many evaluations from one YAML."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import at_least_one
from ssl_transfer.cli.stages import check, perform
from ssl_transfer.cli.study_flops import expected_flops
from ssl_transfer.cli.study_text import study_text
from ssl_transfer.cli.verb import Verb
from ssl_transfer.errors import UsageError


def run_study(
    study: str | Path, out: str | Path | None = None, *, jobs: int | None = 1, **overrides: Any
) -> dict[str, Any]:
    """Plan a study and do every job that is not done.

    Args:
        study: A study's YAML, its name in `recipes/studies/`, or the folder of a planned study.
        out: Folder of the study; None: `studies/NAME`.
        jobs: Number of jobs at once. 1 does them one after the other in this process, more in worker processes with their
            share of the cores each. None: as many as the command line takes by default.
        overrides: Settings that override the YAML, by dotted key.

    Returns:
        How many jobs and runs are in which state.

    Raises:
        RecipeError: If the YAML or a setting of a job is wrong; nothing was computed.
        RunError: If a job failed.
    """
    from ssl_transfer.study import stage

    return stage.run(study, perform, check, overrides, out, jobs)


def arguments(parser: argparse.ArgumentParser) -> None:
    """An action, a study, settings; and of reports of results that were made elsewhere."""
    parser.add_argument(
        "action",
        choices=("plan", "run", "status", "report", "extend", "freeze", "job"),
        help="plan: list jobs and cost; run: do every job that is not done; status: count them; report: write the HTML page; "
        "extend: what more seeds would decide; freeze: fix the design; job: do one job, as clusters do",
    )
    parser.add_argument("study", type=Path, nargs="?", help="a study's YAML, or its folder once it is planned")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides the YAML; of `job`: the job's id")
    parser.add_argument("--out", type=Path, help="folder (default studies/NAME)")
    parser.add_argument(
        "--jobs",
        type=at_least_one,
        metavar="N",
        help="run: jobs at once, each in a process of its own with its share of the cores (default by cores and memory); "
        "1: one after the other in this process",
    )
    parser.add_argument("--dry-run", action="store_true", help="plan: print what it would be, write nothing")
    parser.add_argument(
        "--power",
        action="store_true",
        help="plan: what the gate and the primary contrasts can decide at each look, and its cost",
    )
    parser.add_argument(
        "--flops",
        action="store_true",
        help="plan: count the operations of pretrainings, features and fine-tunes before they run; loads torch",
    )
    parser.add_argument(
        "--pilot", type=Path, metavar="FOLDER", help="plan: a study with results, for the variances behind --power"
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE.md",
        help="report: a Markdown page whose tables, figures and texts are replaced by those of the report; begun if missing",
    )
    parser.add_argument(
        "--results", type=Path, metavar="CSV", help="report: a tidy table made elsewhere, in place of a study"
    )
    parser.add_argument("--margin", type=float, help="report --results: largest difference that counts as equivalent")
    parser.add_argument(
        "--family", metavar="COLUMNS", help="report --results: of Holm's correction (default protocol,metric)"
    )
    parser.add_argument("--domains", type=Path, metavar="CSV", help="report --results: pretraining,task,boundary")
    parser.add_argument(
        "--paired", action="store_true", help="report --results: equal seeds had equal label subsets: compare in pairs"
    )
    parser.add_argument(
        "--primary", metavar="KEY=VALUE,…", help="report --results: the contrast that the answer rests on"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do one action."""
    action, study, overrides, out = options.action, options.study, options.overrides, options.out
    if options.jobs and action != "run":
        raise UsageError(f"study {action}: --jobs is for run.")
    if (options.power or options.pilot) and action != "plan":
        raise UsageError(f"study {action}: --power and --pilot are for plan.")
    if options.flops and (action != "plan" or options.dry_run):
        raise UsageError(
            f"study {action}: --flops is for plan, and reads the recipes that it writes: leave out --dry-run."
        )
    if options.page and (action != "report" or options.results):
        raise UsageError(f"study {action}: --page is for the report of a study.")
    if options.results:
        if action != "report":
            raise UsageError(f"study {action}: --results is for report.")
        return _external(options)
    if study is None:
        raise UsageError(f"study {action}: expected a study's YAML, or its folder.")
    from ssl_transfer.study import stage

    if action == "plan":
        count = expected_flops if options.flops else None
        return stage.plan(study, overrides, out, options.dry_run, options.power, options.pilot, count)
    if action == "run":
        return stage.run(study, perform, check, overrides, out, options.jobs)
    if action == "job":
        if len(overrides) != 1:
            raise UsageError("study job: expected the study's folder and one job's id.")
        return stage.job(study, overrides[0], perform)
    if action == "report":
        return stage.report(study, overrides, out, options.page)
    actions = {"status": stage.status, "extend": stage.extend, "freeze": stage.freeze}
    return actions[action](study, overrides, out)


def _external(options: argparse.Namespace) -> dict[str, Any]:
    """Report results that were made elsewhere."""
    from ssl_transfer.study.external_results import report_external_results

    primary = dict(part.partition("=")[::2] for part in options.primary.split(",")) if options.primary else None
    family = options.family.split(",") if options.family else None
    return report_external_results(
        options.results,
        options.out,
        margin=options.margin,
        family=family,
        domains=options.domains,
        primary=primary,
        paired=options.paired,
    )


VERB = Verb("many evaluations from one YAML: plan, run, status, report, extend, freeze", arguments, run, study_text)
