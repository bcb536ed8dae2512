"""Accumulation: a batch made of smaller ones is that batch, or it is refused."""

import pytest
import torch

from ssl_transfer.errors import RecipeError

VIT = (  # no BatchNorm: an image's gradient does not depend on its companions
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}",
    "optimizer={name: sgd, lr: 0.1}",
)
WHOLE = {"mae": "{name: mae, decoder_dim: 16, decoder_depth: 1, decoder_heads: 2}", "supervised": "supervised"}
COMPARING = {
    "simclr": "negatives",
    "mocov3": "negatives",
    "barlowtwins": "correlations",
    "vicreg": "variances and covariances",
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def at_once(runs, tmp_path_factory):
    """Runs whose batches are not cut, by method."""
    made = {}

    def run(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "run"
            runs(made[method], *VIT, f"method={WHOLE[method]}")
        return made[method]

    return run


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("method", sorted(WHOLE))
def test_accumulated_batches_train_the_weights_of_whole_ones(runs, at_once, tmp_path, method, parts):
    runs(tmp_path / "run", *VIT, f"method={WHOLE[method]}", f"train.accumulate_steps={parts}")
    found, expected = runs.tensors(tmp_path / "run"), runs.tensors(at_once(method))
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, rtol=1e-4, atol=1e-6), name
    for one, other in zip(runs.lines(tmp_path / "run"), runs.lines(at_once(method)), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_the_accumulated_training_changes_the_weights(runs, at_once, tmp_path):
    """Or the test above would hold of runs that learn nothing."""
    runs(tmp_path / "still", *VIT, "method=supervised", "optimizer.lr=1e-12")
    still, moved = runs.tensors(tmp_path / "still"), runs.tensors(at_once("supervised"))
    assert all(float((moved[name] - weight).abs().max()) > 1e-3 for name, weight in still.items() if weight.ndim > 1)


@pytest.mark.parametrize("method", sorted(COMPARING))
def test_methods_that_compare_the_images_of_a_batch_refuse_and_offer_a_queue(runs, tmp_path, method):
    with pytest.raises(RecipeError) as refusal:
        runs(
            tmp_path / "run", f"method={{name: {method}, projection_dim: 8, hidden_dim: 8}}", "train.accumulate_steps=3"
        )
    message = str(refusal.value)
    assert f"train.accumulate_steps: {method} takes its {COMPARING[method]} from the batch" in message
    assert "3 batches of 4 images are not one of 12" in message and "Take method=moco" in message
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_cut_evenly_is_refused(runs, tmp_path):
    with pytest.raises(RecipeError, match=r"train.accumulate_steps: 12 images cannot be cut into 5 equal parts"):
        runs(tmp_path / "run", "method=supervised", "train.accumulate_steps=5")


def test_the_queue_must_fit_the_smaller_batches_that_fill_it(runs, tmp_path):
    method = "{name: moco, queue: 36, bn_groups: 1, projection_dim: 16}"
    runs(tmp_path / "run", f"method={method}", "train.batch_size=24", "train.accumulate_steps=2", "train.epochs=1")
    with pytest.raises(RecipeError, match=r"36 keys are not a multiple of train\.batch_size 24"):
        runs(tmp_path / "other", f"method={method}", "train.batch_size=24", "train.epochs=1")
