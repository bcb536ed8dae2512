"""Seeds in the YAML of a study: a list or a number, for the study, a pretraining or an evaluation; those of a chain."""

import pytest
from support.tiny_study import small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.arms import arms_of
from ssl_transfer.study.design import load_study

CHAIN = {"A": {"store": "ct"}, "B": {"store": "photographs", "init": "A"}}


@pytest.fixture
def load(tmp_path):
    """Read the tiny study with changes of its YAML and overrides of the command line."""
    return lambda *overrides, **changes: load_study(write_study(tmp_path, **small(**changes)), overrides)


@pytest.mark.parametrize(("written", "expected"), [(3, [0, 1, 2]), (1, [0]), ([4, 2], [4, 2]), ("2", [0, 1])], ids=str)
def test_a_number_of_seeds_means_the_first_ones_and_a_list_is_taken_as_it_is(load, written, expected):
    evaluations = [{"protocol": "knn", "seeds": written}]
    recipe = load(pretraining_seeds=written, evaluations=evaluations)
    assert recipe.pretraining_seeds == recipe.evaluations[0].seeds == expected


@pytest.mark.parametrize(("word", "expected"), [("3", [0, 1, 2]), ("[5]", [5])])
def test_a_number_on_the_command_line_means_the_same(load, word, expected):
    assert load(f"pretraining_seeds={word}").pretraining_seeds == expected


def test_a_pretraining_has_the_seeds_of_the_study_or_its_own(load):
    arms = {
        "CT": {"store": "ct", "seeds": 4},
        "scratch": {"store": "ct", "untrained": True},
        "public": {"backbone": "timm:resnet10t"},
    }
    seeds = {arm.name: arm.seeds for arm in arms_of(load(pretraining_seeds=2, pretrainings=arms))}
    assert seeds == {"CT": [0, 1, 2, 3], "scratch": [0, 1], "public": [None]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pretraining_seeds": 0}, "pretraining_seeds: Found 0. Expected the number of seeds, at least 1, or a list"),
        ({"pretraining_seeds": []}, "pretraining_seeds: Found []. Expected at least one seed"),
        ({"pretraining_seeds": [1, 1]}, "Found [1, 1]. Expected at least one seed, and every seed once"),
        ({"pretraining_seeds": [-1]}, "pretraining_seeds.0: found '-1'"),
        ({"evaluations": [{"protocol": "knn", "seeds": -2}]}, "evaluations.0.seeds: Found -2"),
        ({"evaluations": [{"protocol": "knn", "seeds": True}]}, "evaluations.0.seeds: found 'true'"),
        ({"pretrainings": {"P": {"backbone": "timm:x", "seeds": 2}}}, "has no pretraining seeds of this study"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_seeds_are_refused_with_what_to_type(load, change, message):
    with pytest.raises(RecipeError) as error:
        load(**change)
    assert message in str(error.value)


@pytest.mark.parametrize(("parent", "child"), [({}, {"seeds": 4}), ({"seeds": [0]}, {})], ids=["child", "parent"])
def test_a_chain_whose_parent_lacks_a_seed_is_refused(load, parent, child):
    arms = {"A": CHAIN["A"] | parent, "B": CHAIN["B"] | child}
    with pytest.raises(RecipeError) as error:
        load(pretraining_seeds=2, pretrainings=arms)
    lacking, needed = ("2, 3", "[0, 1, 2, 3]") if child else ("1", "[0, 1]")
    assert f"pretrainings.B: init: 'A' is not pretrained with seed {lacking}." in str(error.value)
    assert f"write `seeds: {needed}` at 'A'" in str(error.value)


def test_a_chain_may_start_from_a_parent_of_more_seeds_and_from_an_existing_backbone(load):
    arms = {"A": CHAIN["A"] | {"seeds": 4}, "B": CHAIN["B"], "C": {"store": "ct", "init": "timm:resnet10t", "seeds": 3}}
    assert [arm.seeds for arm in arms_of(load(pretraining_seeds=2, pretrainings=arms))] == [
        [0, 1, 2, 3],
        [0, 1],
        [0, 1, 2],
    ]
