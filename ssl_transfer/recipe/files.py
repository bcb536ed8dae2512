"""YAML files of recipes and cards: their folders, and how they are read.

Scalars are read as text, so that `1e-3` and `no` get the declared type, not the one that YAML guesses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from ssl_transfer.errors import RecipeError, nearest
from ssl_transfer.recipe.bounded_yaml import load_text
from ssl_transfer.recipe.options import validate
from ssl_transfer.recipe.overrides import Overrides, merge, with_nulls


def load_recipe(model: type[BaseModel], path: str | Path, overrides: Overrides = ()) -> Any:
    """Read a YAML file, apply overrides, and validate.

    Args:
        model: Recipe class.
        path: The YAML file, or what else `find_recipe` finds.
        overrides: Settings that replace those of the file; see `merge`.

    Raises:
        RecipeError: If the file or a key is unknown, or a value has the wrong type.
    """
    path = find_recipe(path)
    return validate(model, merge(read_yaml(path), overrides), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with every scalar as text, `null` as None.

    Raises:
        RecipeError: If it cannot be read, is no mapping, or exceeds the bounds of `bounded_yaml`.
    """
    try:
        content = load_text(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found {type(content).__name__}, expected a mapping of sections such as `data:`.")
    return with_nulls(content)


def recipes_folder() -> Path:
    """The folder of recipes and task cards: `recipes/` in the working directory, the checkout, or the installed package."""
    package = Path(__file__).parent.parent
    for folder in (Path("recipes"), package.parent / "recipes", package / "recipes"):
        if folder.is_dir():
            return folder
    return Path("recipes")


def find_recipe(name: str | Path, kind: str = "") -> Path:
    """The path of a recipe or card, given as a path, a path below the folder of recipes, or a name.

    Args:
        name: `recipes/x.yaml`, `x.yaml` or `x`.
        kind: Folder of recipes where names are looked up: `tasks`, `studies`; empty: recipes themselves.

    Raises:
        RecipeError: If there is none.
    """
    folder, path = recipes_folder() / kind, Path(name)
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else path
    for candidate in (path, recipes_folder() / inside, folder / inside, folder / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    beside = path.parent if path.suffix and path.parent.is_dir() else folder
    names = [recipe.name if path.suffix else recipe.stem for recipe in [*beside.glob("*.yaml"), *folder.glob("*.yaml")]]
    what = {"tasks": "task card", "studies": "study"}.get(kind, "recipe")
    raise RecipeError(f"{name}: neither a {what} nor a name in {folder}.{nearest(path.name, names)}")
