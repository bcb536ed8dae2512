"""Own draws: everything random in an evaluation differs between pretraining seeds and is the same for all arms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.families import family_backbone
from support.tiny_tasks import class_task, mask_task, recorded_models
from support.tiny_tasks import judge as trained

from ssl_transfer.draws import draw_seed
from ssl_transfer.evaluation import stage
from ssl_transfer.evaluation.linear_probe import linear_probe
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.protocols import FROZEN
from ssl_transfer.recipe import parse_overrides

ARMS = {"CT": 10, "photographs": 20}  # arm -> seed of its weights, which stand for another pretraining
FEW = ("fraction=0.5", "train.steps=2")
UNTAUGHT = "optimizer={name: sgd, lr: 1e-30, momentum: 0.0, weight_decay: 0.0}"  # the head stays as it was drawn

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=16, held_out=4)


@pytest.fixture(autouse=True)
def cached_features_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def contexts(monkeypatch):
    """What the protocols are given, in the order of the evaluations."""
    made, real = [], stage.EvalContext

    def recorded(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(stage, "EvalContext", recorded)
    return made


def backbone(arm, pretraining_seed):
    """Of an arm and a pretraining seed; None stands for public weights."""
    made = family_backbone("resnet", seed=ARMS[arm] + (pretraining_seed or 0))
    made.card = replace(made.card, name=arm, pretraining_seed=pretraining_seed, id=f"{arm} {pretraining_seed}")
    return made


def judge(protocol, backbone, task, folder, *settings):
    """Evaluate without intervals, unless `settings` say otherwise."""
    if protocol in FROZEN:
        return evaluate(protocol, backbone, task, folder, **parse_overrides(["resamples=0", *settings]))
    return trained(protocol, backbone, task, folder, *settings)


def evaluated(task, folder, contexts, protocol, *settings):
    """Context and result of every arm and pretraining seed, by both."""
    found = {}
    for arm in ARMS:
        for pretraining_seed in (0, 1):
            result = judge(
                protocol, backbone(arm, pretraining_seed), task, folder / f"{arm}-{pretraining_seed}", *settings
            )
            found[arm, pretraining_seed] = contexts[-1], result
    return found


def agree(values, same=np.array_equal):
    """Whether both arms have equal values at each pretraining seed, and every arm other ones at the other."""
    equal = all(same(values["CT", seed], values["photographs", seed]) for seed in (0, 1))
    return equal and not any(same(values[arm, 0], values[arm, 1]) for arm in ARMS)


@pytest.mark.parametrize("protocol", ["linear_probe", "finetune"])
def test_label_subsets_differ_between_pretraining_seeds_and_agree_across_arms(task, tmp_path, contexts, protocol):
    found = evaluated(task, tmp_path, contexts, protocol, *(FEW if protocol == "finetune" else FEW[:1]))
    assert agree({key: context.rows["train"] for key, (context, _) in found.items()})


def test_the_result_states_the_draw_beside_both_seeds(task, tmp_path, contexts):
    found = evaluated(task, tmp_path, contexts, "knn", "seed=2")
    for (arm, pretraining_seed), (_, result) in found.items():
        written = json.loads((tmp_path / f"{arm}-{pretraining_seed}" / "result.json").read_text())
        stated = [written[name] for name in ("seed", "pretraining_seed", "draw")]
        assert (
            stated
            == [2, pretraining_seed, draw_seed(pretraining_seed, 2)]
            == [result.seed, result.pretraining_seed, result.draw]
        )


def test_the_draw_of_public_weights_is_the_evaluation_seed(task, tmp_path, contexts):
    result = judge("knn", backbone("CT", None), task, tmp_path / "public", "seed=5", "fraction=0.5")
    assert (result.draw, result.pretraining_seed) == (5, None)
    assert np.array_equal(contexts[-1].rows["train"], task.rows("train", 0.5, 5))


def test_the_smaller_subset_of_a_draw_is_within_the_larger_one(task, tmp_path, contexts):
    for pretraining_seed in (0, 1):
        rows = []
        for fraction in (0.25, 0.5, 1.0):
            folder = tmp_path / f"{pretraining_seed}-{fraction}"
            judge("knn", backbone("CT", pretraining_seed), task, folder, f"fraction={fraction}")
            rows.append(set(contexts[-1].rows["train"].tolist()))
        assert rows[0] < rows[1] < rows[2]


@pytest.mark.parametrize("protocol", ["finetune", "segment"])
def test_head_order_and_views_differ_between_pretraining_seeds_and_agree_across_arms(
    task, tmp_path, contexts, protocol
):
    used = task if protocol == "finetune" else mask_task(tmp_path / "masks")
    with recorded_models() as models:
        found = evaluated(used, tmp_path, contexts, protocol, UNTAUGHT, "train.steps=2", "strategy=head_only")
    models = dict(zip(found, models, strict=True))
    heads = {key: torch.cat([p.flatten() for p in model.head.parameters()]) for key, model in models.items()}
    assert agree(heads, lambda a, b: torch.allclose(a, b, atol=1e-12))
    batches = {key: [model.batch(step) for step in range(2)] for key, model in models.items()}
    assert agree({key: torch.cat([batch.views[0] for batch in found]) for key, found in batches.items()}, torch.equal)


@pytest.mark.parametrize("split", ["train", "test"])
def test_noise_differs_between_pretraining_seeds_and_agrees_across_arms(task, tmp_path, contexts, split):
    found = evaluated(task, tmp_path, contexts, "knn", "noise.kind=gaussian", "noise.sigma=0.1")
    assert agree({key: context.store(split).read(context.rows[split]) for key, (context, _) in found.items()})


def test_bootstrap_samples_are_those_of_the_draw(task, tmp_path):
    """Equal predictions: with the same weights, intervals differ between pretraining seeds only by the resamples."""
    weights = {seed: backbone("CT", 0) for seed in (0, 1)}
    for seed, made in weights.items():
        made.card = replace(made.card, pretraining_seed=seed)
    settings = ("resamples=40", "k=[3]", "votes=[plain]")
    first, other = (judge("knn", made, task, tmp_path / str(seed), *settings) for seed, made in weights.items())
    assert first.metrics == other.metrics and first.intervals != other.intervals


def test_a_result_of_another_draw_is_another_run(task, tmp_path):
    """Same weights, same settings: only the pretraining seed in the card differs, and nothing cached is taken."""
    made = backbone("CT", 0)
    first = judge("knn", made, task, tmp_path / "first")
    made.card = replace(made.card, pretraining_seed=1)
    assert judge("knn", made, task, tmp_path / "other").run_id != first.run_id


def test_the_order_of_a_linear_probe_by_sgd_is_that_of_its_seed():
    rng = np.random.default_rng(0)
    train, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    first, same, other = (
        next(linear_probe(train, labels, {"val": train}, 3, seed, solver="sgd", rates=(0.1,), weight_decays=(0.0,)))[1]
        for seed in (draw_seed(0, 0), draw_seed(0, 0), draw_seed(1, 0))
    )
    assert np.array_equal(first["val"], same["val"]) and not np.array_equal(first["val"], other["val"])


def test_l_bfgs_at_all_labels_gives_the_same_scores_at_every_evaluation_seed(task, tmp_path):
    """What a study plans once."""
    for protocol in ("linear_probe", "knn"):
        scores = [
            judge(protocol, backbone("CT", 0), task, tmp_path / f"{protocol}-{seed}", f"seed={seed}").metrics
            for seed in (0, 1)
        ]
        assert scores[0] == scores[1]
