"""Gather the results and records of a study into the evidence of its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import pandas as pd

from ssl_transfer.cards import TRIVIAL, BackboneCard
from ssl_transfer.console import stage, warn
from ssl_transfer.cost import Cost
from ssl_transfer.data.inspect import contact_sheet
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import BackboneError, StoreError, UsageError
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.protocols import FROZEN, PROTOCOLS
from ssl_transfer.result import EvalResult, Ranking, Tuning
from ssl_transfer.run import read_log
from ssl_transfer.study.arms import compared
from ssl_transfer.study.control_arms import PERMUTATION
from ssl_transfer.study.decided import primary_cells, study_decisions
from ssl_transfer.study.finished import finished
from ssl_transfer.study.flow import images_and_patients
from ssl_transfer.study.job_state import failure, record, status
from ssl_transfer.study.methods_text import methods_text, study_design
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.planned import planned_runs
from ssl_transfer.study.planned_contrasts import study_comparisons
from ssl_transfer.study.predictions import StoredPredictions
from ssl_transfer.study.report.evidence import CONTAMINATION_COLUMNS, TUNING_COLUMNS, Attachment, Evidence, Provenance
from ssl_transfer.study.report.markdown_page import fill_page
from ssl_transfer.study.report.page import write_report
from ssl_transfer.study.report.wording import words
from ssl_transfer.study.scope import study_scope
from ssl_transfer.study.statistics import subgroup_runs
from ssl_transfer.study.table import CLEAN, coordinates, external_table, study_table, write_table
from ssl_transfer.writing import writes

Result = TypeVar("Result", Tuning, Ranking)
HERE = ("done", "not needed")  # states of jobs that the report does not miss
MISSING_LISTED = 40
SHEET_IMAGES = 48
PUBLIC = "public weights: unequal budget"


def report_study(
    plan: Plan, out: str | Path | None = None, pictures: Iterable[Attachment] = (), page: str | Path | None = None
) -> dict[str, Any]:
    """Build the report of the available results, and list what is missing.

    Args:
        plan: The plan of the study.
        out: Folder of the report; None: the folder of the study.
        pictures: Pictures to embed, besides contact sheets of the stores of the study.
        page: A Markdown page whose tables, figures and texts are those of the report, see `report.markdown_page`.

    Returns:
        `report` (path), `page`, `runs`, `runs_done`, `missing` (jobs), `answers` (sentences), `seconds` (by kind of job).
    """
    folder = Path(out) if out else plan.folder
    with stage("reading results"):
        results = dict(finished(plan))
        controls = {kind: list(dict(finished(plan, kind)).values()) for kind in (TRIVIAL, PERMUTATION)}
    states = status(plan).states
    evidence = study_evidence(plan, results, states, pictures, controls)
    with stage(f"statistics of {len(results)} runs"):
        answers = evidence.sentences
    with writes(folder, "Results are kept; make the report again, or into another folder with --out."):
        write_table(evidence.frame, folder)
    with stage("report"), writes(folder, "Results are kept; make the report again, or into another folder with --out."):
        report = write_report(folder, evidence)
    return {
        "report": str(report),
        **({"page": str(fill_page(Path(page), folder, evidence))} if page else {}),
        "runs": sum(1 for _ in plan.runs),
        "runs_done": len(results) + sum(map(len, controls.values())),
        "missing": sum(state not in HERE for state in states.values()),
        "not_needed": sum(state == "not needed" for state in states.values()),
        "answers": answers,
        "seconds": {name: round(cost.seconds, 1) for name, cost in evidence.provenance.cost},
    }


def study_evidence(
    plan: Plan,
    results: Mapping[Path, EvalResult],
    states: Mapping[str, str],
    pictures: Iterable[Attachment] = (),
    controls: Mapping[str, Sequence[EvalResult]] | None = None,
) -> Evidence:
    """The evidence for the report of a study.

    Args:
        plan: The plan of the study.
        results: Folder -> result, as `finished` yields them.
        states: Job -> state, as `job_state.status` returns them.
        pictures: Pictures to embed, besides contact sheets of the stores of the study.
        controls: Kind of control -> its results; None: without any.
    """
    tables = {kind: study_table(of_kind) for kind, of_kind in (controls or {}).items() if of_kind}
    listed = list(results.values())
    frame = study_table(listed)
    stated_metrics = {name: card["metric"] for name, card in plan.tasks.items()}
    comparisons = study_comparisons(plan, frame)
    statistics = comparisons.statistics
    decisions = study_decisions(plan, frame, states)
    provenance = Provenance(
        title=plan.recipe["title"],
        question=plan.recipe["question"],
        design=study_design(plan, listed),
        missing=_missing(plan, states),
        cost=_cost(plan),
        environment=_environment(listed),
        methods_text=methods_text(plan, listed, decisions),
        warnings=[*plan.recipe["notes"], *_warnings(listed)],
        commands=[f"ssl-transfer study {verb} {plan.stated_folder}" for verb in ("run", "report")],
        attachments=[*pictures, *_contact_sheets(plan)],
        tuning=_tuning(plan),
        extend=f"ssl-transfer study extend {plan.stated_folder}",
        scope=study_scope(plan, listed),
    )
    return Evidence(
        frame=frame,
        primaries=[primary_cells(contrast) for contrast in comparisons.stated_primaries()],
        decisions=decisions,
        provenance=provenance,
        arms=list(_arms(plan, frame)),
        stated_metrics=stated_metrics,
        margin=statistics.margin,
        relevant=statistics.relevant,
        family=statistics.family,
        pairs=statistics.pairs or compared(plan.arms),
        secondary=statistics.secondary,
        exploratory=statistics.exploratory,
        planned=planned_runs(plan, frame),
        validation=_validation(results, stated_metrics),
        scores=_scores(plan),
        predictions=StoredPredictions(results, {name: card["averaging"] for name, card in plan.tasks.items()}),
        trivial=tables.get(TRIVIAL),
        permuted=tables.get(PERMUTATION),
        contamination=_contamination(listed),
        external=external_table(listed),
        external_notes=list(_external_notes(listed)),
        subgroups=subgroup_runs(listed),
        flow=images_and_patients(listed),
    )


def _external_notes(results: Sequence[EvalResult]) -> Iterator[str]:
    """Yield the notes of external tests, each once for a target and store."""
    yield from dict.fromkeys(
        f"{words(result.task['name'])} on {store}: {note}"
        for result in results
        for store, test in result.external.items()
        for note in test["notes"]
    )


def _contamination(results: Sequence[EvalResult]) -> pd.DataFrame | None:
    """What is known of the test cases of every arm and target, columns `CONTAMINATION_COLUMNS`; None without results.

    Seeds of an arm may differ in their training images: a row has the largest counts of any run.
    """
    rows = [
        {
            "pretraining": result.backbone.get("pretraining") or result.backbone["name"],
            "task": result.task["name"],
            "statement": "unknown"
            if isinstance(result.seen_in_pretraining, str)
            else ("no", "yes")[result.seen_in_pretraining],
            **{name: result.contamination[name] for name in CONTAMINATION_COLUMNS[3:]},
        }
        for result in results
        if result.contamination
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=CONTAMINATION_COLUMNS).astype(dict.fromkeys(CONTAMINATION_COLUMNS[3:], "Int64"))
    return table.groupby(["pretraining", "task"], sort=False).max().reset_index()


def _tuning(plan: Plan) -> pd.DataFrame | None:
    """Every trial of the study's finished `tune` jobs, columns of `TUNING_COLUMNS`."""
    rows = []
    for job in plan.jobs:
        if job.stage != "tune" or (tuning := _readable(Tuning, job.output, "tuning.json")) is None:
            continue
        for trial in tuning.trials:
            settings = ", ".join(f"{name} {value}" for name, value in trial["settings"].items())
            value, selected = trial["validation"][tuning.metric], trial["settings"] == tuning.selected
            coordinates = (tuning.task, tuning.protocol, tuning.strategy, tuning.fraction, job.about["arm"])
            drawn = (job.about["seed"], tuning.seed)
            rows.append((*coordinates, *drawn, settings, tuning.metric, value, selected, trial["seconds"]))
    return pd.DataFrame(rows, columns=TUNING_COLUMNS).astype({"pretraining_seed": "Int64"}) if rows else None


def _readable(kind: type[Result], folder: str, record_name: str) -> Result | None:
    """The artifact of a finished job; None if there is none, or, with a warning, if it is damaged."""
    if not (Path(folder) / record_name).exists():
        return None
    try:
        return kind.load(folder)
    except UsageError as error:
        warn(f"left out: {error}")
        return None


def _scores(plan: Plan) -> pd.DataFrame | None:
    """Transferability scores and probes of every backbone, from the study's finished `rank` jobs."""
    rows = []
    for job in plan.jobs:
        if job.stage != "rank" or (ranking := _readable(Ranking, job.output, "rank.json")) is None:
            continue
        sign = metric_sign(ranking.metric)  # so that more is better, for probes too
        shared = {"pretraining": job.about["arm"], "pretraining_seed": job.about["seed"], "task": job.about["task"]}
        for backbone in ranking.backbones:
            probes = {name: value for name in FROZEN if (value := backbone.value(name)) is not None}
            values = {**{name: sign * value for name, value in probes.items()}, **backbone.scores}
            rows += [
                {**shared, "criterion": name, "value": value} for name, value in values.items() if value is not None
            ]
    return pd.DataFrame(rows).astype({"pretraining_seed": "Int64"}) if rows else None


def _arms(plan: Plan, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of the report's table of pretrainings, from the card of the first finished backbone of each.

    Images, steps, FLOPs and minutes are those of all stages: a chain has the budget of its parents, too. The latter two are means
    over the finished pretrainings of an arm.
    """
    first: dict[str, Job] = {}
    costs = _pretraining_costs(plan)
    for job in plan.jobs:
        if job.stage == "pretrain":
            first.setdefault(job.about["arm"], job)
    for arm in plan.arms:
        runs = frame[frame["pretraining"] == arm["name"]]
        card = _backbone_card(first[arm["name"]]) if arm["name"] in first else None
        boundaries = list(dict.fromkeys(runs["boundary"].dropna()))
        notes = []
        if arm["backbone"]:
            notes.append(PUBLIC)
        if arm["init"]:
            notes.append(f"starts from {arm['init']}")
        if arm.get("teacher"):
            notes.append(f"distilled from {arm['teacher']}")
        if card and len(card.stages) > 1:
            notes.append(_stages(card))
        if arm["untrained"]:
            notes.append("random initialisation, same architecture and seeds")
        trained = costs.get(arm["name"], [])
        flops = [cost.flops for cost in trained if cost.flops is not None]
        yield {
            "name": arm["name"],
            "seeds": int(runs["pretraining_seed"].nunique()),
            "domain": (card and card.source_domain) or "",
            "boundary": boundaries[0] if len(boundaries) == 1 else "",
            "images": card and card.images,
            "steps": card and card.steps,
            "flops": fmean(flops) if flops else None,
            "minutes": fmean(cost.seconds for cost in trained) / 60 if trained else None,
            "note": "; ".join(notes),
        }


def _pretraining_costs(plan: Plan) -> dict[str, list[Cost]]:
    """Arm -> the cost of each of its finished pretrainings together with the parents that it started from."""
    of_jobs: dict[str, Cost] = {}
    of_arms: dict[str, list[Cost]] = {}
    for job in plan.jobs:  # each after those that it depends on
        if job.stage == "pretrain" and (done := record(plan, job)):
            own = Cost.of_record(done.get("spent") or {}).lasting(done["seconds"], job.resources["gpus"])
            of_jobs[job.id] = sum((of_jobs[parent] for parent in job.inputs if parent in of_jobs), own)
            of_arms.setdefault(job.about["arm"], []).append(of_jobs[job.id])
    return of_arms


def _stages(card: BackboneCard) -> str:
    """The images of each stage of a chain; one that began with public weights has no known budget."""
    images = [sum(n for n in stage.images.values() if n is not None) for stage in card.stages]
    parts = [
        (f"{n:,} {stage.domain}" if n else f"public weights ({stage.domain})")
        + (" (teacher)" if stage.of_teacher else "")
        for n, stage in zip(images, card.stages, strict=True)
    ]
    return f"images by stage: {', then '.join(parts)}" + (f"; {PUBLIC}" if card.images is None else "")


def _backbone_card(job: Job) -> BackboneCard | None:
    """The card of the backbone of a pretraining job; None before it is done."""
    folder = Path(job.output) / "backbone"
    try:
        return BackboneCard.load(folder) if (folder / "card.json").exists() else None
    except BackboneError as error:
        warn(f"left out: {error}")
        return None


def _contact_sheets(plan: Plan) -> Iterator[Attachment]:
    """Yield a contact sheet of every store that the study has ingested; drawn once."""
    for job in plan.jobs:
        if job.stage == "ingest" and (Path(job.output) / "card.json").exists():
            path = plan.folder / "pictures" / f"{job.id}.png"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                try:
                    contact_sheet(ImageStore(job.output), path, SHEET_IMAGES)
                except StoreError as error:
                    warn(f"left out: {error}")
                    continue
            yield Attachment(f"Images: {job.about['store']}", f"Examples from {Path(job.words[1]).name}.", path)


def _missing(plan: Plan, states: Mapping[str, str]) -> list[str]:
    """A line per job that is not done, or per kind of job if there are many."""
    lines = []
    for job in plan.jobs:
        if states[job.id] not in HERE:
            failed = failure(plan, job) if states[job.id] == "failed" else None
            lines.append(f"{job.title}: {states[job.id]}" + (f" ({failed['error']})" if failed else ""))
    if len(lines) <= MISSING_LISTED:
        return lines
    counts = Counter((job.stage, states[job.id]) for job in plan.jobs if states[job.id] not in HERE)
    return (
        [f"{name}: {n} jobs {state}" for (name, state), n in counts.items()]
        + lines[:MISSING_LISTED]
        + [f"… and {len(lines) - MISSING_LISTED} more: ssl-transfer study status {plan.stated_folder}"]
    )


def _cost(plan: Plan) -> list[tuple[str, Cost]]:
    """The cost of every stage, summed over the records of its jobs."""
    spent: dict[str, Cost] = {}
    for job in plan.jobs:
        if done := record(plan, job):
            name, stated = job.cost["like"].split()[0], Cost.of_record(done.get("spent") or {})
            spent[name] = spent.get(name, Cost()) + stated.lasting(done["seconds"], job.resources["gpus"])
    return list(spent.items())


def _environment(results: Iterable[EvalResult]) -> dict[str, Any]:
    """Versions and devices of all results; where they differ, all values are listed."""
    values_of: dict[str, dict[str, None]] = {}
    for result in results:
        for key, value in _flat(result.environment):
            if key != "time":
                values_of.setdefault(key, {})[value] = None
    return {key: ", ".join(values) for key, values in values_of.items()}


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, json.dumps(value).strip('"')


def _warnings(results: Sequence[EvalResult]) -> Iterator[str]:
    """Yield notes shared by most results of a target and protocol, and arms that were pretrained on images of the target."""
    notes: Counter = Counter()
    for result in results:
        notes.update((result.task["name"], result.protocol, note) for note in {*result.notes})
    runs = Counter((result.task["name"], result.protocol) for result in results)
    shared: dict[str, list[str]] = {}
    for (task, protocol, note), n in notes.items():
        if 2 * n > runs[task, protocol]:
            shared.setdefault(note, []).append(f"{words(task)} by {words(protocol)}")
    for note, settings in shared.items():
        yield f"{', '.join(settings)}: {note}"
    yield from _seen(results)


def _seen(results: Sequence[EvalResult]) -> Iterator[str]:
    """Yield which arms have seen images of a target in pretraining: test cases, or others of its store alone."""
    most: dict[tuple[str, str], int] = {}
    of: dict[tuple[str, str], int | None] = {}
    for result in results:
        if result.seen_in_pretraining is True:
            cell = (result.backbone["pretraining"], result.task["name"])
            counts = result.contamination or {"seen": 0, "cases": None}
            most[cell], of[cell] = max(counts["seen"], most.get(cell, 0)), counts["cases"]
    tested = [
        f"{arm} on {words(task)}: {most[arm, task]} of {of[arm, task]}" for arm, task in sorted(most) if most[arm, task]
    ]
    others = [f"{arm} on {words(task)}" for arm, task in sorted(most) if not most[arm, task]]
    if tested:
        yield f"Test cases that were seen in pretraining (see that section for the scores on the others): {'; '.join(tested)}."
    if others:
        yield f"Pretrained on training images (without labels) of the target's own store: {'; '.join(others)}."


def _validation(results: Mapping[Path, EvalResult], main_metrics: Mapping[str, str]) -> pd.DataFrame | None:
    """Validation curves of every fine-tune without noise; its seconds are divided evenly among its steps."""
    rows = []
    for folder, result in results.items():
        log, columns = folder / "log.jsonl", coordinates(result)
        if not PROTOCOLS[result.protocol].has_strategies or columns.pop("noise") != CLEAN or not log.exists():
            continue
        name = f"val_{main_metrics[columns['task']]}"
        steps = read_log(log)
        per_step = result.cost["seconds"] / max(1, steps[-1]["step"] if steps else 1)
        del columns["noise_sigma"]
        rows += [
            {
                **columns,
                "metric": name[4:],
                "step": check["step"],
                "seconds": check["step"] * per_step,
                "value": check[name],
            }
            for check in steps
            if check.get(name) is not None
        ]
    return pd.DataFrame(rows) if rows else None
