"""What a study costs beside its computations, and what it gains by several jobs at once, on the quickstart.

    python benchmarks/study_overhead.py                  # about twenty minutes on two cores
    python benchmarks/study_overhead.py --scale tiny     # two minutes; too short for its ratios to mean much

In a new process each, one after the other: `quickstart --jobs 1`, and `quickstart` with as many jobs at once as it takes by
default. The first is timed inside, too: the sum of its bare steps is the time within the functions that compute (generating
and storing images, training loops, forward passes, fits of probes, neighbours, predictions, metrics with intervals, UMAP).
The rest is overhead: starting Python and its libraries, planning, opening, hashing and writing artifacts, the report.

Probes: on features of that quickstart, for every backbone, fraction and seed of its probes with at most 1,000 training rows,
one sweep of the probe's nine values of C and nine fits of scikit-learn's LogisticRegression, in turns, on the same
standardised features in float32 (its tolerance is the default, at which it stops farther from the optimum; also with
`tol=1e-6`).

The last line is one JSON object:

- `of_bare_steps`: seconds of one process over the sum of its bare steps;
- `of_one_process`: seconds with several jobs at once over those of one process;
- `probe_of_nine_fits`: seconds of the probes over those of scikit-learn; `probe_of_nine_fits_1e-6` with its smaller tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_transfer.processes import worker_processes

STEPS = {  # function that computes -> what it is called in the table
    "ssl_transfer.data.ingest.stage:ingest": "ingest",
    "ssl_transfer.training.loop:Training.run": "training loops",
    "ssl_transfer.models.embedding:embed": "forward passes",
    "ssl_transfer.evaluation.linear_probe:_fit": "fits of probes",
    "ssl_transfer.evaluation.knn:NeighborIndex.search": "nearest neighbours",
    "ssl_transfer.evaluation.finetune:_scores": "predictions",
    "ssl_transfer.evaluation.segment:_overlaps": "predictions",
    "ssl_transfer.measures.metrics:weighted_metrics": "metrics and intervals",
    "ssl_transfer.measures.metrics:overlap_intervals": "metrics and intervals",
    "ssl_transfer.quickstart:project": "UMAP",
}


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--jobs", type=int, help="jobs at once of the second run (default: as the quickstart decides)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, steps = _in_new_process(folder / "one", options.scale, 1, True)
        several, _ = _in_new_process(folder / "several", options.scale, options.jobs, False)
        print(f"one process {one:8.1f} s, of which")
        for step, seconds in sorted(steps.items(), key=lambda item: -item[1]):
            print(f"  {step:22s} {seconds:8.1f} s")
        print(f"  {'overhead':22s} {one - sum(steps.values()):8.1f} s")
        print(f"several jobs at once {several:8.1f} s", flush=True)
        ratios = {"of_bare_steps": one / sum(steps.values()), "of_one_process": several / one}
        ratios |= _probes(folder / "one")
    print(json.dumps({name: round(ratio, 3) for name, ratio in ratios.items()}))


def _in_new_process(out: Path, scale: str, jobs: int | None, inside: bool) -> tuple[float, dict[str, float]]:
    """Seconds of a quickstart from the start of its process to its end, and those inside its bare steps."""
    started = time.perf_counter()
    with worker_processes(1) as process:
        steps = process.submit(_quickstart, out, scale, jobs, inside).result()
    return time.perf_counter() - started, steps


def _quickstart(out: Path, scale: str, jobs: int | None, inside: bool) -> dict[str, float]:
    from ssl_transfer.cli.stages import perform
    from ssl_transfer.quickstart import quickstart

    steps = _timed_steps() if inside else {}
    with contextlib.redirect_stderr((out.parent / f"{out.name}.log").open("w")):
        quickstart(perform, out, scale, jobs)
    return dict(steps)


def _timed_steps() -> dict[str, float]:
    """Make every function of `STEPS` add its time to a table, unless another one that does has called it."""
    seconds: dict[str, float] = defaultdict(float)
    inside: list[str] = []

    def timed(function: Callable, step: str) -> Callable:
        @functools.wraps(function)
        def call(*arguments, **options):
            if inside:
                return function(*arguments, **options)
            inside.append(step)
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[step] += time.perf_counter() - started
                inside.pop()

        return call

    for target, step in STEPS.items():
        module, _, path = target.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        original = getattr(owner, name)
        changed = timed(original, step)
        setattr(owner, name, changed)
        for other in list(sys.modules.values()):  # modules that have imported it by name
            if getattr(other, "__name__", "").startswith("ssl_transfer") and getattr(other, name, None) is original:
                setattr(other, name, changed)
    return seconds


def _probes(study: Path) -> dict[str, float]:
    """Time of the study's probes of at most 1,000 rows over that of scikit-learn's fits."""
    from sklearn.linear_model import LogisticRegression

    from ssl_transfer.evaluation.linear_probe import STRENGTHS, _fit, _settings

    warnings.filterwarnings("ignore")
    settings, seconds = _settings("lbfgs", STRENGTHS, (), ()), defaultdict(list)

    def nine_fits(features, labels, **options):
        return [
            LogisticRegression(C=strength, max_iter=10_000, **options).fit(features, labels) for strength in STRENGTHS
        ]

    dims: set[int] = set()
    for features, labels, classes in _problems(study):
        dims.add(features.shape[1])
        contestants: dict[str, Callable] = {
            "ours": functools.partial(_fit, features, labels, np.ones(len(labels)), classes, settings),
            "nine_fits": functools.partial(nine_fits, features, labels),
            "nine_fits_1e-6": functools.partial(nine_fits, features, labels, tol=1e-6),
        }
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            seconds[name, len(labels)].append(time.perf_counter() - started)
    for rows in sorted({rows for _, rows in seconds}):
        medians = "   ".join(f"{name} {1000 * np.median(seconds[name, rows]):.1f} ms" for name in contestants)
        print(
            f"probe of {rows} rows, {min(dims)} to {max(dims)} features, median of {len(seconds['ours', rows])}: {medians}"
        )
    total = {name: sum(sum(taken) for (who, _), taken in seconds.items() if who == name) for name in contestants}
    return {f"probe_of_{name}": total["ours"] / total[name] for name in contestants if name != "ours"}


def _problems(study: Path):
    """Standardised training features, labels and number of classes of every probe of a study with at most 1,000 rows."""
    from ssl_transfer.data.tasks import open_task
    from ssl_transfer.features import Features
    from ssl_transfer.measures.standardize import Standardizer
    from ssl_transfer.study.plan import open_study

    plan, tasks = open_study(study), {}
    for job in plan.jobs:
        if job.words[:2] != ["evaluate", "linear_probe"]:
            continue
        task = tasks.setdefault(job.about["task"], open_task(plan.task(job.about["task"])))
        every = Features.load(job.words[job.words.index("--features") + 1]).values
        for run in job.runs:
            draw = json.loads(Path(run["result"]).read_text()).get("draw", run["seed"])
            rows = task.rows("train", run["fraction"], draw)
            if len(rows) <= 1000:
                features = every[rows]
                standardised = Standardizer.of(features, constant_below=1e-6, dtype=np.float64)(features)
                yield standardised.astype(np.float32), task.labels[rows], len(task.classes)


if __name__ == "__main__":
    main()
