"""Pretraining on the pretend GPU: losses are those of the CPU, and the host seldom waits for the device."""

import pytest

from ssl_transfer.training.loop import Training

VIT = "backbone={name: vit_tiny_patch16_224, options: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}}"
DYNAMIC_VIT = VIT.replace("2}}", "2, dynamic_img_size: true}}")
SMALL = "hidden_dim: 32, projection_dim: 16"
CASES = {  # overrides of the recipe
    "simclr": [],
    "byol": [f"method={{name: byol, {SMALL}}}"],
    "moco": ["method={name: moco, queue: 48, bn_groups: 2, projection_dim: 16}", "optimizer={name: sgd, lr: 0.03}"],
    "mocov3": [f"method={{name: mocov3, {SMALL}}}", VIT],
    "barlowtwins": [f"method={{name: barlowtwins, {SMALL}}}"],
    "vicreg": [f"method={{name: vicreg, {SMALL}}}"],
    "simsiam": ["method={name: simsiam, projection_dim: 16, bottleneck_dim: 8}"],
    "dino": [
        "method={name: dino, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 3, local_size: 8}",
        DYNAMIC_VIT,
        "train.clip_gradient=3.0",
    ],
    "dinov2": [
        "method={name: dinov2, output_dim: 24, hidden_dim: 32, bottleneck_dim: 8, local_views: 2, local_size: 8}",
        DYNAMIC_VIT,
    ],
    "distill": ["method={name: distill, teacher: 'scratch:test_resnet,size=16', queue: 24}"],
    "mae": ["method={name: mae, decoder_dim: 24, decoder_depth: 2, decoder_heads: 3}", VIT],
    "supervised": ["method={name: supervised}"],
    "lars": ["optimizer={name: lars, lr: 0.3}"],
    "accumulated": ["method={name: moco, queue: 48, bn_groups: 1, projection_dim: 16}", "train.accumulate_steps=2"],
    "workers": ["train.workers=1"],
}
WAITS = {"moco": 1, "distill": 1, "accumulated": 2}  # of the host in a step that is not logged; others: 0
QUICK = ("simclr", "moco", "dino", "mae", "lars")


def marked(names):
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in names]


@pytest.fixture
def step_counts(gpu, monkeypatch):
    """What each step costs, as a list that a run fills."""
    counted, advance = [], Training._advance

    def counting(training, batches):
        with gpu.counting() as counts:
            result = advance(training, batches)
        counted.append(counts)
        return result

    monkeypatch.setattr(Training, "_advance", counting)
    return counted


@pytest.mark.parametrize("case", marked(CASES))
def test_losses_are_those_of_the_cpu_and_steps_wait_no_more_than_this(case, runs, gpu, step_counts, tmp_path):
    overrides = ["train.epochs=1", "train.log_every_steps=1000", "train.checkpoint_every_steps=1000", *CASES[case]]
    runs(tmp_path / "cpu", *overrides)
    step_counts.clear()
    with gpu:
        runs(tmp_path / "gpu", *overrides)
    (expected,), (found,) = runs.lines(tmp_path / "cpu"), runs.lines(tmp_path / "gpu")  # means over three steps
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    second = step_counts[1]  # the first one builds constants, the last one is logged
    assert second.waits.total() == WAITS.get(case, 0), second.waits


def test_colour_images_and_two_stores_train_as_on_the_cpu(runs, ct_store, photo_store, gpu, tmp_path):
    data = {
        "mix": [
            {"store": str(ct_store.path), "share": 0.5},
            {"store": str(photo_store.path), "share": 0.5, "views": "microscopy"},
        ],
        "views": "ct",
        "size": 16,
    }
    options = {"data": data, "backbone.in_channels": 3}
    overrides = ["train.epochs=0.5"]
    runs(tmp_path / "cpu", *overrides, **options)
    with gpu:
        runs(tmp_path / "gpu", *overrides, **options)
    losses = [[line["loss"] for line in runs.lines(tmp_path / where)] for where in ("cpu", "gpu")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.long
def test_a_resumed_run_ends_with_the_bytes_of_an_unbroken_one(runs, gpu, monkeypatch, tmp_path):
    advance = Training._advance

    def broken(training, batches):
        if training.step == 3:
            raise KeyboardInterrupt
        return advance(training, batches)

    with gpu:
        runs(tmp_path / "unbroken", *CASES["byol"])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Training, "_advance", broken)
            runs(tmp_path / "broken", *CASES["byol"])
        runs(tmp_path / "broken", *CASES["byol"])
    assert runs.weights(tmp_path / "broken") == runs.weights(tmp_path / "unbroken")


@pytest.mark.long
def test_fp16_trains_with_a_scaled_loss(runs, monkeypatch, tmp_path, gpu):
    scales, clip = [], Training._clip

    def clipped(training):
        scales.append(training.accelerator.scaler.get_scale())
        return clip(training)

    gpu.bf16 = False
    monkeypatch.setattr(Training, "_clip", clipped)
    with gpu:
        runs(tmp_path / "run", "train.epochs=1", "train.precision=auto")
    assert scales and all(scale > 1 for scale in scales)
