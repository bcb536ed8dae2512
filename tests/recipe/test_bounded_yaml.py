"""YAML from others: what a person writes is read, what multiplies or nests itself is refused at once."""

import time

import pytest
import yaml

from ssl_transfer.errors import RecipeError
from ssl_transfer.recipe import PretrainRecipe, parse_overrides, read_yaml, validate
from ssl_transfer.recipe.bounded_yaml import load_text, load_typed
from ssl_transfer.recipe.overrides import as_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
MERGED = "a: &a {x: 1}\n" + "".join(f"{'b' * (n + 1)}: &b{n} {{p: *a, q: *a}}\n" for n in range(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "multiply it to more than 200,000 values"),
        ("a: &a [*a]", "a value contains itself"),
        ("a: &a {b: {c: *a}}", "a value contains itself"),
        ("[" * 5000, "nested more than 40 levels"),
        ("a: " * 2 + "x", "mapping values are not allowed"),
        ("- " * 3000 + "x", "nested more than 40 levels"),
        ("{" * 5000 + "}" * 5000, "nested more than 40 levels"),
        ("? [a]\n: b", "unhashable|hashable"),
    ],
    ids=[
        "a bomb",
        "a list in itself",
        "a mapping in itself",
        "lists",
        "no YAML",
        "dashes",
        "mappings",
        "a list as key",
    ],
)
def test_a_text_beyond_the_bounds_is_refused_at_once(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(RecipeError, match=rf"(?s)r\.yaml: not readable as YAML: .*({message})"):
        read_yaml(tmp_path / "r.yaml")
    assert time.monotonic() - started < 5


def test_a_large_file_is_refused_before_it_is_parsed():
    with pytest.raises(yaml.YAMLError, match="characters, more than"):
        load_text("a: " + "x" * (9 * 2**20))


@pytest.mark.parametrize(
    "text", [MERGED, "a: [1, 2.5, no, null, 2020-01-01]\nb: {c: 'x'}\n", "", "x", "a: &n 1\nb: *n\n"]
)
def test_what_a_person_writes_is_read_as_pyyaml_reads_it(text):
    assert load_text(text) == yaml.load(text, Loader=yaml.BaseLoader)
    assert load_typed(text) == yaml.safe_load(text)


def test_an_override_is_bounded_too():
    with pytest.raises(RecipeError, match="nested more than 40 levels"):
        parse_overrides(["a=" + "[" * 5000])


@pytest.mark.parametrize("text", ["[", "9" * 5000, "2020-13-45"])
def test_a_text_that_yaml_cannot_type_is_an_error_of_the_value(text):
    with pytest.raises(ValueError, match="is no YAML"):
        as_yaml({"a": text})


RECIPE = {
    "data": {"store": "s", "views": "ct", "size": "16"},
    "backbone": {"name": "resnet10t"},
    "method": "simclr",
    "optimizer": {"name": "adamw", "lr": "0.1"},
    "train": {"epochs": "1", "batch_size": "4"},
}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "size", "100000"),
        ("train", "epochs", "1e300"),
        ("train", "epochs", "inf"),
        ("train", "batch_size", "1" + "0" * 30),
        ("train", "seed", "9" * 40),
        ("train", "workers", "100000"),
        ("train", "warmup_epochs", "1e300"),
        ("data", "limit", "9" * 30),
        ("backbone", "options", {"channels": "["}),
        ("backbone", "options", {"channels": "9" * 5000}),
    ],
)
def test_a_recipe_that_asks_for_more_than_any_machine_has_is_refused(section, key, value):
    recipe = {**RECIPE, section: {**RECIPE[section], key: value}}
    with pytest.raises(RecipeError, match=rf"^recipe: {section}\.{key}"):
        validate(PretrainRecipe, recipe, "recipe")
    assert validate(PretrainRecipe, RECIPE, "recipe").data.size == 16
