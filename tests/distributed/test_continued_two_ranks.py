"""A run that starts from another backbone, on two ranks: frozen and released, killed and resumed, as on one rank."""

import json

import pytest
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from support import gloo

from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.pretraining import stage
from ssl_transfer.recipe import PretrainRecipe, load_recipe
from ssl_transfer.training import loop

pytestmark = pytest.mark.long
SETTINGS = (
    "method={name: byol, hidden_dim: 32, projection_dim: 16}",
    "optimizer={name: sgd, lr: 0.03, layer_decay: 0.7}",
    f"train.freeze_epochs={2 / 3}",
    "train.checkpoint_every_steps=1",
    "monitor.every_epochs=0.34",
    "keep=[1]",
)
KILLED_AT = (1, 3)  # in the second step, which is frozen, and after the release


class Killed(Exception):
    """Stands for whatever ends a run."""


def rank_main(rank, folder, recipe, parent):
    gloo.join(rank, folder)
    loaded = load_recipe(PretrainRecipe, recipe, [*SETTINGS, f"backbone.init={parent}"])
    advance, opening = loop.Training._advance, stage.Session.__init__

    def opened(session, *arguments, **options):
        opening(session, *arguments, **options)
        session.accelerator.end_training = lambda: None  # it would end the process group, and more runs follow

    stage.Session.__init__ = opened
    stage.pretrain(loaded, f"{folder}/unbroken")
    for step in KILLED_AT:

        def killed(training, batches, step=step):
            if training.step == step:
                raise Killed
            return advance(training, batches)

        loop.Training._advance = killed
        with pytest.raises(Killed):
            stage.pretrain(loaded, f"{folder}/broken")
        distributed.barrier()
    loop.Training._advance = advance
    stage.pretrain(loaded, f"{folder}/broken")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tiny_recipe, finished, tmp_path_factory):
    """Folder of the runs of two ranks, `unbroken` and `broken`, and of the same run of one rank, `one`."""
    place = tmp_path_factory.mktemp("continued")
    parent = finished[0] / "backbone"
    multiprocessing.spawn(rank_main, (str(place), tiny_recipe, str(parent)), nprocs=2)
    stage.pretrain(load_recipe(PretrainRecipe, tiny_recipe, [*SETTINGS, f"backbone.init={parent}"]), place / "one")
    return place


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_ranks_train_what_one_rank_trains(folder):
    two, one = log_of(folder / "unbroken"), log_of(folder / "one")
    assert [line["step"] for line in two] == [0, 1, 2, 3, 4, 5, 6] and two[1]["world_size"] == 2
    assert [line["loss"] for line in two[1:]] == pytest.approx([line["loss"] for line in one[1:]], rel=1e-3)
    assert two[0]["knn"] == one[0]["knn"]
    assert [line["gradient_norm"] for line in two[1:4]] == pytest.approx(
        [line["gradient_norm"] for line in one[1:4]], rel=1e-2
    )


def test_two_ranks_that_were_killed_end_with_the_bytes_of_unbroken_ones(folder):
    for name in ("backbone", "backbones/epoch-1", "backbones/best"):
        unbroken, broken = (folder / run / name / "model.safetensors" for run in ("unbroken", "broken"))
        assert unbroken.read_bytes() == broken.read_bytes(), name
    measured = ("step", "loss", "knn", "below_parent")
    logs = [
        [{key: line.get(key) for key in measured} for line in log_of(folder / run)] for run in ("unbroken", "broken")
    ]
    assert logs[0] == logs[1]
    assert load_backbone(f"{folder}/broken@best").card.training["step"] > 2  # not of the frozen steps
