"""Training that starts from another backbone: heads warm up on a frozen backbone, and rates fall from layer to layer."""

import pytest
import timm
import torch
from support.tiny_methods import RESNET, VIT, new_method
from support.tiny_tasks import state_on_cpu
from timm.optim import param_groups_layer_decay

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.settings import evaluate_recipe
from ssl_transfer.methods.objective import HEADS, groups_by_layer
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.training.loop import Training
from ssl_transfer.training.optim import OPTIMIZERS

VIT_RECIPE = (
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
)
SIMCLR = "method={name: simclr, hidden_dim: 32, projection_dim: 16}"
BYOL = "method={name: byol, hidden_dim: 16, projection_dim: 8}"
MAE = "method={name: mae, decoder_dim: 16, decoder_depth: 1, decoder_heads: 2}"
METHODS = {"simclr": (SIMCLR,), "byol": (BYOL,), "mae": (MAE, *VIT_RECIPE)}
FROZEN = 2  # of six steps
FREEZE = f"train.freeze_epochs={FROZEN / 3}"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def states(monkeypatch):
    """State of the objective after every step of the runs of a test, and the rates of its parameter groups."""
    advance, after = Training._advance, []

    def observed(training, batches):
        if not after:
            after.append((state_on_cpu(training.objective), []))
        result = advance(training, batches)
        rates = {name: group["lr"] for name, group in zip(training.names, training.optimizer.param_groups, strict=True)}
        after.append((state_on_cpu(training.objective), rates))
        return result

    monkeypatch.setattr(Training, "_advance", observed)
    return after


@pytest.fixture
def parent(runs, finished, tmp_path, request):
    """`backbone.init` of a finished run of the same architecture."""

    def trained(overrides):
        if not set(VIT_RECIPE) & set(overrides):
            return f"backbone.init={finished[0] / 'backbone'}"
        runs(tmp_path / "parent", *VIT_RECIPE, SIMCLR, "train.epochs=0.4")
        return f"backbone.init={tmp_path / 'parent' / 'backbone'}"

    return trained


def moved(before, after, prefix):
    """Names of the tensors of a part that are not bit for bit what they were."""
    return {name for name in before if name.startswith(prefix) and not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_backbone_keeps_every_weight_and_statistic_while_the_heads_learn(
    method, runs, parent, states, tmp_path
):
    start = parent(METHODS[method])
    states.clear()
    runs(tmp_path / "run", *METHODS[method], start, FREEZE)
    initial = states[0][0]
    weights = load_backbone(start.removeprefix("backbone.init=")).model.state_dict()
    assert all(torch.equal(initial[f"backbone.model.{name}"], weight) for name, weight in weights.items())
    for state, _ in states[1 : FROZEN + 1]:
        assert not moved(initial, state, "backbone.")
        assert len(moved(initial, state, ("projection_head", "prediction_head", "decoder", "pixel_head"))) > 3
    released = states[FROZEN + 1][0]
    assert len(moved(initial, released, "backbone.")) > len(weights) / 2


def test_the_momentum_network_s_copy_of_a_frozen_backbone_keeps_its_statistics(runs, parent, states, tmp_path):
    runs(tmp_path / "run", BYOL, parent(()), FREEZE)
    initial, copied = states[0][0], "momentum_network.0."
    statistics = {name for name in initial if name.startswith(copied) and "running" in name}
    assert len(statistics) > 10
    assert not statistics & moved(initial, states[FROZEN][0], copied)
    assert statistics <= moved(initial, states[FROZEN + 1][0], copied)


def test_without_freezing_the_first_step_moves_the_backbone(runs, parent, states, tmp_path):
    """Or the tests above would hold of every run."""
    runs(tmp_path / "run", parent(()))
    assert len(moved(states[0][0], states[1][0], "backbone.")) > 10


def test_no_gradient_of_a_frozen_backbone_is_computed(runs, parent, tmp_path, monkeypatch):
    asked, advance = [], Training._advance

    def observed(training, batches):
        result = advance(training, batches)
        asked.append({p.requires_grad for p in training.objective.backbone.parameters()})
        return result

    monkeypatch.setattr(Training, "_advance", observed)
    runs(tmp_path / "run", parent(()), FREEZE)
    assert asked == [{False}] * FROZEN + [{True}] * (6 - FROZEN)


def test_a_released_backbone_warms_up_and_each_layer_has_its_share_of_the_next_one_s_rate(
    runs, parent, states, tmp_path
):
    """Six steps with a cosine, warm-up of two: rates by hand."""
    runs(tmp_path / "run", parent(()), FREEZE, f"train.warmup_epochs={2 / 3}", "optimizer.layer_decay=0.5")
    cosine = [0.5, 1.0, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627]
    released = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    for step, (_, rates) in enumerate(states[1:]):
        *layers, heads = rates.values()
        assert heads == pytest.approx(1e-3 * cosine[step])
        expected = [1e-3 * cosine[step] * released[step] * 0.5**depth for depth in (5, 4, 3, 2, 1)]
        assert layers == pytest.approx(expected)


@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
def test_layers_are_stages_of_a_cnn_and_blocks_of_a_vit_and_the_heads_are_all_else(kind):
    method = new_method("byol", kind)
    *layers, heads = groups_by_layer(method)
    assert [group.depth for group in layers] == list(range(len(layers), 0, -1)) and heads.name == HEADS
    grouped = [id(parameter) for group in (*layers, heads) for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert len(layers) == {"resnet10t": 5, "vit_tiny_patch16_224": 3}[kind[0]]
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    assert all(names[id(p)].startswith(("projection_head", "prediction_head")) for p in heads.parameters)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_rates_of_a_vit_s_blocks_are_those_of_timm(name):
    """timm counts from the classifier, here it is from the heads."""
    method, decay = new_method("simclr", VIT), 0.7
    optimizer = OPTIMIZERS[name](groups_by_layer(method), 1, lr=0.1, layer_decay=decay)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {key: rates[id(p)] for key, p in method.backbone.model.named_parameters()}
    model = timm.create_model(VIT[0], num_classes=3, in_chans=1, img_size=16, **VIT[1])
    scales = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=decay)
        for p in group["params"]
    }
    expected = {key: 0.1 * scales[id(p)] for key, p in model.named_parameters() if not key.startswith("head")}
    assert len(set(expected.values())) == 3 and found == pytest.approx(expected)
    assert all(rates[id(p)] == 0.1 for p in method.projection_head.parameters())


def test_layer_decay_1_trains_the_bytes_of_a_run_without_it(runs, finished, tmp_path):
    runs(tmp_path / "run", "optimizer.layer_decay=1")
    assert runs.card(tmp_path / "run")["run_id"] == runs.card(finished[0])["run_id"]
    assert runs.weights(tmp_path / "run") == runs.weights(finished[0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.freeze_epochs=1"], r"train.freeze_epochs: 1 epochs with a frozen backbone, whose weights are random"),
        (["optimizer.layer_decay=0"], r"optimizer.layer_decay: found '?0"),
        (["optimizer.layer_decay=1.5"], r"optimizer.layer_decay: found '?1.5"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(runs, tmp_path, overrides, message):
    with pytest.raises(RecipeError, match=message):
        runs(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_backbone_that_would_never_be_trained_is_refused(runs, parent, tmp_path):
    with pytest.raises(RecipeError, match=r"freeze_epochs: 2 of 2 epochs, so the backbone would never be trained"):
        runs(tmp_path / "run", parent(()), "train.freeze_epochs=2")


def test_fine_tuning_refuses_layer_decay_with_the_strategy_that_does_it():
    with pytest.raises(RecipeError, match=r"optimizer.layer_decay: .* strategy=llrd strategy.decay=0.75"):
        evaluate_recipe("finetune", ["optimizer.layer_decay=0.7"])
    assert "layer_decay" not in evaluate_recipe("finetune")[1]["optimizer"].options


def test_images_are_normalised_as_the_parent_sees_them(runs, photo_store, finished, tmp_path):
    """The views of photographs have mean and deviation of ImageNet, the parent has 0.5 and 0.25."""
    photographs = (f"data.store={photo_store.path}", "data.views=natural", "train.epochs=0.4")
    runs(tmp_path / "child", f"backbone.init={finished[0] / 'backbone'}", "backbone.in_channels=3", *photographs)
    runs(tmp_path / "scratch", "backbone.in_channels=3", *photographs)
    child, scratch = (runs.card(tmp_path / name)["intensity"] for name in ("child", "scratch"))
    assert (child["mean"], child["std"]) == ([0.5] * 3, [0.25] * 3)
    assert (scratch["mean"], scratch["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_a_vit_pools_as_its_parent_does_unless_the_recipe_says_otherwise(runs, tmp_path):
    runs(tmp_path / "parent", *VIT_RECIPE, "backbone.pooling=mean", "train.epochs=0.4")
    start = f"backbone.init={tmp_path / 'parent/backbone'}"
    runs(tmp_path / "child", *VIT_RECIPE, start, "train.epochs=0.4")
    runs(tmp_path / "other", *VIT_RECIPE, start, "backbone.pooling=cls", "train.epochs=0.4")
    assert [runs.card(tmp_path / name)["pooling"] for name in ("parent", "child", "other")] == ["mean", "mean", "cls"]


def test_what_has_no_weights_is_no_parent(runs, tmp_path):
    with pytest.raises(RecipeError, match=r"backbone.init: trivial has no weights to start from"):
        runs(tmp_path / "run", "backbone.init=trivial")
