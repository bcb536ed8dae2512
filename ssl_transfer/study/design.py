"""The design of a study: the schema of its YAML.

Pretrainings × factor levels × pretraining seeds × tasks × protocols and strategies × fractions × seeds, with exceptions. Nothing
is inherited or interpolated: a pretraining is a recipe, and `set` overrides its values.
"""

# ruff: noqa: RUF012 — pydantic copies defaults
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, field_validator, model_validator

from ssl_transfer.cards import TRIVIAL, TRIVIAL_NAME
from ssl_transfer.errors import RecipeError, nearest
from ssl_transfer.paths import portable
from ssl_transfer.protocols import PROTOCOLS, WITH_STRATEGIES
from ssl_transfer.recipe import Overrides, PathText, Section, load_recipe
from ssl_transfer.study.comparisons import Statistics

STAGES = ("ingest", "pretrain", "untrained", "features", "rank")  # keys of `resources`, besides protocols

Settings = dict[str, Any]  # see `assignments`


def _counted(value: Any) -> Any:
    """The seeds 0 … n − 1 in place of a number n; anything else as it is.

    Raises:
        ValueError: If the number is below 1.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not text.lstrip("-").isdigit():
        return value
    if int(text) < 1:
        raise ValueError(f"Found {text}. Expected the number of seeds, at least 1, or a list such as [0, 1, 2]")
    return list(range(int(text)))


def _distinct(seeds: list[int]) -> list[int]:
    """The seeds.

    Raises:
        ValueError: If there is none, or one of them occurs twice.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"Found {seeds}. Expected at least one seed, and every seed once, or the number of seeds")
    return seeds


Seeds = Annotated[list[NonNegativeInt], BeforeValidator(_counted), AfterValidator(_distinct)]  # n means 0 … n − 1


class StoreSection(Section):
    """Images: an existing store (`path`), or files that the study ingests (`source`, with the options of `ingest`)."""

    path: PathText | None = None
    source: str | None = None
    options: Settings = {}

    @model_validator(mode="after")
    def _path_or_source(self) -> StoreSection:
        if (self.path is None) == (self.source is None):
            raise ValueError("Expected either `path` (a store) or `source` (files to ingest)")
        if self.path and self.options:
            raise ValueError("`options` are those of ingest, and a `path` is an existing store. Give a `source`")
        return self


class Pretraining(Section):
    """One arm: a recipe on a store or a mix of stores, an existing backbone, or random initialisation.

    Attributes:
        backbone: An existing backbone, a folder, `imagenet:NAME` or `timm:NAME`; or one for each level of an axis of `vary`.
        store: Name in `stores` of its pretraining store; with `untrained`, of the store that intensities are scaled for.
        mix: Store -> share.
        init: The pretraining that it starts from (of the same seed), or an existing backbone, or one for each level.
        untrained: Random initialisation: the backbone of the recipe before the first step.
        recipe: Recipe in place of that of the study.
        set: Overrides of the recipe.
        varies: Axes of `vary` that apply; null: all axes, or for an existing backbone those for which it has levels.
        seeds: Its pretraining seeds, a list or a number n for 0 … n − 1; null: `pretraining_seeds` of the study.
        evaluated: False for a pretraining that is only the parent of others.
    """

    backbone: PathText | dict[str, PathText] | None = None
    store: str | None = None
    mix: dict[str, float] = {}
    init: PathText | dict[str, PathText] | None = None
    untrained: bool = False
    recipe: str | None = None
    set: Settings = {}
    varies: list[str] | None = None
    seeds: Seeds | None = None
    evaluated: bool = True

    @model_validator(mode="after")
    def _one_kind(self) -> Pretraining:
        if sum(given is not None and given != {} for given in (self.backbone, self.store, self.mix)) != 1:
            raise ValueError("Expected one of `store`, `mix` and `backbone`")
        if self.backbone and (self.set or self.recipe or self.init or self.untrained):
            raise ValueError("An existing `backbone` is not trained: leave out `set`, `recipe`, `init` and `untrained`")
        if self.backbone and self.seeds is not None:
            raise ValueError("An existing `backbone` has no pretraining seeds of this study: leave out `seeds`")
        if self.untrained and self.init:
            raise ValueError("`untrained` is random initialisation, and `init` is not")
        return self


class TaskSection(Section):
    """A task: a card of `recipes/tasks/` or a path, on a store of the study; `set` overrides values of the card.

    Attributes:
        external: Stores of the study that its runs are tested on as well, in place of those of the card.
    """

    card: str | None = None
    store: str | None = None
    external: list[str] = []
    set: Settings = {}

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"card": value} if isinstance(value, str) else value


class Tune(Section):
    """Settings that are selected on validation, with as many trials for every arm.

    Attributes:
        grid: Setting, by dotted key -> candidates; every combination is a trial, at the first evaluation seed of each pretraining
            seed. The best on validation is used for all evaluation seeds of that pretraining seed.
    """

    grid: dict[str, list[Any]]

    @field_validator("grid")
    @classmethod
    def _has_candidates(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if not value or not all(value.values()):
            raise ValueError("Expected at least one setting with candidates, such as {optimizer.lr: [0.0001, 0.001]}")
        return value


class Evaluation(Section):
    """A protocol with its settings, on some tasks (null: all that it can score).

    Attributes:
        seeds: Evaluation seeds: draws per pretraining seed, a list or a number n for 0 … n − 1. Results that do not depend on
            them are planned for the first one alone.
        tune: Settings that are selected on validation before.
    """

    protocol: str
    tasks: list[str] | None = None
    strategies: list[str] = []
    fractions: list[float] = [1.0]
    seeds: Seeds = [0]
    set: Settings = {}
    tune: Tune | None = None

    @model_validator(mode="after")
    def _is_valid(self) -> Evaluation:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"No protocol is called '{self.protocol}'.{nearest(self.protocol, PROTOCOLS)}"[:-1])
        if self.strategies and not PROTOCOLS[self.protocol].has_strategies:
            raise ValueError(f"{self.protocol} has no strategies; {' and '.join(WITH_STRATEGIES)} have")
        if self.tune and PROTOCOLS[self.protocol].frozen:
            raise ValueError(f"tune: {self.protocol} selects its settings on validation itself. Leave it out")
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"Expected fractions above 0, up to 1; found {self.fractions}")
        return self


class Ranking(Section):
    """Score validity: run `rank` on some tasks (null: all with classes, labels or grades), and compare scores with fine-tuning.

    Attributes:
        source_labels: Train a head on the labels of the store that an arm was pretrained on, so that LEEP and NCE apply to it.
        set: Settings of `rank`.
    """

    tasks: list[str] | None = None
    source_labels: bool = False
    set: Settings = {}


class Where(Section):
    """The runs that an exception applies to: those that match every value given; a list means any of its values."""

    pretraining: list[str] | None = None
    task: list[str] | None = None
    protocol: list[str] | None = None
    strategy: list[str] | None = None
    fraction: list[float] | None = None
    pretraining_seed: list[int] | None = None
    seed: list[int] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, (list, dict)) else [value]

    def holds(self, run: Mapping[str, Any]) -> bool:
        """Whether a run matches; `pretraining` may name an arm or the pretraining that it varies."""
        for key in Where.model_fields:
            values = {run[key], run["factors"]["pretraining"]} if key == "pretraining" else {run[key]}
            wanted = getattr(self, key)
            if wanted is not None and values.isdisjoint(wanted):
                return False
        return True


class Change(Where):
    """An exception: settings `to` override those of the evaluation, for the runs that it applies to."""

    to: Settings


class Shared(Section):
    """Defaults of all pretrainings: a recipe, and overrides that apply before those of each pretraining."""

    recipe: str | None = None
    set: Settings = {}


class Controls(Section):
    """Control runs, on every task that has a linear probe; `true` means all of them, `false` none. They enter no family of tests.

    Attributes:
        trivial: Evaluate trivial features (`models.trivial`) by the same linear probes, fractions and draws as the arms.
        permutation: Fit the linear probe of one arm (that of the target's own store, else the first that is trained) to permuted
            labels (`EvaluateRecipe.permute_labels`) at the largest fraction, in four permutations for every pretraining seed.
    """

    trivial: bool = True
    permutation: bool = False

    @model_validator(mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        word = str(value).lower()  # the values of a YAML are texts
        return dict.fromkeys(cls.model_fields, word) if word in ("true", "false") else value


class Resources(Section):
    """Resources that a job of a stage requests from a cluster, and its estimated duration.

    Attributes:
        launch: Arguments of `accelerate launch`, such as `--config_file launch/accelerate/gpu8.yaml`; empty: one process.
        minutes: The estimate, until records replace it.
        limit_minutes: The time limit on a cluster.
    """

    gpus: int = Field(default=0, ge=0)
    cpus: int = Field(default=1, ge=1)
    memory_gb: float = Field(default=4.0, gt=0)
    minutes: float = Field(default=5.0, gt=0)
    limit_minutes: float = Field(default=240.0, gt=0)
    disk_mb: float = Field(default=1.0, ge=0)
    launch: str = ""


class StudyRecipe(Section):
    """A whole study.

    Attributes:
        sources: Folder that relative paths in `stores` refer to.
        vary: Axis -> level -> settings; every pretraining is run at every combination of levels.
        pretraining_seeds: A list, or a number n for 0 … n − 1.
    """

    name: str = "study"
    title: str
    question: str
    sources: PathText = "."
    stores: dict[str, StoreSection]
    pretrain: Shared = Shared()
    pretrainings: dict[str, Pretraining]
    vary: dict[str, dict[str, Settings]] = {}
    pretraining_seeds: Seeds = [0, 1, 2, 3]
    tasks: dict[str, TaskSection]
    evaluations: list[Evaluation]
    rank: Ranking | None = None
    skip: list[Where] = []
    set: list[Change] = []
    controls: Controls = Controls()
    statistics: Statistics = Statistics()
    resources: dict[str, Resources] = {}
    notes: list[str] = []  # caveats for readers of the report

    @model_validator(mode="before")
    @classmethod
    def _sources_name_no_user(cls, value: Any) -> Any:
        stores = value.get("stores") if isinstance(value, dict) else None
        if not isinstance(stores, dict) or value.get("sources", ".") != ".":  # relative ones are below `sources`
            return value
        named = {
            name: {**store, "source": portable(store["source"])}
            for name, store in stores.items()
            if isinstance(store, dict) and isinstance(store.get("source"), str)
        }
        return {**value, "stores": {**stores, **named}}

    @model_validator(mode="after")
    def _names_are_parts_of_paths(self) -> StudyRecipe:
        for section, names in (("name", [self.name]), ("stores", self.stores), ("tasks", self.tasks)):
            for name in names:
                if not name or name.startswith(".") or set(name) & set("/\\\0"):
                    raise ValueError(
                        f"{section}: Found the name {name!r}. Expected one without / and \\, not empty, without a dot first"
                    )
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> StudyRecipe:
        for name, arm in self.pretrainings.items():
            where = f"pretrainings.{name}"
            for store in [arm.store, *arm.mix] if arm.store else arm.mix:
                _refuse(f"{where}: no store", store, self.stores)
            for axis in arm.varies or ():
                _refuse(f"{where}.varies: no axis", axis, self.vary)
            if not arm.backbone and not (arm.recipe or self.pretrain.recipe):
                raise ValueError(f"{where}: Expected a `recipe`, here or in `pretrain`")
            if name == TRIVIAL_NAME or arm.backbone == TRIVIAL:
                raise ValueError(
                    f"{where}: trivial features are a control, not a pretraining: `controls: {{trivial: true}}`"
                )
        for name, task in self.tasks.items():
            if task.store:
                _refuse(f"tasks.{name}: no store", task.store, self.stores)
            for store in task.external:
                _refuse(f"tasks.{name}.external: no store", store, self.stores)
        for evaluation in self.evaluations:
            for task in evaluation.tasks or ():
                _refuse(f"evaluations: {evaluation.protocol}: no task", task, self.tasks)
        for task in (self.rank and self.rank.tasks) or ():
            _refuse("rank: no task", task, self.tasks)
        for stage in self.resources:
            _refuse("resources: no jobs of kind", stage, (*STAGES, *PROTOCOLS))
        return self

    @model_validator(mode="after")
    def _parents_have_the_seeds(self) -> StudyRecipe:
        for name, child in self.pretrainings.items():
            for parent in child.init.values() if isinstance(child.init, dict) else [child.init]:
                if parent not in self.pretrainings or self.pretrainings[parent].backbone:
                    continue
                has, needed = self.seeds_of(parent), self.seeds_of(name)
                if missing := [str(seed) for seed in needed if seed not in has]:
                    both = sorted(seed for seed in {*has, *needed} if seed is not None)
                    raise ValueError(
                        f"pretrainings.{name}: init: '{parent}' is not pretrained with seed {', '.join(missing)}. A chain "
                        f"starts from the parent of its own seed: write `seeds: {both}` at '{parent}'"
                    )
        return self

    def seeds_of(self, pretraining: str) -> list[int | None]:
        """Seeds of a pretraining, by its name; [None] for an existing backbone."""
        section = self.pretrainings[pretraining]
        if section.backbone:
            return [None]
        return [*(self.pretraining_seeds if section.seeds is None else section.seeds)]


def _refuse(what: str, name: str, available: Iterable[str]) -> None:
    """Raise a ValueError if a name is not available."""
    if name not in available:
        raise ValueError(f"{what} '{name}'.{nearest(name, available)}".rstrip("."))


def load_study(path: str | Path, overrides: Overrides = ()) -> StudyRecipe:
    """Read the YAML of a study with `key=value` overrides; its default name is that of the file.

    Raises:
        RecipeError: If a key is unknown or a value has the wrong type.
    """
    recipe = load_recipe(StudyRecipe, path, overrides)
    if "name" not in recipe.model_fields_set:
        recipe = recipe.model_copy(update={"name": Path(path).stem})
    if not recipe.evaluations:
        raise RecipeError(f"{path}: expected at least one evaluation.")
    return recipe


def assignments(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings as the words of a command line, `train.steps=100`.

    Blocks and dotted keys mean the same, but a block with a `name` replaces the block that it overrides.
    """
    words = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and "name" not in value:
            words += assignments(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else "null" if value is None else json.dumps(value)
            words.append(f"{prefix}{key}={text}")
    return words
