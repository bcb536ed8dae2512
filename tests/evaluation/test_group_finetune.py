"""Fine-tuning on groups of images: bags of slices in a batch, all slices of a group in validation and test."""

import numpy as np
import pandas
import pytest
import torch
from support.families import family_backbone
from support.groups import SLICES, lesion_task
from support.tiny_tasks import judge, recorded_models

from ssl_transfer.errors import RecipeError
from ssl_transfer.models.embedding import prepared
from ssl_transfer.training.batches import BagSampler, StreamSampler

pytestmark = pytest.mark.usefixtures("one_thread")
BAGS = ("train.batch_size=8", "train.bag_size=4")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lesion_task(tmp_path_factory.mktemp("lesions"), patients=24)


@pytest.mark.parametrize("pooling", ["attention", "topk"])
def test_a_group_gets_the_prediction_of_all_its_images(task, pooling, tmp_path):
    with recorded_models() as models:
        result = judge("finetune", family_backbone("resnet"), task, tmp_path, *BAGS, f"group_pool=[{pooling}]")
    predictions = pandas.read_parquet(tmp_path / "predictions.parquet")
    assert list(predictions["group"]) == sorted({f"p{n:03d}" for n in range(24) if n % 4 == 3})
    assert result.settings["group_pool"] == pooling
    assert result.n["train"]["groups"] == 12
    model = models[0].eval()
    with torch.no_grad():  # one group alone, by its slices in another order
        rows = task.rows("test")
        rows = rows[task.bags(rows).codes == 2][::-1].copy()
        ((_, images),) = prepared(model.backbone, task.store, rows, 32, SLICES, torch.device("cpu"))
        logits = model.head.pooling(model.backbone(images), torch.zeros(SLICES, dtype=torch.int64), 1)
    expected = logits.double().softmax(1)[0].numpy()
    assert np.allclose(predictions[["score_healthy", "score_lesion"]].iloc[2], expected, atol=1e-5)


def test_balance_and_strategies_take_groups(task, tmp_path):
    for number, words in enumerate(
        (["train.balance=sampling", "strategy=lp_ft"], ["train.balance=weights", "strategy=auto_rgn"])
    ):
        result = judge("finetune", family_backbone("resnet"), task, tmp_path / str(number), *BAGS, *words)
        assert set(result.metrics["test"]) >= {"auroc", "accuracy"}


def test_settings_that_do_not_fit_bags_are_refused(task, tmp_path):
    with pytest.raises(
        RecipeError, match=r"train.batch_size: found 4 images, expected a multiple of train.bag_size, 8"
    ):
        judge("finetune", family_backbone("resnet"), task, tmp_path)
    with pytest.raises(RecipeError, match="finetune trains with one of them"):
        judge("finetune", family_backbone("resnet"), task, tmp_path, *BAGS, "group_pool=[mean, max]")


def test_ranks_share_the_groups_of_a_batch_and_a_pass_has_every_group_once():
    members = [np.arange(10 * n, 10 * n + size) for n, size in enumerate((5, 2, 9, 4, 7, 3))]
    stream = {"strata": [np.arange(6)], "seed": 0, "batch_size": 3, "total_steps": 4}
    whole = BagSampler(StreamSampler(**stream), members, 4)
    halves = [BagSampler(StreamSampler(**stream, rank=rank, world=3), members, 4) for rank in range(3)]
    for step in range(4):
        passes, rows = whole.at(step)
        assert np.array_equal(np.concatenate([half.at(step)[1] for half in halves]), rows)
        of_group = rows.reshape(3, 4) // 10
        assert (of_group == of_group[:, :1]).all()
        for group, drawn in zip(of_group[:, 0], rows.reshape(3, 4), strict=True):
            assert len(set(drawn)) == min(4, len(members[group]))
        assert (passes == step // 2).all()
    for first in (0, 2):
        drawn = np.concatenate([whole.at(step)[1].reshape(3, 4)[:, 0] // 10 for step in (first, first + 1)])
        assert sorted(drawn) == list(range(6))
