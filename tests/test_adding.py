"""What it takes to add a thing: the file and the table entry that docs and CONTRIBUTING name, and nothing else.

A copy of the package gets one of each, and is used from files to a report. If another place had to know about it, this fails.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.command_line import ROOT
from support.extension import Entry, Extended

FILES = {
    "grey.py": "ssl_transfer/data/readers/grey.py",
    "agree.py": "ssl_transfer/methods/agree.py",
    "slow_backbone.py": "ssl_transfer/evaluation/strategies/slow_backbone.py",
    "brightness.yaml": "recipes/tasks/brightness.yaml",
    "ranges.py": "ssl_transfer/study/statistics/ranges.py",
    "value_ranges.py": "ssl_transfer/study/report/sections/value_ranges.py",
    "count.py": "ssl_transfer/cli/count.py",
}
ENTRIES = [
    Entry(
        "data/readers/registry.py",
        "READERS",
        '"grey": GreyReader',
        "from ssl_transfer.data.readers.grey import GreyReader",
    ),
    Entry("methods/registry.py", "METHODS", '"agree": Agree', "from ssl_transfer.methods.agree import Agree"),
    Entry(
        "evaluation/strategies/registry.py",
        "STRATEGIES",
        '"slow_backbone": SlowBackbone',
        "from ssl_transfer.evaluation.strategies.slow_backbone import SlowBackbone",
    ),
    Entry(
        "measures/metrics.py",
        "METRICS",
        '"error_rate": Metric("classification", -1, "error rate", lambda images: 1 - classification.accuracy(images))',
    ),
    Entry(
        "measures/transferability/registry.py",
        "SCORES",
        '"total_variance": Score("total variance", lambda spectrum: float(spectrum.variances.sum()))',
    ),
    Entry(
        "study/report/page.py",
        "SECTIONS",
        "value_ranges.section",
        "from ssl_transfer.study.report.sections import value_ranges",
    ),
    Entry("cli/verbs.py", "VERBS", '"count": count.VERB', "from ssl_transfer.cli import count"),
]
RECIPE = """
data:      {store: store, views: ct, size: 16}
backbone:  {name: resnet10t, options: {channels: [8, 8, 16, 16], stem_width: 8}}
method:    {name: agree, weight: 0.5}
optimizer: {name: adamw, lr: 1e-3}
train:     {epochs: 1, batch_size: 28, precision: fp32, workers: 0, log_every_steps: 1}
monitor:   {every_epochs: 1000}
tracker:   none
"""
TRAIN = ["train.steps=2", "train.batch_size=8", "train.check_every_steps=1", "train.workers=0"]
COMMANDS = {
    "ingest": ["ingest", "greys", "--domain", "xray", "--size", "16", "--out", "store", "--workers", "1", "--json"],
    "pretrain": ["pretrain", "agree.yaml", "--out", "run", "--json"],
    "wrong option": ["pretrain", "agree.yaml", "method.wieght=2", "--out", "wrong"],
    "wrong method": ["pretrain", "agree.yaml", "method={name: agre}", "--out", "wrong"],
    "evaluate": [
        "evaluate",
        "finetune",
        "run/backbone",
        "brightness",
        "strategy=slow_backbone",
        "resamples=5",
        *TRAIN,
        "--out",
        "tuned",
        "--json",
    ],
    "wrong strategy": ["evaluate", "finetune", "run/backbone", "brightness", "strategy=slow_bakbone", "--out", "wrong"],
    "rank": [
        "rank",
        "brightness",
        "run/backbone",
        "scratch:test_resnet,size=16",
        "by=total_variance",
        "resamples=5",
        "--out",
        "ranking",
        "--json",
    ],
    "count": ["count", "store", "--json"],
    "help": ["--help"],
}
REPORT = """
from pathlib import Path
from support.pages import PRIMARY, build, study
frame = study({"in-domain CT": 0.2, "photographs": 0.1, "scratch": 0.0})
frame["metric"] = frame["metric"].replace({"auroc": "error_rate"})
build(Path("."), frame, {**PRIMARY, "metric": "error_rate"})
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The folder in which the extended package was used, and the answer to each command."""
    package = Extended(tmp_path_factory.mktemp("extended"), FILES, ENTRIES)
    folder = tmp_path_factory.mktemp("user")
    (folder / "greys").mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        label = ("dark", "bright")[number % 2]
        grey = draw.integers(0, 100, (16, 16)) + 100 * (label == "bright")
        np.savetxt(folder / "greys" / f"p{number:02d}_{label}_0.grey", grey, "%d")
    (folder / "agree.yaml").write_text(RECIPE)
    answers = dict(zip(COMMANDS, package.commands(folder, list(COMMANDS.values())), strict=True))
    package.python(REPORT, folder)
    return SimpleNamespace(folder=folder, answers=answers)


def answer(extended, command: str) -> dict:
    """The JSON object that a command printed."""
    status, out, err = extended.answers[command]
    assert status == 0, err
    return json.loads(out)


def message(extended, command: str) -> str:
    """What a command that was refused said."""
    status, out, err = extended.answers[command]
    assert (status, out) == (2, "") and not (extended.folder / "wrong").exists()
    return err


def test_an_added_reader_recognises_its_files(extended):
    store = answer(extended, "ingest")
    assert (store["n_images"], store["n_patients"], store["n_refused"]) == (40, 40, 0)
    assert store["labels"] == {"bright": 20, "dark": 20}


def test_the_documentation_shows_the_method_that_is_added_here():
    assert (ROOT / "tests/additions/agree.py").read_text() in (ROOT / "docs/own_method.md").read_text()


def test_an_added_method_pretrains_from_a_recipe(extended):
    assert answer(extended, "pretrain")["steps"] == 1
    assert json.loads((extended.folder / "run" / "backbone" / "card.json").read_text())["method"] == "agree"


def test_the_options_of_an_added_method_are_checked_and_its_name_is_suggested(extended):
    assert "Did you mean 'weight'" in message(extended, "wrong option")
    assert "Did you mean 'agree'" in message(extended, "wrong method")


def test_an_added_strategy_fine_tunes_and_its_options_are_recorded(extended):
    result = answer(extended, "evaluate")
    assert result["strategy"] == "slow_backbone" and result["settings"]["strategy"]["share"] == 0.1


def test_a_misspelt_name_is_answered_with_the_added_strategy(extended):
    assert "Did you mean 'slow_backbone'" in message(extended, "wrong strategy")


def test_an_added_task_is_found_by_its_name_and_selects_by_its_metric(extended):
    result = answer(extended, "evaluate")
    assert result["task"]["name"] == "brightness"
    best = min(check["val_error_rate"] for check in checks(extended))
    assert result["metrics"]["val"]["error_rate"] == pytest.approx(best, abs=1e-5)


def checks(extended) -> list[dict]:
    """The steps of the fine-tune's log at which validation was scored."""
    lines = map(json.loads, (extended.folder / "tuned" / "log.jsonl").read_text().splitlines())
    return [line for line in lines if "val_error_rate" in line]


def test_an_added_metric_is_in_results_with_its_interval(extended):
    result = answer(extended, "evaluate")
    test = result["metrics"]["test"]
    assert test["error_rate"] == pytest.approx(1 - test["accuracy"]) and "error_rate" in result["intervals"]


def test_a_report_has_the_title_and_the_direction_of_an_added_metric(extended):
    page = (extended.folder / "report.html").read_text()
    assert "error rate (less is better)" in page and "Do not pretrain" in page  # the smallest error is that of scratch


def test_an_added_transferability_score_orders_a_ranking(extended):
    ranking = answer(extended, "rank")
    scores = {one["name"]: one["scores"]["total_variance"] for one in ranking["backbones"]}
    assert ranking["by"] == "total_variance" and ranking["order"] == sorted(scores, key=scores.get, reverse=True)


def test_an_added_statistic_and_its_section_are_on_the_page_and_in_a_table(extended):
    page = (extended.folder / "report.html").read_text()
    assert "Ranges of 3 arms." in page and "Value ranges" in page
    assert (extended.folder / "tables" / "ranges.csv").read_text().startswith("pretraining,min,max\n")


def test_an_added_verb_answers_and_is_listed(extended):
    assert answer(extended, "count") == {"images": 40}
    assert "count the images of a store" in extended.answers["help"][1]
