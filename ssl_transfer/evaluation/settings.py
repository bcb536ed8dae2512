"""Settings of an evaluation: `key=value` overrides become the recipe (shared by all protocols) and the protocol's options."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_transfer.data.presets import VIEWS
from ssl_transfer.errors import RecipeError, nearest
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.protocols import FROZEN, PROTOCOLS, depends_on_seed
from ssl_transfer.recipe import (
    Component,
    EvaluateRecipe,
    FinetuneSection,
    Overrides,
    choose,
    merge,
    options_model,
    parse_overrides,
    resolve_options,
    validate,
)
from ssl_transfer.run import plain
from ssl_transfer.training.optim import OPTIMIZERS

COMPONENTS = {"strategy": STRATEGIES, "optimizer": OPTIMIZERS, "views": VIEWS}  # options that name a component
SWEPT = ("fraction", "seed")  # a list of values means an evaluation for each value


def evaluate_recipe(protocol: str, overrides: Overrides = ()) -> tuple[EvaluateRecipe, dict[str, Any]]:
    """Read settings: those shared by all protocols, and the options of this protocol, completed with their defaults.

    Raises:
        RecipeError: If the protocol or a key does not exist, or a value is invalid.
    """
    if protocol not in IMPLEMENTATIONS:
        raise RecipeError(f"evaluate: there is no protocol '{protocol}'.{nearest(protocol, IMPLEMENTATIONS)}")
    content, where = merge(_named_defaults(protocol), overrides), f"evaluate {protocol}"
    names = set(options_model(IMPLEMENTATIONS[protocol]).model_fields)
    for key in content:
        if key not in names | set(EvaluateRecipe.model_fields):
            raise RecipeError(f"{where}: no setting '{key}'.{nearest(key, names | set(EvaluateRecipe.model_fields))}")
    options = {key: content.pop(key) for key in list(content) if key in names}
    options = resolve_options(IMPLEMENTATIONS[protocol], options, where)
    for key, value in options.items():
        if isinstance(value, Component):
            chosen = choose(COMPONENTS[key], value, f"{where}: {key}")
            if chosen.pop("layer_decay", 1) != 1:
                raise RecipeError(
                    f"{where}: {key}.layer_decay: it is for pretraining; in fine-tuning, rates by layer are a strategy. Set "
                    "strategy=llrd strategy.decay=0.75."
                )
            if chosen.pop("positive", "same") != "same" or chosen.pop("positive_mm", None) is not None:
                raise RecipeError(
                    f"{where}: {key}.positive: positives are for pretraining; here each image has one view. Leave it out."
                )
            options[key] = Component(name=value.name, **chosen)
    recipe = validate(EvaluateRecipe, content, where)
    if recipe.pool and not PROTOCOLS[protocol].frozen:
        raise RecipeError(
            f"{where}: pool: poolings are selected by probes ({', '.join(FROZEN)}); a backbone that is trained has one. Leave it "
            "out, or state the pooling of the backbone: BACKBONE,pooling=mean."
        )
    able = PROTOCOLS[protocol].group_poolings
    for name in recipe.group_pool or ():
        if name not in able:
            expected = ", ".join(able) or "none: it has no poolings of groups"
            raise RecipeError(f"{where}: group_pool: found '{name}', expected some of {expected}.")
    return recipe, options


def evaluate_recipes(protocol: str, overrides: Overrides = ()) -> Iterator[tuple[EvaluateRecipe, dict[str, Any]]]:
    """Apply `evaluate_recipe` to every combination of `swept`."""
    for settings in swept(protocol, overrides):
        yield evaluate_recipe(protocol, settings)


def swept(protocol: str, overrides: Overrides, grouped_kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the settings of each combination of the listed fractions and seeds, `fraction=[0.1, 1] seed=[0, 1]`.

    Where scores do not depend on the seed (see `depends_on_seed`; `grouped_kind` as there), only the first one is yielded.

    Raises:
        RecipeError: As `evaluate_recipe` does.
    """
    fixed: set[float] = set()
    for settings in _combinations(overrides):
        recipe, options = evaluate_recipe(protocol, settings)
        words = [f"noise.kind={recipe.noise.kind}", *(f"{name}={value}" for name, value in options.items())]
        words += ["permute_labels=true"] if recipe.permute_labels else []
        words += [f"group_pool={recipe.group_pool}"] if recipe.group_pool else []
        if not depends_on_seed(protocol, recipe.fraction, words, grouped_kind):
            if recipe.fraction in fixed:
                continue
            fixed.add(recipe.fraction)
        yield settings


def _combinations(overrides: Overrides) -> Iterator[dict[str, Any]]:
    """Yield the settings of each combination of the listed fractions and seeds."""
    settings = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    axes = [
        [(key, value) for value in (settings[key] if isinstance(settings[key], list) else [settings[key]])]
        for key in SWEPT
        if key in settings
    ]
    for chosen in itertools.product(*axes):
        yield settings | dict(chosen)


def _named_defaults(protocol: str) -> dict[str, Any]:
    """Defaults of blocks such as `optimizer`, so that a single option of a block can be overridden."""
    fields = options_model(IMPLEMENTATIONS[protocol]).model_fields
    return {key: plain(field.default) for key, field in fields.items() if isinstance(field.default, Component)}


def options_identity(options: dict[str, Any]) -> dict[str, Any]:
    """The options that enter a run's id: all that can change its result (not, for instance, the number of workers)."""
    return {
        key: value.identity() if isinstance(value, FinetuneSection) else plain(value) for key, value in options.items()
    }
