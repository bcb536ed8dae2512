"""Recipes: what a YAML file may say, how overrides lie over it, and what a run's identity depends on."""

import re

import pydantic
import pytest
import torch

from ssl_transfer.data.presets import VIEWS
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.objective import one_group
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.recipe import (
    Component,
    PretrainRecipe,
    choose,
    digest,
    load_recipe,
    merge,
    options_model,
    recipes_folder,
)
from ssl_transfer.training.optim import OPTIMIZERS

COUNT = 24  # recipes for pretraining in `recipes/`
RECIPES = sorted(recipes_folder().glob("*.yaml"))

RECIPE = """
data:      {store: stores/ct, views: ct, size: 32}
backbone:  {name: resnet10t}
method:    {name: simclr, temperature: 0.2}
optimizer: {name: adamw, lr: 1e-3}
train:     {epochs: 2, batch_size: 8}
"""


class Method:
    """What a recipe's block may name."""

    def __init__(self, backbone, *, temperature: float = 0.5, sizes: tuple[int, ...] = (1, 2), symmetric: bool = True):
        pass


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def load(recipe_file):
    return lambda *overrides: load_recipe(PretrainRecipe, recipe_file, overrides)


def resolve(**options):
    return choose({"method": Method}, Component(name="method", **options), "x.yaml: method")


def test_an_unknown_key_is_refused_with_the_file_the_key_and_the_nearest_name(load, recipe_file):
    with pytest.raises(RecipeError) as refusal:
        load("train.epoch=3")
    assert str(refusal.value) == f"{recipe_file}: train.epoch: train takes no such option. Did you mean 'epochs'?"


def test_an_unknown_option_of_a_method_is_refused_in_the_same_form():
    with pytest.raises(RecipeError) as refusal:
        resolve(temprature="0.1")
    assert str(refusal.value) == "x.yaml: method.temprature: Method takes no such option. Did you mean 'temperature'?"


def test_an_unknown_section_is_answered_with_those_that_exist(load):
    with pytest.raises(
        RecipeError, match=r"epochs: PretrainRecipe takes no such option\. Known: backbone, data, keep, method"
    ):
        load("epochs=3")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match=r"x\.yaml: method\.name: found 'metod'\. Did you mean 'method'\?"):
        choose({"method": Method}, Component(name="metod"), "x.yaml: method")


def test_arguments_that_the_caller_passes_are_not_options():
    with pytest.raises(RecipeError, match=r"method\.backbone: Method takes no such option"):
        resolve(backbone="resnet50")


@pytest.mark.parametrize("name", ["quickstart_simclr", "quickstart_simclr.yaml", "recipes/quickstart_simclr.yaml"])
def test_a_recipe_of_the_package_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = recipes_folder() / "quickstart_simclr.yaml"
    assert load_recipe(PretrainRecipe, name) == load_recipe(PretrainRecipe, path)


def test_a_missing_recipe_is_answered_with_the_nearest_file(recipe_file):
    with pytest.raises(RecipeError, match=r"recip\.yaml: neither a recipe nor .* Did you mean 'recipe\.yaml'\?"):
        load_recipe(PretrainRecipe, recipe_file.with_name("recip.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=many", "train.epochs: found 'many'. Expected a valid number"),
        ("train.epochs=-1", "train.epochs: found '-1'. Expected greater than 0"),
        ("train.epochs=inf", "train.epochs: found 'inf'. Expected a finite number"),
        ("train.epochs=null", "train.epochs: found None. Expected a valid number"),
        ("train.seed=1.5", "train.seed: found '1.5'. Expected a valid integer"),
        ("train.seed=-1", "train.seed: found '-1'. Expected greater than or equal to 0"),
        ("train.precision=fp8", "train.precision: found 'fp8'. Expected 'fp32', 'bf16', 'fp16' or 'auto'"),
        ("train=3", "train: found '3'. Expected a section"),
        ("data.views=[1, 2]", "data.views: found ['1', '2']. Expected a section"),
        ("data.store=", "Expected either `store: PATH` or `mix: [{store: PATH, share: 0.5}, …]`"),
        ("data.mix=[{store: a, share: 1.5}]", "data.mix.0.share: found '1.5'. Expected less than 1"),
        ("monitor.on_nonfinite=ignore", "monitor.on_nonfinite: found 'ignore'. Expected 'stop' or 'warn'"),
        ("train.accumulate_steps=0", "train.accumulate_steps: found '0'. Expected greater than 0"),
        ("train.memory_format=nhwc", "found 'nhwc'. Expected 'channels_last', 'contiguous' or 'auto'"),
        ("train.epochs", "override 'train.epochs': expected key=value"),
        ("=3", "override '=3': expected key=value"),
        ("train.=3", "override 'train.=3': expected key=value"),
        ("train.epochs=[1", "override 'train.epochs=[1': the value is no YAML"),
        ("train.betas.0=[1]", "train.betas: train takes no such option"),
        ("data.mix=[{store: a, share: 0.5, shar: 1}]", "data.mix.0.shar: data.mix.0 takes no such option. Did you"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_found_and_expected(load, override, message):
    with pytest.raises(RecipeError) as refusal:
        load(override)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "3"}, r"x.yaml: method.sizes: found '3'. Expected a list such as [1, 2]."),
        ({"symmetric": "perhaps"}, "x.yaml: method.symmetric: found 'perhaps'. Expected true or false."),
        ({"temperature": "nan"}, "x.yaml: method.temperature: found 'nan'. Expected a finite number."),
    ],
)
def test_a_wrong_option_is_reported_in_the_words_of_yaml_not_of_python(options, message):
    with pytest.raises(RecipeError) as refusal:
        resolve(**options)
    assert str(refusal.value) == message


@pytest.mark.parametrize("content", ["data: [1\nb: 2", "- 1\n- 2", "", "just text"])
def test_a_file_that_is_not_a_recipe_is_refused(recipe_file, content):
    recipe_file.write_text(content)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: "):
        load_recipe(PretrainRecipe, recipe_file)


def test_a_missing_section_is_named(recipe_file):
    recipe_file.write_text(RECIPE.replace("method:", "# method:"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: method is missing; it has no default"):
        load_recipe(PretrainRecipe, recipe_file)


def test_text_becomes_what_the_declared_type_says_and_not_what_yaml_guesses(load):
    assert load("train.epochs=1e-3").train.epochs == 0.001  # YAML 1.1 reads 1e-3 as text
    assert load("name=no").name == "no"  # … no as false
    assert load("name=1e-3").name == "1e-3"
    assert load("data.store=0123").data.store == "0123"  # … and this as octal
    assert resolve(symmetric="no", temperature="1e-1", sizes=["3", "4"]) == {
        "symmetric": False,
        "temperature": 0.1,
        "sizes": (3, 4),
    }


@pytest.mark.parametrize("null", ["null", "~", ""])
def test_null_in_yaml_is_none(load, null):
    assert load("train.workers=2", f"train.workers={null}").train.workers is None


def test_options_of_an_architecture_get_the_types_of_yaml(load):
    options = load("backbone.options={patch_size: 16, flag: true, width: [32, 64], act: gelu}").backbone.options
    assert options == {"patch_size": 16, "flag": True, "width": [32, 64], "act": "gelu"}


def test_overrides_reach_into_sections_and_the_last_one_counts(load):
    recipe = load("train.epochs=3", "method.temperature=0.7", "train.epochs=5")
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.method.options) == (5, 8, {"temperature": "0.7"})


def test_an_override_reaches_into_a_shorthand(load):
    recipe = load("data.views.noise=0")
    assert (recipe.data.views.name, recipe.data.views.options) == ("ct", {"noise": "0"})


def test_an_override_opens_a_section_that_the_file_leaves_out(load):
    assert load("monitor.on_collapse=warn").monitor.on_collapse == "warn"


def test_merging_leaves_the_recipe_itself_as_it_is():
    recipe = {"train": {"epochs": "2"}}
    merge(recipe, ["train.epochs=3"])
    assert recipe == {"train": {"epochs": "2"}}


def test_a_hyper_parameter_is_declared_once_and_its_default_comes_from_there():
    assert resolve() == {"temperature": 0.5, "sizes": (1, 2), "symmetric": True}
    assert set(options_model(Method).model_fields) == {"temperature", "sizes", "symmetric"}


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "tracker=none",
        "monitor.every_epochs=1",
        "monitor.store=stores/other",
        "train.log_every_steps=1",
        "train.checkpoint_every_steps=7",
        "train.workers=3",
        "data.store=elsewhere/ct",
        "monitor.on_nonfinite=warn",
    ],
)
def test_identity_does_not_depend_on_names_logging_cadence_trackers_workers_or_paths(load, override):
    assert digest(load(override).identity()) == digest(load().identity())


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=2e-3",
        "train.seed=1",
        "train.epochs=3",
        "train.batch_size=16",
        "train.precision=fp32",
        "data.limit=10",
        "data.size=16",
        "data.views=cells",
        "method.temperature=0.3",
        "backbone.stem=small",
        "train.clip_gradient=1",
        "train.accumulate_steps=2",
        "train.memory_format=contiguous",
        "train.compile=true",
        "data.label=organ",
    ],
)
def test_identity_depends_on_everything_that_changes_the_weights(load, override):
    assert digest(load(override).identity()) != digest(load().identity())


def test_identity_is_that_of_earlier_versions_unless_positives_are_other_images(load):
    def identity(**options):
        views = choose(VIEWS, Component(name="ct", **options), "data.views")
        recipe = load()
        return recipe.model_copy(
            update={"data": recipe.data.model_copy(update={"views": Component(name="ct", **views)})}
        ).identity()

    assert not {"positive", "positive_mm"} & set(identity()["data"]["views"])
    assert identity() == identity(positive="same")
    assert (
        len(
            {
                digest(identity(**options))
                for options in ({}, {"positive": "slice"}, {"positive": "slice", "positive_mm": 5})
            }
        )
        == 3
    )


def test_identity_depends_on_the_shares_of_a_mix_and_not_on_where_its_stores_lie(load):
    def identity(store, share):
        parts = f"data.mix=[{{store: {store}, share: {share}}}, {{store: b, share: {1 - share}}}]"
        return digest(load("data.store=null", parts).identity())

    assert identity("a", 0.5) == identity("elsewhere/a", 0.5) != identity("a", 0.25)


def test_the_stores_of_a_mix_see_the_views_of_the_recipe_unless_they_name_their_own(load):
    parts = "data.mix=[{store: a, share: 0.5}, {store: b, share: 0.5, views: {name: natural, grey: 0}}]"
    sources = load("data.store=null", parts).data.sources()
    assert [(part.store, part.share, part.views.name) for part in sources] == [("a", 0.5, "ct"), ("b", 0.5, "natural")]
    alone = load().data.sources()
    assert [(part.store, part.share, part.views.name) for part in alone] == [("stores/ct", 1.0, "ct")]


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_recipes_are_frozen(load):
    recipe = load()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.train.epochs = 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.name = "other"


def test_every_recipe_is_found():
    assert len(RECIPES) == COUNT


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_first_how_to_launch_it_and_how_its_stores_are_made(path):
    comment = path.read_text().partition("\ndata:")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    launch = rf"^#   (accelerate launch .*pretrain\.py|ssl-transfer pretrain) recipes/{path.name}"
    assert re.search(launch, comment, re.M)
    for source in load_recipe(PretrainRecipe, path).data.sources():
        assert re.search(rf"ssl-transfer ingest .*--out {re.escape(source.store)}\b", comment)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_down_to_its_options_and_builds_its_method(path):
    """With heads of 64 dimensions: some have hundreds of millions of weights."""
    recipe = load_recipe(PretrainRecipe, path)
    channels = recipe.backbone.in_channels or 3
    for source in recipe.data.sources():
        views = choose(VIEWS, source.views, f"{path}: data.views")
        reads = "hu" if source.views.name == "ct" else "rgb" if channels == 3 else "display"
        preset = VIEWS[source.views.name](recipe.data.size, channels, reads, **views)
    section = recipe.backbone
    architecture = Architecture(section.name, channels, recipe.data.size, section.stem, section.options)
    model = architecture.build(seed=0)
    backbone = Backbone(model, new_card(recipe.name, architecture, model, preset.intensity))
    options = choose(METHODS, recipe.method, f"{path}: method")
    kind = METHODS[recipe.method.name]
    small = {key: min(value, 64) if key.endswith("_dim") else value for key, value in options.items()}
    if "teacher" in small:  # whose weights are not here
        small |= {"teacher": "scratch:test_vit,size=160"}
    method = kind(backbone, **({"classes": 10} if kind.needs_labels else {}), **small)
    accumulate = recipe.train.accumulate_steps
    assert recipe.train.batch_size % accumulate == 0 and (accumulate == 1 or not method.compares)
    method.check_batch(recipe.train.batch_size // accumulate)
    assert method.view_presets(preset)
    optimizer = choose(OPTIMIZERS, recipe.optimizer, f"{path}: optimizer")
    OPTIMIZERS[recipe.optimizer.name](one_group(torch.nn.Linear(2, 2)), recipe.train.batch_size, **optimizer)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("radnet_simclr", 4.8),
        ("imagenet_simclr", 4.8),
        ("radnet_byol", 7.2),
        ("radnet_moco", 0.03),
        ("cells_simclr", 0.075 * 512**0.5),
    ],
)
def test_the_rates_of_the_recipes_are_the_papers(name, rate):
    recipe = load_recipe(PretrainRecipe, recipes_folder() / f"{name}.yaml")
    options = choose(OPTIMIZERS, recipe.optimizer, name)
    optimizer = OPTIMIZERS[recipe.optimizer.name](one_group(torch.nn.Linear(2, 2)), recipe.train.batch_size, **options)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(rate)] * 2
