"""The arms of a study: its pretrainings at every combination of factor levels, and the comparisons between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssl_transfer.errors import RecipeError
from ssl_transfer.study.design import Pretraining, StudyRecipe

JOIN = " · "


@dataclass(frozen=True, eq=False)
class Arm:
    """A pretraining at a combination of factor levels.

    Attributes:
        name: Name in reports.
        factors: `pretraining` and every axis -> level. Arms are compared if they differ in one factor alone.
        seeds: Pretraining seeds; [None] for an existing backbone.
    """

    name: str
    factors: dict[str, str]
    pretraining: Pretraining
    seeds: list[int | None]

    def title(self, seed: int | None) -> str:
        """Name of the arm with a pretraining seed."""
        return self.name if seed is None else f"{self.name}, seed {seed}"

    def level(self, named: str | Mapping[str, str]) -> str:
        """The backbone for the levels of this arm, if backbones are given per level.

        Raises:
            RecipeError: If no backbone is given for its levels.
        """
        if isinstance(named, str):
            return named
        for level in self.factors.values():
            if level in named:
                return named[level]
        raise RecipeError(f"pretrainings.{self.name}: none of {', '.join(named)} is one of its levels.")

    def card(self, teacher: str | None = None) -> dict[str, Any]:
        """The arm as a JSON object of the plan, with the name of its teacher."""
        pretraining = self.pretraining
        return {
            "name": self.name,
            "factors": self.factors,
            "seeds": self.seeds,
            "store": pretraining.store,
            "mix": pretraining.mix,
            "init": pretraining.init,
            "teacher": teacher,
            "backbone": pretraining.backbone,
            "untrained": pretraining.untrained,
        }


def arms_of(recipe: StudyRecipe) -> Iterator[Arm]:
    """Every pretraining at every combination of levels of the axes that it varies."""
    for name, pretraining in recipe.pretrainings.items():
        axes = pretraining.varies
        if axes is None:
            named = pretraining.backbone if isinstance(pretraining.backbone, dict) else {}
            axes = [
                axis for axis, levels in recipe.vary.items() if not pretraining.backbone or set(named) & set(levels)
            ]
        seeds = recipe.seeds_of(name)
        for levels in itertools.product(*(recipe.vary[axis] for axis in axes)):
            factors = {"pretraining": name, **dict(zip(axes, levels, strict=True))}
            yield Arm(JOIN.join(factors.values()), factors, pretraining, seeds)


def compared(arms: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of arms that differ in exactly one factor, apart from factors that only one of them has."""
    pairs = []
    for a, b in itertools.combinations(arms, 2):
        shared = set(a["factors"]) & set(b["factors"])
        if sum(a["factors"][key] != b["factors"][key] for key in shared) == 1:
            pairs.append((a["name"], b["name"]))
    return pairs
