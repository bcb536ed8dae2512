"""The stage `evaluate`: patients apart, settings chosen on validation, test looked at once, everything counted."""

import json
import shutil

import numpy as np
import pandas
import pytest
from support.command_line import ssl_transfer
from torch import nn

from ssl_transfer import features
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.errors import RecipeError, SplitError, StoreError, TaskError, UsageError
from ssl_transfer.evaluation.context import EvalContext
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.settings import evaluate_recipe, evaluate_recipes, swept
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.metrics import metrics_of
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone, load_backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.protocols import FROZEN, PROTOCOLS
from ssl_transfer.recipe import parse_overrides
from ssl_transfer.result import EvalResult

SIDE = 2


class Pixels(nn.Flatten):
    """A model whose features are the pixels, so that a store can say what the features are."""

    num_features = SIDE * SIDE


def pixel_backbone(**facts):
    model = Pixels()
    facts = {"source_domain": "photograph", **facts}
    card = new_card("pixels", Architecture("flatten", 1, SIDE), model, Intensity(), **facts, id="pixels")
    return Backbone(model, card)


def make_task(folder, features, labels, splits, patients, **card):
    """A task whose images have the given features: (N, 4) in [−1, 1], 0 being mid-grey."""
    images = np.rint(127.5 + 127.5 * np.asarray(features)).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    with StoreWriter(folder, (1, SIDE, SIDE), np.uint8) as writer:
        for number, image in enumerate(images):
            writer.append(
                image, {"label": str(labels[number]), "patient": patients and patients[number], "slice": number}
            )
        store = writer.finish(np.array(splits), units="display", domain="ct", split_by="patient")
    return Task("made_up", store, TaskCard(**{"store": str(folder), "target": "label", "metric": "accuracy", **card}))


def judge(task, folder, protocol="knn", backbone=None, overrides=()):
    settings = parse_overrides(["resamples=50", *overrides])
    result = evaluate(protocol, backbone or pixel_backbone(), task, folder / "result", folder / "features", **settings)
    return result, result.path


@pytest.fixture
def cohort(tmp_path):
    """60 patients of 4 images and 3 classes: 40 train, 10 val, 10 test."""
    draw = np.random.default_rng(0)
    classes = np.arange(60) % 3
    labels = np.repeat(classes, 4)
    features = np.clip(0.35 * np.eye(3, 4)[labels] + 0.3 * draw.normal(size=(240, 4)), -1, 1)
    splits = np.repeat(["train"] * 40 + ["val"] * 10 + ["test"] * 10, 4)
    return make_task(tmp_path / "store", features, labels, splits, [f"p{n:02d}" for n in np.repeat(np.arange(60), 4)])


def direction(degrees, count=1):
    angle = np.deg2rad(degrees)
    return [[0.9 * np.cos(angle), 0.9 * np.sin(angle), 0, 0]] * count


@pytest.fixture
def torn(tmp_path):
    """k=1 is best on validation, k=5 on test: one wrong label sits amid four others, where all queries fall."""
    features, labels, splits = [], [], []

    def add(split, label, where):
        features.extend(where)
        labels.extend([label] * len(where))
        splits.extend([split] * len(where))

    add("train", 1, direction(0))
    for degrees in (3, -3, 4, -4):
        add("train", 0, direction(degrees))
    add("train", 1, direction(90, 5))
    add("val", 1, direction(0, 6))  # k=1 finds the odd one and is right
    add("val", 1, direction(90, 2))
    add("test", 0, direction(0, 6))  # k=5 is right here
    add("test", 1, direction(90, 2))
    return make_task(tmp_path / "store", features, labels, splits, [f"{split}{n}" for n, split in enumerate(splits)])


def test_a_setting_is_chosen_on_validation_even_if_another_is_better_on_test(torn, tmp_path):
    result, _ = judge(torn, tmp_path, overrides=["k=[1, 5]", "temperature=10"])
    assert result.selected == {"k": 1, "vote": "weighted", "index": "exact"}
    assert result.metrics["val"]["accuracy"] == 1 and result.metrics["test"]["accuracy"] == 0.25
    other, _ = judge(torn, tmp_path / "other", overrides=["k=[5]", "temperature=10"])
    assert other.metrics["test"]["accuracy"] == 1 and other.metrics["val"]["accuracy"] == 0.25


def test_changing_the_test_labels_changes_the_score_but_not_the_choice(cohort, tmp_path):
    rows = cohort.store.rows
    other = make_task(
        tmp_path / "shuffled",
        (cohort.store.read(range(240)).reshape(240, 4) - 127.5) / 127.5,
        np.where(rows["split"] == "test", (rows["label"].astype(int) + 1) % 3, rows["label"].astype(int)),
        rows["split"],
        rows["patient"].tolist(),
    )
    for protocol in FROZEN:
        one, _ = judge(cohort, tmp_path / f"one-{protocol}", protocol)
        two, _ = judge(other, tmp_path / f"two-{protocol}", protocol)
        assert one.selected == two.selected and one.metrics["val"] == two.metrics["val"]
        assert one.metrics["test"]["accuracy"] > 0.6 > 0.4 > two.metrics["test"]["accuracy"]


def test_among_equal_settings_the_first_is_chosen(torn, tmp_path):
    assert judge(torn, tmp_path, overrides=["k=[3, 4, 5]", "temperature=10"])[0].selected["k"] == 3


def test_a_metric_of_which_less_is_better_is_minimised(cohort, tmp_path):
    task = Task("made_up", cohort.store, cohort.card.model_copy(update={"metric": "ece"}))
    result, _ = judge(task, tmp_path, overrides=["k=[1, 5, 20]"])
    alone = [judge(task, tmp_path / str(k), overrides=[f"k=[{k}]"])[0].metrics["val"]["ece"] for k in (1, 5, 20)]
    assert result.metrics["val"]["ece"] == min(alone)


def test_result_json_has_every_field_that_others_rely_on(cohort, tmp_path):
    result, folder = judge(cohort, tmp_path, "linear_probe")
    content = json.loads((folder / "result.json").read_text())
    assert {
        "schema",
        "run_id",
        "protocol",
        "strategy",
        "backbone",
        "task",
        "boundary",
        "fraction",
        "seed",
        "pretraining_seed",
        "n",
        "selected",
        "metrics",
        "intervals",
        "seen_in_pretraining",
        "cost",
        "environment",
    } <= set(content)
    assert {"id", "name", "method", "source_domain", "parents"} <= set(content["backbone"])
    assert content["task"] == {"name": "made_up", "target_domain": "ct"}
    assert set(content["metrics"]) == {"val", "test"}
    assert set(content["cost"]) == {"images", "steps", "seconds", "gpu_hours", "flops", "device"}
    metrics = metrics_of("classification")
    per_class = {f"{name}_{label}" for name, metric in metrics.items() if metric.per_class for label in range(3)}
    assert set(content["metrics"]["test"]) == set(content["intervals"]) == {*metrics, *per_class}
    assert set(content["metrics"]["val"]) == set(content["metrics"]["test"]) - {"ece_scaled", "brier_scaled"}
    assert content["settings"]["operating_point"] == 0.95 and content["temperature"] > 0
    assert EvalResult.load(folder) == result


@pytest.mark.parametrize(
    ("source", "boundary"),
    [
        ("ct/head", "none"),
        ("xray", "soft"),
        ("photograph", "hard"),
        ("satellite", "hard"),
        ("ct + mr + ultrasound", "mixed"),
        (None, "scratch"),
        ("unknown", "unknown"),
        ("unknown + ct", "unknown"),
        ("unknown + photograph + ct", "mixed"),
    ],
)
def test_the_boundary_between_source_and_target_is_named(torn, tmp_path, source, boundary):
    assert judge(torn, tmp_path, backbone=pixel_backbone(source_domain=source))[0].boundary == boundary


def test_images_and_patients_of_every_split_are_counted(cohort, tmp_path):
    assert judge(cohort, tmp_path)[0].n == {
        "train": {"images": 160, "patients": 40},
        "val": {"images": 40, "patients": 10},
        "test": {"images": 40, "patients": 10},
    }


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_fraction_takes_whole_training_patients_and_leaves_validation_and_test_alone(cohort, tmp_path, fraction):
    n = judge(cohort, tmp_path, overrides=[f"fraction={fraction}"])[0].n
    assert n["train"]["patients"] == pytest.approx(40 * fraction, abs=2)
    assert n["train"]["images"] == 4 * n["train"]["patients"]
    assert n["val"] == n["test"] == {"images": 40, "patients": 10}


def test_fractions_are_nested_and_differ_between_seeds(cohort):
    for seed in range(3):
        rows = [set(cohort.rows("train", fraction, seed).tolist()) for fraction in (0.1, 0.25, 0.5, 1.0)]
        assert rows[0] < rows[1] < rows[2] < rows[3]
    assert set(cohort.rows("train", 0.25, 0)) != set(cohort.rows("train", 0.25, 1))


def test_a_store_with_a_patient_on_both_sides_of_a_split_is_refused(tmp_path):
    task = make_task(
        tmp_path / "store",
        np.zeros((6, 4)),
        [0, 1] * 3,
        ["train", "train", "val", "val", "test", "test"],
        ["a", "b", "c", "d", "b", "e"],
    )
    with pytest.raises(SplitError, match=r"patient b has images in both train and test .* --resplit"):
        judge(task, tmp_path)
    assert not (tmp_path / "result").exists()


def test_unknown_patients_are_null_and_the_result_says_so(tmp_path, capsys):
    features = np.random.default_rng(0).uniform(-1, 1, (12, 4))
    task = make_task(tmp_path / "store", features, [0, 1] * 6, ["train"] * 6 + ["val"] * 3 + ["test"] * 3, None)
    result, _ = judge(task, tmp_path)
    assert result.n["train"] == {"images": 6, "patients": None}
    assert "patients unknown: splits, fractions and intervals are by image" in result.notes
    assert "patients are unknown" in capsys.readouterr().err


def test_a_test_split_of_a_single_class_has_null_where_a_metric_has_no_value(tmp_path, capsys):
    features = np.random.default_rng(0).uniform(-1, 1, (8, 4))
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    task = make_task(tmp_path / "store", features, [0, 1, 0, 1, 0, 1, 1, 1], splits, list("abcdefgh"))
    result, folder = judge(task, tmp_path)
    content = json.loads((folder / "result.json").read_text())
    sentence = "test has no image of class 0: balanced accuracy, AUROC and F1 are of the other 1 of 2 classes"
    assert sentence in result.notes and sentence in capsys.readouterr().err
    assert content["metrics"]["test"]["auroc"] is None and "auroc" not in content["intervals"]


def test_a_missing_split_or_class_is_refused(tmp_path):
    task = make_task(tmp_path / "a", np.zeros((4, 4)), [0, 1, 0, 1], ["train"] * 2 + ["val"] * 2, ["a", "b", "c", "d"])
    with pytest.raises(StoreError, match="no 'test' split"):
        judge(task, tmp_path)
    task = make_task(
        tmp_path / "b", np.zeros((5, 4)), [0, 0, 1, 1, 0], ["train"] * 2 + ["val"] * 2 + ["test"], list("abcde")
    )
    with pytest.raises(
        SplitError, match=r"no training image of class 1 at fraction 1\. All its patients are in other splits"
    ):
        judge(task, tmp_path)


def test_predictions_hold_every_test_image_and_give_the_reported_score(cohort, tmp_path):
    result, folder = judge(cohort, tmp_path, "linear_probe")
    frame = pandas.read_parquet(folder / "predictions.parquet")
    assert frame["row"].tolist() == cohort.store.positions("test").tolist()
    guess = frame[[f"score_{c}" for c in cohort.classes]].to_numpy().argmax(1)
    assert np.mean(guess == frame["label"].astype(int)) == pytest.approx(result.metrics["test"]["accuracy"], abs=1e-6)
    low, high = result.intervals["accuracy"]
    assert low <= result.metrics["test"]["accuracy"] <= high


def test_the_same_evaluation_is_already_there_and_another_in_its_folder_is_refused(cohort, tmp_path):
    result, folder = judge(cohort, tmp_path)
    before = (folder / "result.json").stat().st_mtime_ns
    assert judge(cohort, tmp_path)[0] == result and (folder / "result.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="Give another --out"):
        judge(cohort, tmp_path, overrides=["fraction=0.5"])


def test_a_store_seen_in_pretraining_is_named(cohort, tmp_path):
    assert judge(cohort, tmp_path)[0].seen_in_pretraining == "unknown"  # photographs of which nothing is known
    random = pixel_backbone(source_domain=None)
    assert judge(cohort, tmp_path / "a", backbone=random)[0].seen_in_pretraining is False
    known = pixel_backbone(stores=[cohort.store.id])
    assert judge(cohort, tmp_path / "b", backbone=known)[0].seen_in_pretraining is True


def test_a_real_backbone_is_judged_from_one_channel_to_three(ct_store, tmp_path):
    task = Task("region", ct_store, TaskCard(store=str(ct_store.path), target="label", metric="balanced_accuracy"))
    backbone = load_backbone("scratch:test_resnet,size=32")
    result, _ = judge(task, tmp_path, "linear_probe", backbone)
    assert result.metrics["test"]["balanced_accuracy"] > 1 / 6
    assert result.notes == ["channels: store has 1, backbone reads 3; repeated"] and result.boundary == "scratch"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fractoin=0.1"], "no setting 'fractoin'. Did you mean 'fraction'"),
        (["fraction=0"], "fraction: found '0'"),
        (["strengths=[1]"], "no setting 'strengths'"),
        (["k=many"], "k: found 'many'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(overrides, message):
    with pytest.raises(RecipeError, match=message):
        evaluate_recipe("knn", overrides)


def test_there_are_four_protocols():
    assert sorted(PROTOCOLS) == ["finetune", "knn", "linear_probe", "segment"]
    assert list(IMPLEMENTATIONS) == list(PROTOCOLS) == [protocol.name for protocol in PROTOCOLS.values()]


@pytest.mark.parametrize(("at", "clean"), [("test", "train"), ("train", "test"), ("both", None)])
def test_noise_is_where_it_is_asked_for(cohort, tmp_path, at, clean):
    recipe, _ = evaluate_recipe("knn", ["noise.kind=gaussian", "noise.sigma=0.05", f"noise.at={at}"])
    rows = {split: cohort.rows(split) for split in ("train", "val", "test")}
    context = EvalContext(pixel_backbone(), cohort, recipe, rows, "id", tmp_path)
    for split in rows:
        same = np.array_equal(context.store(split)[3], cohort.store[3])
        assert same == (clean is not None and (split == "test") == (clean == "test"))
    assert context.store("train") is context.store("val")


def test_noise_costs_accuracy_and_the_result_names_it(cohort, tmp_path):
    scores = []
    for sigma in (0.0, 0.05, 0.8):
        noise = [f"noise.sigma={sigma}", "noise.kind=gaussian"] if sigma else []
        result, _ = judge(cohort, tmp_path / str(sigma), overrides=noise)
        scores.append(result.metrics["test"]["accuracy"])
        assert result.settings["noise"]["sigma"] == sigma
    assert scores[0] > scores[2] and scores[1] > scores[2]


def test_features_with_noise_are_computed_for_its_split_alone_once_for_all_fractions(cohort, tmp_path, monkeypatch):
    counted, embed = [], features.embed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        features, "embed", lambda *given, **options: counted.append(len(given[2])) or embed(*given, **options)
    )
    noise = ["noise.kind=gaussian", "noise.sigma=0.05", "noise.at=test"]
    for fraction in (0.5, 1.0):
        judge(cohort, tmp_path / str(fraction), overrides=[*noise, f"fraction={fraction}"])
    assert counted == [240, 40, 240]  # without noise into a folder for each fraction, with noise once


@pytest.mark.parametrize(
    "settings", [["noise.kind=gaussian"], ["noise.sigma=0.1"], ["noise.kind=salt", "noise.sigma=1"]]
)
def test_half_a_noise_is_refused(settings):
    with pytest.raises(RecipeError, match="noise"):
        evaluate_recipe("knn", settings)


def test_lists_of_fractions_and_seeds_are_one_evaluation_of_each_whose_scores_depend_on_the_seed():
    found = [
        (recipe.fraction, recipe.seed, options["k"])
        for recipe, options in evaluate_recipes("knn", ["fraction=[0.1,1]", "k=[5]", "seed=[0, 3]"])
    ]
    assert found == [(0.1, 0, (5,)), (0.1, 3, (5,)), (1.0, 0, (5,))]
    assert len(list(evaluate_recipes("knn", ["fraction=0.5"]))) == 1


@pytest.mark.parametrize(
    ("kind", "poolings", "count"),
    [
        ("multiclass", ["mean", "max"], 1),
        ("multiclass", ["mean", "topk"], 2),
        ("multilabel", None, 2),
        ("survival", None, 1),  # heads that learn a pooling are for classes
        ("regression", ["mean", "attention"], 1),
    ],
)
def test_two_seeds_of_a_probe_of_groups_are_two_evaluations_where_a_pooling_is_learned(kind, poolings, count):
    settings = {"seed": [0, 1], "group_pool": poolings}
    assert len(list(swept("linear_probe", settings, kind))) == count


@pytest.mark.parametrize(
    ("protocol", "settings", "count"),
    [
        ("linear_probe", [], 1),
        ("linear_probe", ["solver=sgd"], 2),
        ("linear_probe", ["noise={kind: gaussian, sigma: 0.1}"], 2),
        ("knn", ["channels=adapt"], 1),
        ("finetune", [], 2),
        ("segment", [], 2),
    ],
    ids=str,
)
def test_two_seeds_at_all_labels_are_two_evaluations_where_something_is_drawn(protocol, settings, count):
    assert len(list(evaluate_recipes(protocol, ["seed=[0,1]", *settings]))) == count


def test_several_backbones_fractions_and_seeds_are_evaluated_in_one_call(ct_store, tmp_path):
    card = tmp_path / "region.yaml"
    card.write_text(f"store: {ct_store.path}\ntarget: label\nmetric: balanced_accuracy\n")
    words = [
        "scratch:test_resnet,size=32",
        "scratch:test_resnet,size=32,seed=1",
        str(card),
        "fraction=[0.5, 1]",
        "seed=[0,1]",
    ]
    answer = ssl_transfer("evaluate", "knn", *words, "k=[1]", "resamples=0", "--out", "all", "--json", folder=tmp_path)
    results = answer.json["results"]
    assert len(results) == 6 and len({result["run_id"] for result in results}) == 6
    assert {(result["fraction"], result["seed"]) for result in results} == {(0.5, 0), (0.5, 1), (1.0, 0)}
    assert answer.stderr.count("balanced_accuracy") == 6
    assert len(list((tmp_path / "all").glob("*/result.json"))) == 6


def test_a_protocol_refuses_a_task_of_another_kind(ct_store, tmp_path):
    masks = Task.opened("organs", TaskCard(store=str(ct_store.path), target="mask", metric="dice"))
    with pytest.raises(TaskError, match=r"it is segmentation, which knn cannot score\. Take segment"):
        judge(masks, tmp_path)
    region = Task.opened("region", TaskCard(store=str(ct_store.path), target="label", metric="accuracy"))
    with pytest.raises(TaskError, match=r"it is multiclass, which segment cannot score\. Take linear_probe or knn"):
        judge(region, tmp_path, "segment")


def test_probes_score_several_labels_of_an_image(cohort, tmp_path):
    rows = cohort.store.rows
    folder = tmp_path / "labels"
    shutil.copytree(cohort.store.path, folder)
    classes = rows["label"].astype(int)
    rows["first"], rows["late"] = (classes == 0).astype(int), (classes > 0).astype(float)
    rows.loc[::7, "late"] = None
    rows.to_parquet(folder / "rows.parquet", index=False)
    task = Task.opened("labels", TaskCard(store=str(folder), target=("first", "late"), metric="auroc"))
    for protocol in FROZEN:
        result, where = judge(task, tmp_path / protocol, protocol)
        assert result.metrics["test"]["auroc"] > 0.8 and "auroc_late" in result.metrics["test"]
        frame = pandas.read_parquet(where / "predictions.parquet")
        assert {"label_first", "label_late", "score_first", "score_late"} <= set(frame)
        assert (frame["label_late"] == -1).any()
