"""Neighbouring slices and several windows as channels: from a recipe to a backbone, and what is evaluated with it."""

import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
import yaml
from support.stores import with_damaged_frames
from support.tiny_study import small, write_study

from ssl_transfer.channels import WINDOWS_HU, InputChannels
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.neighbours import neighbouring_slices
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.errors import BackboneError, RecipeError, StoreError, UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.export.preprocessing import Preprocessing
from ssl_transfer.features import embed_images, extract_features
from ssl_transfer.models.adoption import with_channels
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.prediction.stage import predict
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe, merge, validate
from ssl_transfer.study.design import load_study
from ssl_transfer.study.methods_text import study_design
from ssl_transfer.study.plan import external_id
from ssl_transfer.study.planning import plan_study

CONTEXT, WINDOWS = "data.context=3", "data.windows=[soft_tissue, lung, [-500, 1300]]"
OF = {
    CONTEXT: InputChannels(3),
    WINDOWS: InputChannels(1, (WINDOWS_HU["soft_tissue"], WINDOWS_HU["lung"], (-500, 1300))),
}
STILL = "data.views={name: ct, flip: 0, crop_scale: [1, 1], rotation_degrees: 0, blur_share: 0, noise: 0, "
STILL += "window_shift: 0, window_stretch: 0, brightness: 0, contrast: 0}"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """144 phantom CT slices of 8 patients, 32 px, in volumes of three slices."""
    return ingest("phantom:ct,patients=8,slices=18,size=32", tmp_path_factory.mktemp("stores") / "volumes", workers=1)


@pytest.fixture(scope="module", params=OF, ids=["context", "windows"])
def pretrained(request, runs, store, tmp_path_factory):
    """The setting, and the folder of a run with it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    runs(folder, f"data.store={store.path}", "data.limit=36", request.param)
    return request.param, folder


@pytest.fixture
def task(store):
    return Task.opened("region", TaskCard(store=str(store.path), target="label", metric="balanced_accuracy"))


@pytest.fixture
def build(runs, store):
    """The setup of the tiny recipe on the store, with other settings."""
    return lambda *words: built(runs, f"data.store={store.path}", *words)


def built(runs, *words):
    recipe = validate(PretrainRecipe, merge(yaml.safe_load(runs.recipe.read_text()), words), "test")
    return PretrainSetup.build(resolve(recipe, "test"), "test")


def by_hand(store, channels, rows):
    """Inputs of a backbone (n, C, H, W), from the pixels of a store and the positions of its slices."""
    table, inputs = store.rows, []
    for row in rows:
        same = (table["series"] == table["series"][row]) & (table["volume"] == table["volume"][row])
        order = np.flatnonzero(same)[np.argsort(table["z_mm"][same].to_numpy())]
        place, half = order.tolist().index(row), channels.context // 2
        for step in range(-half, half + 1):
            hu = store[int(order[np.clip(place + step, 0, len(order) - 1)])][0].astype(np.float32)
            for low, high in channels.windows_hu or (WINDOWS_HU["soft_tissue"],):
                inputs.append(np.clip((hu - low) / (high - low), 0, 1))
    return (torch.from_numpy(np.stack(inputs)).view(len(rows), channels.count, *store.shape[1:]) - 0.5) / 0.25


def test_the_card_says_what_the_channels_are_and_features_are_of_the_same_input(pretrained, store, tmp_path):
    words, folder = pretrained
    backbone, channels = load_backbone(folder / "backbone"), OF[words]
    assert backbone.card.channels == channels and backbone.card.in_channels == 3
    assert backbone.intensity.window_hu == WINDOWS_HU["soft_tissue"]
    rows = np.array([0, 5, 64, 143])
    features = extract_features(backbone, store, tmp_path / "features", size=32)
    with torch.inference_mode():
        expected = backbone(by_hand(store, channels, rows))
    assert np.allclose(features.values[rows], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("words", [[CONTEXT], [WINDOWS], [CONTEXT, WINDOWS]], ids=["context", "windows", "both"])
def test_training_images_are_read_with_the_same_channels(build, store, words):
    training_set = build(*words, STILL, "data.size=32").training_set
    maker = training_set.parts[0].maker
    maker.presets = [replace(preset, crop_ratio=(1.0, 1.0)) for preset in maker.presets]
    rows = np.array([3, 13, 29])
    view = training_set.views(training_set.read(rows), rows, 0).views[0]
    channels = InputChannels(
        *(max(values) for values in zip(*((OF[w].context, OF[w].windows_hu) for w in words), strict=True))
    )
    assert torch.allclose(view, by_hand(store, channels, rows), atol=1e-4)


def test_the_partner_of_an_image_has_its_own_neighbours(build):
    setup = build(CONTEXT, "data.views={name: ct, positive: slice}")
    part = setup.training_set.parts[0]
    rows = part.positions[[3, 12]]
    assert part.partners
    expected = part.store.read(part.partners.of(rows, 0, 1))
    assert expected.shape == (2, 3, 32, 32) and np.array_equal(np.asarray(part.read_partners(rows, 0, 1)), expected)


@pytest.mark.parametrize("pretrained", [CONTEXT], ids=["context"], indirect=True)
def test_an_interrupted_run_continues_to_the_same_weights(pretrained, runs, store, tmp_path):
    channels, folder = pretrained
    ingest("phantom:ct,patients=8,slices=6,size=32", tmp_path / "watched", compress=True, workers=1)
    with_damaged_frames(tmp_path / "watched")
    words = [f"data.store={store.path}", "data.limit=36", channels]
    with pytest.raises(StoreError, match="cannot be decoded"):
        runs(tmp_path / "run", *words, f"monitor={{store: {tmp_path / 'watched'}, every_epochs: 1}}")
    assert any((tmp_path / "run" / "checkpoints").glob("*.pt"))
    runs(tmp_path / "run", *words)
    assert runs.weights(tmp_path / "run") == runs.weights(folder)


def test_a_probe_and_its_predictions_for_new_images_read_the_same_channels(pretrained, task, store, tmp_path):
    _, folder = pretrained
    evaluate("linear_probe", folder / "backbone", task, tmp_path / "probe", tmp_path / "features", resamples=0)
    predicted = predict(tmp_path / "probe", store.path, tmp_path / "predictions.parquet")["predictions"]
    scores = pandas.read_parquet(predicted).filter(like="score_")
    tested = pandas.read_parquet(tmp_path / "probe" / "predictions.parquet")
    assert np.allclose(scores.iloc[tested["row"]], tested[scores.columns], atol=1e-5)
    assert not [
        note for note in json.loads((tmp_path / "probe/result.json").read_text())["notes"] if "channels" in note
    ]


def test_fine_tuning_and_segmentation_read_the_same_channels(pretrained, task, store, tmp_path):
    words, folder = pretrained
    organs = TaskCard(store=str(store.path), target="mask", metric="dice")
    protocol, task = ("segment", Task.opened("organs", organs)) if words == CONTEXT else ("finetune", task)
    settings = {"train.steps": 1, "train.batch_size": 4, "train.keep_backbone": True, "resamples": 0}
    evaluate(protocol, folder / "backbone", task, tmp_path / "result", **settings)
    tuned = load_backbone(tmp_path / "result" / "backbone")
    assert tuned.card.channels == OF[words] and tuned.id != load_backbone(folder / "backbone").id


def test_images_in_memory_have_no_slices_and_windows(pretrained):
    with pytest.raises(UsageError, match="which need a store"):
        embed_images(load_backbone(pretrained[1] / "backbone"), np.zeros((2, 3, 16, 16), np.uint8))


def test_the_control_of_random_initialisation_reads_the_same_channels(pretrained):
    words, folder = pretrained
    control = load_backbone(f"scratch:{folder / 'backbone'}")
    assert control.card.channels == OF[words] and with_channels(control, 1) is control


def test_an_export_says_what_the_channels_are(pretrained):
    words, folder = pretrained
    plan = Preprocessing.of(load_backbone(folder / "backbone").card, "mean")
    if words == CONTEXT:
        assert plan.context == 3 and "3 slices of the volume in their order" in plan.as_markdown()
    else:
        assert plan.intensity["hu"] == [[-160, 240], [-1350, 150], [-500, 1300]]
        assert "-1350 (0) to 150 (1)" in plan.as_markdown()
    assert str(OF[words]) in (folder / "backbone" / "README.md").read_text()


def test_images_that_are_channels_of_training_images_count_as_seen(build, store):
    setup = build(CONTEXT, "data.limit=12")
    positions = setup.training_set.parts[0].positions
    record = setup.passport().records[0]
    expected = np.unique(neighbouring_slices(store, 3)[positions])
    assert record.images == len(expected) > len(positions) == 12
    assert set(expected) <= set(store.positions("train"))


@pytest.mark.parametrize("stated", ["context=3", "windows=soft_tissue+lung+-500:1300"])
def test_public_weights_read_what_their_name_states(stated, store, tmp_path):
    plain = load_backbone("imagenet:efficientnet_lite0", size=32)
    spec = f"imagenet:efficientnet_lite0,{stated}"
    backbone = load_backbone(spec, in_channels=1, size=32)
    channels = OF[CONTEXT if "context" in stated else WINDOWS]
    assert backbone.card.channels == channels and backbone.id != plain.id and backbone.spec == spec
    assert torch.equal(backbone.model.conv_stem.weight, plain.model.conv_stem.weight)
    rows = np.array([1, 8])
    unit = by_hand(store, channels, rows) * 0.25 + 0.5
    with torch.inference_mode():
        expected = backbone(backbone.intensity.normalise(unit))
    assert np.allclose(extract_features(backbone, store, tmp_path / "f").values[rows], expected.numpy(), atol=1e-3)


def test_channels_are_stated_of_backbones_that_have_so_many(pretrained):
    _, folder = pretrained
    spec = f"{folder / 'backbone'},context=5"
    with pytest.raises(BackboneError, match=r"its channels are .*, as its card says, and not 5 neighbouring slices"):
        load_backbone(spec)
    assert load_backbone("scratch:resnet10t,context=5,size=32").card.in_channels == 5
    with pytest.raises(BackboneError, match=r"has 1 channel\(s\), and 3 neighbouring slices are 3"):
        load_backbone("scratch:resnet10t,in_channels=1,context=3")
    with pytest.raises(BackboneError, match="windows: found 'lungs'"):
        load_backbone("scratch:resnet10t,windows=lungs")
    assert external_id(spec) == f"{external_id(str(folder / 'backbone'))},5 neighbouring slices"


def test_images_without_slices_or_hu_are_repeated_and_the_result_says_so(pretrained, tmp_path):
    words, folder = pretrained
    with StoreWriter(tmp_path / "store", (3, 16, 16), "|u1") as writer:
        for number in range(12):
            writer.append(np.full((3, 16, 16), 20 * number, np.uint8), {"label": "ab"[number % 2]})
        splits = np.repeat(["train", "val", "test"], 4)
        store = writer.finish(splits, units="rgb", domain="photograph", split_by="image")
    card = TaskCard(store=str(store.path), target="label", metric="balanced_accuracy")
    task, out = Task.opened("photo", card), tmp_path / "result"
    result = evaluate("knn", folder / "backbone", task, out, tmp_path / "features", resamples=0, k=[1])
    lacks = "none of its images has a neighbouring slice" if words == CONTEXT else "its images are not in HU (rgb)"
    notes = " ".join(note for note in result.notes if note.startswith("channels: "))
    assert "its images are in colour: repeated" in notes and lacks in notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.context=4"], "test: data: context: found 4, expected an odd number of slices up to 99, such as 3"),
        (["data.windows=[lung]"], "windows: found one window, expected two or more"),
        (["data.windows=[lung, bones]"], "test: data.windows: found 'bones'. Did you mean 'bone'"),
        (["data.windows=[lung, [40, -40]]"], "windows: found 40 to -40 HU"),
        (
            [CONTEXT, "backbone.in_channels=1"],
            "backbone.in_channels: found 1, and the channels are 3 neighbouring slices",
        ),
        (
            [WINDOWS, "data.views={name: ct, window_hu: [0, 80]}"],
            "Set data.views.window_hu=[-160,240], the first of them",
        ),
    ],
)
def test_channels_that_do_not_fit_are_refused(build, words, message):
    with pytest.raises(RecipeError) as refusal:
        build(*words)
    assert message in str(refusal.value)


@pytest.mark.parametrize(("words", "lacks"), [(CONTEXT, "neighbouring slice"), (WINDOWS, r"not in HU \(rgb\)")])
def test_a_store_of_a_mix_that_cannot_have_the_channels_is_refused_by_name(build, store, photo_store, words, lacks):
    mix = f"{{store: {store.path}, share: 0.5}}, {{store: {photo_store.path}, share: 0.5, views: natural}}"
    with pytest.raises(
        RecipeError, match=rf"of {photo_store.path} its images are in colour and .*{lacks}.*Leave out the store"
    ):
        build(words, "data.store=null", f"data.mix=[{mix}]")


def test_a_parent_or_teacher_with_other_channels_is_refused(pretrained, build):
    words, folder = pretrained
    other = WINDOWS if words == CONTEXT else CONTEXT
    assert build(words, f"backbone.init={folder / 'backbone'}").parent
    with pytest.raises(RecipeError, match=r"backbone.init: the channels of .* Set data.context="):
        build(other, f"backbone.init={folder / 'backbone'}")
    distilled = f"method={{name: distill, teacher: {folder / 'backbone'}, queue: 12, patch_weight: 0}}"
    assert build(words, distilled).objective.teacher
    with pytest.raises(RecipeError, match=r"method.teacher: the channels of .* Set data.context="):
        build(distilled)


def test_ids_of_recipes_without_channels_are_those_of_earlier_versions(runs):
    def identity(*words):
        return validate(PretrainRecipe, merge(yaml.safe_load(runs.recipe.read_text()), words), "test").identity()[
            "data"
        ]

    assert not {"context", "windows"} & set(identity()) and identity() == identity("data.context=1")
    assert identity("data.windows=[lung, bone]") == identity("data.windows=[[-1350, 150], [-500, 1300]]")


def test_a_study_varies_channels_like_any_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vary = {
        "channels": {
            "one slice": {},
            "three slices": {"data.context": 3, "backbone.in_channels": None},
            "three windows": {"data": {"windows": ["soft_tissue", "lung", [-500, 1300]]}, "backbone.in_channels": None},
        }
    }
    public = {"one slice": "imagenet:efficientnet_lite0", "three slices": "imagenet:efficientnet_lite0,context=3"}
    arms = {"CT": {"store": "ct"}, "scratch": {"store": "ct", "untrained": True}, "ImageNet": {"backbone": public}}
    arms["ImageNet"]["backbone"]["three windows"] = "imagenet:efficientnet_lite0,windows=soft_tissue+lung+bone"
    path = write_study(tmp_path, **small(vary=vary, pretrainings=arms, pretraining_seeds=[0]))
    plan = plan_study(load_study(path), tmp_path / "study")
    names = [arm["name"] for arm in plan.arms]
    assert len(names) == 9 and "CT · three slices" in names and "ImageNet · three windows" in names
    recipes = [
        validate(PretrainRecipe, yaml.safe_load(p.read_text()), str(p)) for p in tmp_path.glob("study/recipes/*.yaml")
    ]
    found = {str(recipe.data.channels) for recipe in recipes}
    assert found == {"grey or colours", "3 neighbouring slices", str(OF[WINDOWS])} and len(recipes) == 6
    assert "channels: 3 neighbouring slices" in study_design(plan, [])["Pretraining"]
    extracted = {job.words[1] for job in plan.jobs if job.stage == "features"}
    assert {spec for spec in public.values()} <= extracted
