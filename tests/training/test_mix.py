"""Several stores in one pretraining, and labels where a method asks for them."""

import numpy as np
import pytest

from ssl_transfer.cli import main
from ssl_transfer.errors import RecipeError, SslTransferError, StoreError
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe, load_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def mix(ct_store, photo_store):
    """Overrides for CT slices and photographs in stated shares."""

    def overrides(*shares, views="natural"):
        stores = (ct_store, photo_store, ct_store)
        presets = ("", f", views: {views}", "")
        parts = [
            f"{{store: {store.path}, share: {share}{preset}}}"
            for store, share, preset in zip(stores, shares, presets, strict=False)
        ]
        return ("data.store=null", f"data.mix=[{', '.join(parts)}]")

    return overrides


def test_two_domains_train_one_backbone_whose_card_names_both(runs, mix, ct_store, photo_store, tmp_path):
    answer = runs(tmp_path / "run", *mix(0.75, 0.25))
    assert answer["steps"] == 12  # two epochs of 72 images
    card = runs.card(tmp_path / "run")
    assert card["source_domain"] == "ct + photograph" and card["stores"] == [ct_store.id, photo_store.id]
    assert [stage["images"] for stage in card["stages"]] == [{ct_store.id: 36, photo_store.id: 36}]
    assert card["in_channels"] == 3  # those of the store that has most
    assert [part["share"] for part in card["recipe"]["data"]["mix"]] == [0.75, 0.25]
    assert card["recipe"]["data"]["mix"][1]["views"]["name"] == "natural"


def test_a_mix_can_be_launched_from_the_command_line(tiny_recipe, mix, tmp_path, capsys):
    overrides = [*mix(0.5, 0.5), "train.epochs=0.2"]
    assert main(["pretrain", str(tiny_recipe), *overrides, "--out", str(tmp_path / "run")]) == 0, (
        capsys.readouterr().err
    )


def test_a_store_that_does_not_exist_in_a_mix_is_answered_with_the_command_that_makes_it(
    tiny_recipe, ct_store, tmp_path, capsys
):
    parts = f"data.mix=[{{store: {ct_store.path}, share: 0.5}}, {{store: stores/nowhere, share: 0.5}}]"
    assert main(["pretrain", str(tiny_recipe), "data.store=null", parts, "--out", str(tmp_path / "run")]) == 2
    assert "ssl-transfer ingest SOURCE --out stores/nowhere" in capsys.readouterr().err


def test_shares_change_the_weights_and_are_part_of_the_run(runs, mix, tmp_path):
    for name, shares in (("a", (0.75, 0.25)), ("b", (0.75, 0.25)), ("c", (0.5, 0.5))):
        runs(tmp_path / name, *mix(*shares), "train.epochs=1")
    assert runs.weights(tmp_path / "a") == runs.weights(tmp_path / "b") != runs.weights(tmp_path / "c")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((0.5, 0.4), "shares of `mix` that add up to 1, not to 0.9"),
        ((0.5, 0.4, 0.2), "shares of `mix` that add up to 1, not to 1.1"),
        ((0.0, 1.0), "data.mix.0.share: found '0.0'. Expected greater than 0"),
        ((1.0,), "data.mix.0.share: found '1.0'. Expected less than 1"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(runs, mix, tmp_path, overrides, message):
    with pytest.raises(RecipeError) as refusal:
        runs(tmp_path / "run", *mix(*overrides))
    assert message in str(refusal.value) and "Value error" not in str(refusal.value)


@pytest.mark.parametrize("store", ["stores/one", "null"])
def test_a_recipe_with_both_a_store_and_a_mix_or_neither_is_refused(runs, mix, tmp_path, store):
    parts = mix(0.5, 0.5)[1] if store != "null" else "data.mix=[]"
    with pytest.raises(RecipeError, match="Expected either `store: PATH` or `mix:"):
        runs(tmp_path / "run", f"data.store={store}", parts)


def test_an_unknown_option_of_a_part_s_views_is_refused_with_its_position(runs, mix, tmp_path):
    with pytest.raises(RecipeError, match=r"data.mix.1.views.zoom: .* takes no such option"):
        runs(tmp_path / "run", *mix(0.5, 0.5, views="{name: natural, zoom: 2}"))


def test_a_mix_reads_only_training_rows_of_every_store(runs, mix, ct_store, photo_store, changed, tmp_path):
    runs(tmp_path / "a", *mix(0.5, 0.5), "train.epochs=1")
    blank = [
        changed(store, f"blank{i}", blank=np.setdiff1d(np.arange(48), store.positions("train")))
        for i, store in enumerate((ct_store, photo_store))
    ]
    parts = f"[{{store: {blank[0].path}, share: 0.5}}, {{store: {blank[1].path}, share: 0.5, views: natural}}]"
    runs(tmp_path / "b", "data.store=null", f"data.mix={parts}", "train.epochs=1")
    assert runs.weights(tmp_path / "a") == runs.weights(tmp_path / "b")


def test_supervised_pretraining_learns_the_labels_of_its_training_rows(runs, tmp_path):
    runs(tmp_path / "run", "method=supervised", "train.epochs=20", "optimizer.lr=1e-2")
    losses = [line["loss"] for line in runs.lines(tmp_path / "run")]
    assert losses[0] == pytest.approx(np.log(6), abs=0.5) and np.mean(losses[-6:]) < 0.6 * np.log(6)


@pytest.mark.parametrize(
    ("label", "message"),
    [("organ", "no column 'organ'"), ("modality", r"column 'modality' has 1 class\(es\); supervised needs two")],
)
def test_supervised_pretraining_without_two_classes_is_refused(runs, tmp_path, label, message):
    with pytest.raises(StoreError, match=message):
        runs(tmp_path / "run", "method=supervised", f"data.label={label}")
    assert not (tmp_path / "run").exists()


def test_rows_without_a_label_are_not_trained_on(runs, ct_store, changed, tmp_path):
    """What lies in them changes nothing, and an epoch is shorter by them."""
    missing = ct_store.positions("train")[::3]
    partly = changed(ct_store, "partly", unlabelled=missing)
    blank = changed(ct_store, "blank", unlabelled=missing, blank=missing)
    for name, store in (("a", partly), ("b", blank)):
        answer = runs(tmp_path / f"run-{name}", "method=supervised", f"data.store={store.path}")
        assert answer["steps"] == 4  # two epochs of 24 images
    assert runs.weights(tmp_path / "run-a") == runs.weights(tmp_path / "run-b")


def test_a_store_of_a_mix_without_any_label_is_refused_for_supervised(runs, ct_store, photo_store, changed, tmp_path):
    bare = changed(photo_store, "bare", unlabelled=np.arange(48))
    parts = f"[{{store: {ct_store.path}, share: 0.5}}, {{store: {bare.path}, share: 0.5, views: natural}}]"
    recipe = load_recipe(PretrainRecipe, runs.recipe, ["data.store=null", f"data.mix={parts}", "method=supervised"])
    with pytest.raises(SslTransferError, match="bare"):
        PretrainSetup.build(resolve(recipe, "recipe"), "recipe")


def test_classes_of_several_stores_are_one_set(runs, mix, tmp_path):
    """Six regions and twelve pictures: the first loss is that of eighteen classes."""
    runs(tmp_path / "run", *mix(0.5, 0.5), "method=supervised", "train.epochs=0.5", "optimizer.lr=1e-9")
    losses = [line["loss"] for line in runs.lines(tmp_path / "run")]
    assert np.mean(losses) == pytest.approx(np.log(18), abs=0.4)
