"""Fine-tuning on rare classes and on several labels: sampling, weights, and labels that are unknown."""

import numpy as np
import pytest
import torch
from support.families import family_backbone
from support.finetuned import THOROUGH, lines, scores
from support.tiny_tasks import class_task, judge, spots, write_task

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.objectives import CrossEntropy, MultiLabel, class_weights
from ssl_transfer.training.batches import StreamSampler

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


# Class imbalance


@pytest.fixture
def rare(tmp_path):
    """Twelve training images of class 0 and four of class 1."""
    labels = [0] * 12 + [1] * 4 + [0, 1] * 8
    return class_task(tmp_path / "rare", train=16, held_out=8, labels=labels)


def seen(monkeypatch, task, folder, *overrides):
    """Labels of every batch that a run trains on."""
    rows, at = [], StreamSampler.at

    def watched(sampler, step):
        found = at(sampler, step)
        rows.append(found[1])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(StreamSampler, "at", watched)
        result = judge("finetune", family_backbone("resnet"), task, folder, *overrides)
    return [task.labels[chosen] for chosen in rows], result


def test_sampling_shows_every_class_equally_often_in_every_batch_and_the_result_says_so(rare, tmp_path, monkeypatch):
    batches, result = seen(monkeypatch, rare, tmp_path / "r", "train.balance=sampling", "train.steps=6")
    assert [np.bincount(labels).tolist() for labels in batches] == [[2, 2]] * 6
    assert result.settings["train"]["balance"] == "sampling"


def test_without_balance_classes_are_seen_as_often_as_they_are(rare, tmp_path, monkeypatch):
    batches, result = seen(monkeypatch, rare, tmp_path / "r", "train.steps=8")
    assert np.bincount(np.concatenate(batches)).tolist() == [24, 8]
    assert result.settings["train"]["balance"] == "none"


def test_weights_are_inverse_frequencies_with_mean_1_over_the_training_images():
    labels = np.array([0] * 12 + [1] * 4)
    weights = class_weights(labels, 2)
    assert weights.tolist() == pytest.approx([16 / 24, 2.0]) and float(weights[labels].mean()) == pytest.approx(1)


def test_a_weighted_loss_is_that_of_torch_over_the_whole_set():
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(16, 2, generator=draw), torch.tensor([0] * 12 + [1] * 4)
    weights = class_weights(labels.numpy(), 2)
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    assert torch.allclose(CrossEntropy(weights)(logits, labels), expected)


def test_a_weighted_loss_of_two_halves_is_their_mean():
    """Else the number of processes would change the loss."""
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 2, generator=draw), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    loss = CrossEntropy(torch.tensor([0.7, 2.0]))
    halves = [loss(logits[part], labels[part]) for part in (slice(0, 4), slice(4, 8))]
    assert torch.allclose(loss(logits, labels), torch.stack(halves).mean())


def test_weights_change_the_loss_and_the_result_says_so(rare, tmp_path):
    results = [
        judge("finetune", family_backbone("resnet"), rare, tmp_path / b, f"train.balance={b}")
        for b in ("none", "weights")
    ]
    one, other = ([line["loss"] for line in lines(tmp_path / balance)] for balance in ("none", "weights"))
    assert one != other and results[1].settings["train"]["balance"] == "weights"
    assert results[0].run_id != results[1].run_id


# Several labels


@pytest.fixture
def multilabel(tmp_path):
    """A spot, its absence, and a label of which every fourth image is unknown."""
    spot = np.arange(24) % 2
    third = np.where(np.arange(24) % 4 == 3, "", np.arange(24) // 2 % 2).tolist()
    columns = {
        "spot": spot.astype(str),
        "dark": (1 - spot).astype(str),
        "odd": third,
        "patient": [f"p{n:02d}" for n in range(24)],
    }
    splits = np.repeat(["train", "val", "test"], 8)
    return write_task(
        tmp_path / "labels", spots(spot)[0], splits, columns, target=["spot", "dark", "odd"], metric="auroc"
    )


def test_each_label_of_a_multi_label_task_is_learnt_by_itself(multilabel, tmp_path):
    result = judge("finetune", family_backbone("convnext"), multilabel, tmp_path / "r", *THOROUGH)
    found = scores(tmp_path / "r")
    assert found.shape == (8, 3) and ((found > 0) & (found < 1)).all()
    assert not np.allclose(found.sum(1), 1)
    assert result.metrics["test"]["auroc_spot"] == 1 and result.metrics["test"]["auroc_dark"] == 1


def test_unknown_labels_do_not_count():
    logits = torch.tensor([[2.0, -1.0], [0.5, 9.0]], requires_grad=True)
    labels = torch.tensor([[1, 0], [0, -1]])
    loss = MultiLabel(None)(logits, labels)
    loss.backward()
    known = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.flatten()[:3], torch.tensor([1.0, 0.0, 0.0]), reduction="sum"
    )
    assert torch.allclose(loss, known / 4) and logits.grad[1, 1] == 0


def test_positive_labels_weigh_as_many_times_more_as_negatives_are_more():
    labels = np.array([[1, 1], [0, 1], [0, -1], [0, 0]])
    assert class_weights(labels, 2).tolist() == [3.0, 0.5]


def test_several_labels_can_be_weighted(multilabel, tmp_path):
    judge("finetune", family_backbone("resnet"), multilabel, tmp_path / "r", "train.balance=weights")
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "r"))


def test_sampling_is_refused_for_several_labels(multilabel, tmp_path):
    with pytest.raises(RecipeError, match=r"take train\.balance=weights"):
        judge("finetune", family_backbone("resnet"), multilabel, tmp_path / "r", "train.balance=sampling")
