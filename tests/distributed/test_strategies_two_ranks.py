"""Every strategy on every family, in one process and in two: same losses, same weights, same predictions.

Two long-lived processes serve all cases, one after the other. Networks are float64, so that agreement is agreement, not
rounding: BatchNorm over the few pixels of a last map magnifies it a thousandfold.
"""

import json
import traceback
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas
import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from support import gloo
from support.families import FAMILIES, family_backbone
from support.tiny_methods import assert_same_tensors
from support.tiny_tasks import class_task, judge, mask_task, recorded_models, weights
from timm.models.vgg import cfgs as vgg_layers

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.evaluation.task_model import TaskModel

STEPS, SECONDS = 3, 150
OPTIONS = {"auto_rgn": ", batches: 2", "l2_sp": ", alpha: 0.5", "lora": ", rank: 2"}
CASES = [
    ("finetune", strategy, family)
    for strategy in STRATEGIES
    for family in FAMILIES
    if strategy != "lora" or family == "vit"
]
NARROW = patch.dict(
    vgg_layers, vgg11=(8, "M", 16, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M")
)  # timm's has 10M weights
REFUSED = [("finetune", "lora", family) for family in FAMILIES if family != "vit"]
SEGMENTED = [("segment", "full", family) for family in FAMILIES]


def marks(case: tuple[str, str, str]) -> list:
    """By default every strategy is run on one family, and every family with one strategy."""
    protocol, strategy, family = case
    short = family == "resnet" or strategy == "lora" or (protocol, strategy) == ("finetune", "full")
    return [] if short else [pytest.mark.long]


def test_nine_strategies_are_tested_on_five_families_and_lora_on_the_vit():
    assert len(STRATEGIES) == 10 and len(FAMILIES) == 5
    assert len(CASES) == 9 * 5 + 1 and len(REFUSED) == 4


@contextmanager
def float64():
    """What is trained is float64, and so is what it reads."""
    start, normalise = TaskModel.__init__, Intensity.normalise

    def doubled(model, *arguments):
        start(model, *arguments)
        model.double()

    TaskModel.__init__, Intensity.normalise = doubled, lambda self, unit: normalise(self, unit).double()
    try:
        yield
    finally:
        TaskModel.__init__, Intensity.normalise = start, normalise


def train(case, folder, out):
    """What a case leaves in this process: losses of all steps and the weights; or its refusal."""
    protocol, strategy, family = case
    task = Task.load(Path(folder, protocol, "task.yaml"))
    options = f"strategy={{name: {strategy}{OPTIONS.get(strategy, '')}}}"
    with float64(), NARROW, recorded_models() as trained:
        try:
            judge(protocol, family_backbone(family), task, out, options, f"train.steps={STEPS}", "optimizer.lr=0.02")
        except RecipeError as refusal:
            return {"refusal": str(refusal)}
    lines = [json.loads(line) for line in Path(out, "log.jsonl").read_text().splitlines()]
    return {
        "losses": [line["loss"] for line in lines],
        "world": [line["world_size"] for line in lines],
        "weights": weights(trained[0]),
    }


def rank_main(rank, folder, inbox, outbox):
    gloo.join(rank, folder)
    for case in iter(inbox.get, None):
        try:
            torch.save(train(case, folder, f"{folder}/{'-'.join(case)}-two"), f"{folder}/{'-'.join(case)}-{rank}.pt")
            outbox.put(None)
        except Exception:
            outbox.put(traceback.format_exc())
    distributed.destroy_process_group()


class Pair:
    """Two ranks that wait for cases."""

    def __init__(self, folder):
        self.folder, context = folder, multiprocessing.get_context("spawn")
        self.inboxes, self.outboxes = ([context.Queue() for _ in range(2)] for _ in range(2))
        self.processes = [
            context.Process(
                target=rank_main, args=(rank, str(folder), self.inboxes[rank], self.outboxes[rank]), daemon=True
            )
            for rank in range(2)
        ]
        for process in self.processes:
            process.start()

    def both(self, case):
        """Results of a case: of one process, of rank 0, of rank 1."""
        for inbox in self.inboxes:
            inbox.put(case)
        try:
            one = train(case, self.folder, self.folder / f"{'-'.join(case)}-one")
        finally:
            errors = [outbox.get(timeout=SECONDS) for outbox in self.outboxes]
        assert errors == [None, None], "\n".join(map(str, errors))
        return one, *(torch.load(self.folder / f"{'-'.join(case)}-{rank}.pt", weights_only=True) for rank in range(2))

    def end(self):
        for inbox in self.inboxes:
            inbox.put(None)
        for process in self.processes:
            process.join(SECONDS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    class_task(folder / "finetune")
    mask_task(folder / "segment", classes=2)
    pair = Pair(folder)
    yield pair
    pair.end()


def predictions(pair, case, world):
    """Scores of test images, or overlaps of test cases."""
    frame = pandas.read_parquet(pair.folder / f"{'-'.join(case)}-{world}" / "predictions.parquet")
    return frame.select_dtypes("number").to_numpy()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", [pytest.param(case, marks=marks(case)) for case in CASES + SEGMENTED], ids="-".join)
def test_two_ranks_train_what_one_process_trains(pair, case):
    one, *ranks = pair.both(case)
    assert one["world"] == [1] * STEPS and np.isfinite(one["losses"]).all()
    for rank in ranks:
        assert rank["world"] == [2] * STEPS
        assert rank["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert_same_tensors(rank["weights"], one["weights"])
    assert predictions(pair, case, "two") == pytest.approx(predictions(pair, case, "one"), rel=1e-4, abs=1e-4)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", REFUSED, ids="-".join)
def test_lora_is_refused_on_anything_but_a_vit(pair, case):
    for found in pair.both(case):
        assert "strategy lora" in found["refusal"] and "Take a ViT" in found["refusal"]
