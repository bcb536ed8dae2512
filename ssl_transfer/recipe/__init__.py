"""Recipes: frozen, validated, hashable descriptions of pretrainings and evaluations.

A YAML file is read as text, overrides are applied, and every value is checked against its declared type.
"""

from ssl_transfer.recipe.evaluation import EvaluateRecipe, FinetuneSection, NoiseSection
from ssl_transfer.recipe.files import find_recipe, load_recipe, read_yaml, recipes_folder
from ssl_transfer.recipe.identity import digest
from ssl_transfer.recipe.options import Component, PathText, Section, choose, options_model, resolve_options, validate
from ssl_transfer.recipe.overrides import Overrides, merge, parse_overrides
from ssl_transfer.recipe.pretraining import (
    BackboneSection,
    DataSection,
    MixPart,
    MonitorSection,
    PretrainRecipe,
    TrainSection,
)

__all__ = [
    "BackboneSection",
    "Component",
    "DataSection",
    "EvaluateRecipe",
    "FinetuneSection",
    "MixPart",
    "MonitorSection",
    "NoiseSection",
    "Overrides",
    "PathText",
    "PretrainRecipe",
    "Section",
    "TrainSection",
    "choose",
    "digest",
    "find_recipe",
    "load_recipe",
    "merge",
    "options_model",
    "parse_overrides",
    "read_yaml",
    "recipes_folder",
    "resolve_options",
    "validate",
]
