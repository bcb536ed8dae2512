"""LEEP and NCE: the source posteriors they are computed from, and backbones without any."""

import numpy as np
import pytest
import timm
import torch
from models.test_public import MODELS, downloaded
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from support.rankings import CLASSES, CLEAR, DIM, NOISE, cohort, criteria_of, ranked, reader, train_and_val_rows

from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.errors import BackboneError, SslTransferError, StoreError
from ssl_transfer.features import extract_features
from ssl_transfer.measures.transferability import leep, nce
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.ranking.source_classifier import SourceLabels, source_posteriors
from ssl_transfer.ranking.stage import rank

SOURCE = {"one channel": 1, "three channels": 3}


def values_on(backbone):
    """Features of a store by a backbone."""
    return lambda store: extract_features(backbone, store).values


def command(backbone, task, *sources, seed=0):
    """Opinions on all images of a task."""
    extract = values_on(backbone)
    return source_posteriors(
        backbone, extract(task.store), [SourceLabels.open(source) for source in sources], extract, seed
    )


@pytest.fixture
def source(workdir):
    """A store of other patients, with labels that the clear pixels tell, and labels that nothing tells."""
    draw = np.random.default_rng(5)
    organs = np.array(["liver", "spleen", "kidney"])[np.arange(90) % CLASSES]
    columns = {"label": organs, "mood": draw.permutation(organs), "same": np.full(90, "all")}
    return cohort(workdir / "source", columns, patients=30, seed=9).store


@pytest.fixture
def task(workdir):
    return cohort(workdir / "target")


def caveat(answer, *words):
    """The one caveat that has all these words."""
    (said,) = (said for said in answer["caveats"] if all(word in said for word in words))
    return said


# a classifier of their own


@pytest.mark.parametrize("channels", SOURCE.values(), ids=SOURCE)
@pytest.mark.parametrize("family", MODELS)
def test_public_weights_include_the_classifier_of_timm(workdir, family, channels):
    downloaded(workdir / "public", family)
    backbone = load_backbone(workdir / "public", in_channels=channels, size=64)
    weights, biases = backbone.classifier
    assert weights.shape == (1000, backbone.feature_dim) and biases.shape == (1000,)
    images = torch.randn(3, channels, 64, 64, generator=torch.Generator().manual_seed(3))
    whole = timm.create_model(f"local-dir:{workdir / 'public'}", pretrained=True, in_chans=channels).eval()
    with torch.inference_mode():
        expected = whole(images).softmax(1).numpy()
        features = backbone(images).numpy()
    assert np.allclose(softmax(features @ weights.T + biases, axis=1), expected, rtol=1e-4, atol=1e-7)


def test_other_backbones_have_no_classifier(workdir):
    downloaded(workdir / "public")
    public = load_backbone(workdir / "public", size=64)
    save_backbone(public, workdir / "ours")
    headless = timm.create_model("test_resnet", num_classes=0)
    timm.models.save_for_hf(headless, workdir / "headless", safe_serialization=True)
    scratch = f"scratch:{workdir / 'public'}"
    for spec in (workdir / "ours", workdir / "headless", scratch, "scratch:test_resnet,size=64"):
        assert load_backbone(spec, size=64).classifier is None


def test_public_weights_are_scored_by_their_own_classifier(workdir, task):
    downloaded(workdir / "public", "vit")
    public = load_backbone(workdir / "public", in_channels=1)
    answer = ranked(task, {"public": public, "ours": CLEAR}, workdir / "out", resamples=0)
    rows, (weights, biases) = train_and_val_rows(task), public.classifier
    features = extract_features(public, task.store).values[rows].astype(float)
    probabilities = softmax(features @ weights.T + biases, axis=1)
    values = criteria_of(answer, "public")
    assert values["leep"] == pytest.approx(leep(probabilities, task.labels[rows]), rel=1e-9)
    assert values["nce"] == pytest.approx(nce(probabilities.argmax(1), task.labels[rows]), rel=1e-9)
    assert criteria_of(answer, "ours")["leep"] is criteria_of(answer, "ours")["nce"] is None
    assert caveat(answer, "public", "own classifier")
    assert "ours" in caveat(answer, "not applicable", "N-LEEP")
    sources = {one["name"]: one["source_classes"] for one in answer["backbones"]}
    assert sources["ours"] is None and "own classifier" in sources["public"]


def test_imagenet_weights_of_a_package_serve_leep_and_nce(workdir, task):
    answer = rank(task, ["imagenet:efficientnet_lite0"], workdir / "out", resamples=0).to_json()
    backbone = load_backbone("imagenet:efficientnet_lite0", *task.store.shape[:2])
    rows, (weights, biases) = train_and_val_rows(task), backbone.classifier
    probabilities = softmax(
        extract_features(backbone, task.store).values[rows].astype(float) @ weights.T + biases, axis=1
    )
    values = criteria_of(answer, "efficientnet_lite0.in1k")
    assert values["leep"] == pytest.approx(leep(probabilities, task.labels[rows]), rel=1e-9)
    assert values["nce"] == pytest.approx(nce(probabilities.argmax(1), task.labels[rows]), rel=1e-9)


# a head on the labels of a store


def test_without_source_classes_leep_and_nce_are_null_and_a_caveat_names_an_alternative(workdir, task):
    values = ranked(task, {"ours": CLEAR, "scratch": reader(*DIM, method="none")}, workdir / "out", resamples=0)
    for name in ("ours", "scratch"):
        assert criteria_of(values, name)["leep"] is criteria_of(values, name)["nce"] is None
        assert criteria_of(values, name)["n_leep"] <= 0
    said = caveat(values, "LEEP", "NCE", "not applicable")
    assert "ours" in said and "scratch" in said and "N-LEEP" in said and "--source" in said


def test_a_head_is_trained_on_the_labels_of_the_store_that_a_backbone_was_pretrained_on(workdir, task, source):
    backbones = {"pretrained": reader(*CLEAR, stores=[source.id]), "other": reader(*DIM, stores=["elsewhere"])}
    sources = [SourceLabels.open(str(source.path))]
    answer = ranked(task, backbones, workdir / "out", resamples=20, sources=sources)
    values = criteria_of(answer, "pretrained")
    assert -np.log(CLASSES) / 2 < values["leep"] <= 0 and values["nce"] == pytest.approx(0, abs=1e-9)
    assert criteria_of(answer, "other")["leep"] is criteria_of(answer, "other")["nce"] is None
    assert str(source.path) in caveat(answer, "LEEP and NCE of pretrained")
    assert "other" in caveat(answer, "not applicable")
    (one,) = (one for one in answer["backbones"] if one["name"] == "pretrained")
    assert str(source.path) in one["source_classes"] and {"leep", "nce"} <= set(one["intervals"])


def test_values_are_those_of_the_head_s_posteriors_on_train_and_val(workdir, task, source):
    backbone = reader(*DIM, stores=[source.id])
    sources = [SourceLabels.open(str(source.path))]
    values = criteria_of(ranked(task, {"it": backbone}, workdir / "out", resamples=0, sources=sources), "it")
    rows = train_and_val_rows(task)
    probabilities = command(backbone, task, str(source.path)).probabilities[rows]
    assert values["leep"] == pytest.approx(leep(probabilities, task.labels[rows]), rel=1e-9)
    assert values["nce"] == pytest.approx(nce(probabilities.argmax(1), task.labels[rows]), rel=1e-9)


def test_posteriors_are_probabilities_of_the_store_s_classes_on_all_images(task, source):
    posteriors = command(reader(*CLEAR, stores=[source.id]), task, str(source.path))
    assert posteriors.probabilities.shape == (60, CLASSES) and (posteriors.probabilities >= 0).all()
    assert np.allclose(posteriors.probabilities.sum(1), 1)
    assert str(source.path) in posteriors.origin
    named = posteriors.probabilities.argmax(1)  # classes sorted: kidney, liver, spleen
    assert np.array_equal(named, (task.labels + 1) % CLASSES)


def test_another_column_can_be_the_source_and_labels_unrelated_to_the_images_score_lower(workdir, task, source):
    backbone, values = {"it": reader(*CLEAR, stores=[source.id])}, {}
    for column in ("label", "mood"):
        sources = [SourceLabels.open(f"{source.path}:{column}")]
        answer = ranked(task, backbone, workdir / column, resamples=0, sources=sources)
        values[column] = criteria_of(answer, "it")
        assert column in caveat(answer, "LEEP and NCE of it")
    assert values["label"]["leep"] > values["mood"]["leep"] + 0.3
    assert values["label"]["logme"] == values["mood"]["logme"]


def test_only_training_labels_of_the_source_are_learnt(workdir, task):
    organs = np.array(["liver", "spleen", "kidney"])[np.arange(90) % CLASSES].astype(object)
    one = cohort(workdir / "one", {"label": organs}, patients=30).store
    rest = one.column("split") != "train"
    assert rest.sum() == 18
    organs[rest] = np.roll(organs[rest], 1)
    other = cohort(workdir / "other", {"label": organs}, patients=30).store
    backbone = reader(*DIM, stores=[one.id, other.id])
    expected, same = (command(backbone, task, str(store.path)).probabilities for store in (one, other))
    assert one.id != other.id and np.array_equal(expected, same)


def test_several_stores_are_learnt_together(workdir, task, source):
    second = cohort(workdir / "second", seed=11).store
    backbone = reader(*CLEAR, stores=[source.id, second.id])
    both = command(backbone, task, str(source.path), str(second.path))
    assert both.probabilities.shape == (60, 2 * CLASSES)
    assert str(source.path) in both.origin and str(second.path) in both.origin
    one = command(reader(*CLEAR, stores=[second.id]), task, str(source.path), str(second.path))
    assert one.probabilities.shape == (60, CLASSES) and str(source.path) not in one.origin


def test_a_store_that_no_backbone_was_pretrained_on_is_no_source_and_a_caveat_says_so(workdir, task, source):
    sources = [SourceLabels.open(str(source.path))]
    answer = ranked(task, {"it": CLEAR}, workdir / "out", resamples=0, sources=sources)
    assert criteria_of(answer, "it")["leep"] is None
    assert "pretrained" in caveat(answer, str(source.path))


def test_a_column_of_one_class_gives_no_posterior_and_is_not_named_as_origin(workdir, task, source):
    backbone = reader(*CLEAR, stores=[source.id])
    assert command(backbone, task, f"{source.path}:same") is None
    with_another = command(backbone, task, f"{source.path}:same", f"{source.path}:label")
    assert with_another.probabilities.shape == (60, CLASSES) and "(same)" not in with_another.origin


def test_multi_label_tasks_have_no_leep_whatever_the_source(workdir, task, source):
    columns = {"a": (np.arange(60) % 2).astype(str), "b": (np.arange(60) % 3 > 0).astype(int).astype(str)}
    multilabel = cohort(workdir / "several", columns, target=["a", "b"], metric="auroc")
    backbone = reader(*CLEAR, stores=[source.id])
    sources = [SourceLabels.open(str(source.path))]
    values = criteria_of(ranked(multilabel, {"it": backbone}, workdir / "out", resamples=0, sources=sources), "it")
    assert values["leep"] is values["nce"] is None and values["logme"] is not None


def test_the_labels_of_another_column_of_the_same_store_can_predict_a_task(workdir):
    columns = {"organ": (np.arange(60) % CLASSES).astype(str), "label": (np.arange(60) % CLASSES > 0).astype(str)}
    store = cohort(workdir / "both", columns).store
    task = Task("is it", store, TaskCard(store=str(store.path), target="label", metric="accuracy"))
    backbone = {"it": reader(*CLEAR, stores=[store.id])}
    sources = [SourceLabels.open(f"{store.path}:organ")]
    values = criteria_of(ranked(task, backbone, workdir / "out", resamples=0, sources=sources), "it")
    assert values["nce"] == pytest.approx(0, abs=1e-9)


# what cannot be a source


def test_a_source_is_a_store_with_the_column_label_unless_another_is_named(source):
    assert SourceLabels.open(str(source.path)).column == "label"
    named = SourceLabels.open(f"{source.path}:mood")
    assert (named.column, named.store.id) == ("mood", source.id)
    assert named.id != SourceLabels.open(str(source.path)).id


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:lable", "no column 'lable'. Did you mean 'label'"),
        ("{}s", "there is no such store"),
        ("{}s:label", "no such"),
    ],
)
def test_a_wrong_source_is_refused(source, spec, message):
    with pytest.raises(StoreError, match=message):
        SourceLabels.open(spec.format(source.path))


@pytest.mark.parametrize("names", ["a" * 12, "ab" * 6, "aabb" * 3], ids=["one", "one of each class", "two"])
def test_a_source_of_very_few_patients_gives_an_answer_or_a_reason(workdir, task, names):
    labels = {"label": ["liver", "spleen"] * 6, "patient": list(names)}
    store = cohort(workdir / "few", labels, patients=12, images=1).store
    sources = [SourceLabels.open(str(store.path))]
    try:
        answer = ranked(task, {"it": reader(*DIM, stores=[store.id])}, workdir / "out", resamples=0, sources=sources)
    except SslTransferError:
        return
    assert criteria_of(answer, "it")["leep"] is None or criteria_of(answer, "it")["leep"] <= 0


def spoilt(backbone, store, folder, row):
    """A features folder in which one image's are no numbers."""
    extract_features(backbone, store, folder)
    features = load_file(folder / "features.safetensors")["features"].copy()
    features[row] = np.nan
    save_file({"features": features}, folder / "features.safetensors")
    return folder


def test_features_of_the_source_that_are_nan_are_refused_by_name(workdir, task, source):
    backbone = reader(*CLEAR, stores=[source.id])
    features = spoilt(backbone, source, workdir / "spoilt", 0)
    sources = [SourceLabels.open(str(source.path))]
    with pytest.raises(BackboneError, match="NaN or infinite"):
        ranked(task, {"it": backbone}, workdir / "out", resamples=0, sources=sources, features=[features])


def test_features_of_test_images_do_not_matter_to_leep_whatever_they_are(workdir, task, source):
    backbone, sources = reader(*DIM, stores=[source.id]), [SourceLabels.open(str(source.path))]
    expected = ranked(task, {"it": backbone}, workdir / "clean", resamples=0, sources=sources)
    features = spoilt(backbone, task.store, workdir / "spoilt", 59)
    assert task.store.column("split")[59] == "test"
    same = ranked(task, {"it": backbone}, workdir / "out", resamples=0, sources=sources, features=[features])
    assert criteria_of(same, "it") == criteria_of(expected, "it")


def test_the_noise_of_a_source_does_not_make_a_good_score(workdir, task, source):
    values = {}
    for name, pixels in (("clear", CLEAR), ("noise", NOISE)):
        backbone, sources = reader(*pixels, stores=[source.id]), [SourceLabels.open(str(source.path))]
        values[name] = criteria_of(ranked(task, {"it": backbone}, workdir / name, resamples=0, sources=sources), "it")[
            "leep"
        ]
    assert values["clear"] > values["noise"] and values["noise"] == pytest.approx(-np.log(CLASSES), abs=0.15)
