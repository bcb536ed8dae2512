"""Recipes: frozen, validated, hashable descriptions of what runs.

A YAML file is read as text (so `1e-3` and `no` become what the declared type says, not what YAML guesses),
`key=value` overrides are laid over it, and every value is checked. Options of a named thing (`method: {name: simclr,
temperature: 0.1}`) are checked against the signature of the function or class of that name: a
hyper-parameter has one home.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from ssl_transfer.errors import RecipeError, nearest
from ssl_transfer.schedule import Schedule

EXPECTED = {  # where pydantic's words speak of Python
    "model_type": "Expected a section of `key: value` lines",
    "model_attributes_type": "Expected a section of `key: value` lines",
    "tuple_type": "Expected a list such as [1, 2]",
    "list_type": "Expected a list such as [1, 2]",
    "bool_parsing": "Expected true or false",
}


class Section(BaseModel):
    """A block of a recipe: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(BaseModel):
    """`{name: simclr, temperature: 0.1}`, or `simclr` alone: a name and the options of what it names."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    if TYPE_CHECKING:  # fields beside the name are options

        def __init__(self, *, name: str, **options: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.model_extra or {})


class MixPart(Section):
    """One of several stores, its share of the images of an epoch, and its views (null: those of `data.views`).

    Attributes:
        store: Folder of the store.
        share: Share of the images of an epoch, in (0, 1); shares add up to 1.
        views: View preset of this store's images; null: that of `data.views`.
    """

    store: str
    share: float = Field(gt=0, lt=1)
    views: Component | None = None


class DataSection(Section):
    """Which images, at which size, seen through which views: one `store`, or a `mix` of several.

    Attributes:
        store: Folder of the store; alternatively `mix`.
        mix: Several stores, each with its share.
        views: View preset, a name or `{name, options}`.
        size: Height and width of the backbone's images in pixels.
        label: Column of `rows.parquet` that a supervised method learns from.
        limit: Number of training images, a seeded subset, for trials; null: all.
    """

    store: str | None = None
    mix: list[MixPart] = []
    views: Component
    size: int = Field(gt=0)
    label: str = "label"
    limit: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_or_several(self) -> DataSection:
        if (self.store is None) == (not self.mix):
            raise ValueError("Expected either `store: PATH` or `mix: [{store: PATH, share: 0.5}, …]`")
        total = sum(part.share for part in self.mix)
        if self.mix and abs(total - 1) > 1e-6:
            raise ValueError(f"Expected shares of `mix` that add up to 1, not to {total:g}")
        return self

    def sources(self) -> list[MixPart]:
        """Stores with their shares and views; a single store has all."""
        if not self.mix:
            return [MixPart.model_construct(store=self.store, share=1.0, views=self.views)]
        return [part.model_copy(update={"views": part.views or self.views}) for part in self.mix]


class BackboneSection(Section):
    """A timm architecture and where its weights start.

    Attributes:
        name: Architecture, as timm calls it.
        in_channels: Channels of its images; null: those of the store.
        stem: `standard`, or `small`: a ResNet or DenseNet starts with a 3×3 convolution of stride 1 and no pooling, for
            small images (SimCLR, 2002.05709, appendix B.9).
        init: `scratch`: random initialisation; `timm:NAME`: public weights; or the folder of another backbone.
        options: Further arguments of the timm architecture.
    """

    name: str
    in_channels: int | None = Field(default=None, gt=0)
    stem: Literal["standard", "small"] = "standard"
    init: str = "scratch"
    options: dict[str, Any] = {}

    @field_validator("options", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> Any:
        """timm declares no types, so YAML's own apply here: 16 is a number, true a boolean."""
        return _as_yaml(value)


class TrainSection(Section):
    """How long, how many at once, how exact.

    Attributes:
        epochs: Passes over the training images; fractions are allowed.
        batch_size: Images per optimiser step, summed over all processes.
        warmup_epochs: Epochs of linear warm-up before the cosine to 0 (Goyal et al. 2017, 1706.02677, section 2.2;
            Loshchilov & Hutter 2017, 1608.03983).
        accumulate_steps: Smaller batches that make up one; refused where the loss compares the images of a batch.
        precision: Floating-point format of the computation: `fp32`, `bf16`, `fp16`, or `auto`: bf16 where the device
            computes it natively, else fp16 on a GPU and fp32 on a CPU.
        memory_format: Layout of images and activations; `auto`: what is faster on the device.
        compile: Whether the backbone goes through `torch.compile`.
        seed: Seed of initial weights, order of images, views and the method's own draws.
        clip_gradient: Largest norm of the gradient; a longer one is scaled down. null: no clipping.
        checkpoint_every_steps: Steps between checkpoints.
        log_every_steps: Steps between lines of `log.jsonl`.
        workers: Processes that read batches ahead; null: chosen by the machine.
    """

    epochs: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    accumulate_steps: int = Field(default=1, gt=0)
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    memory_format: Literal["channels_last", "contiguous", "auto"] = "auto"
    compile: bool = False
    seed: int = Field(default=0, ge=0)
    clip_gradient: float | None = Field(default=None, gt=0)
    checkpoint_every_steps: int = Field(default=500, gt=0)
    log_every_steps: int = Field(default=10, gt=0)
    workers: int | None = Field(default=None, ge=0)


class MonitorSection(Section):
    """What is watched while training.

    Attributes:
        store: Labelled store of the online kNN and probe; null: the pretraining store, if it has labels.
        label: Its column of labels.
        every_epochs: Epochs between two evaluations.
        images: Largest number of images of an evaluation.
        on_collapse: `stop` or `warn` when the projections collapse to a point.
        on_nonfinite: `stop` or `warn` when the loss is NaN or infinite.
    """

    store: str | None = None
    label: str = "label"
    every_epochs: float = Field(default=5.0, gt=0)
    images: int = Field(default=2000, gt=0)
    on_collapse: Literal["stop", "warn"] = "stop"
    on_nonfinite: Literal["stop", "warn"] = "stop"


class PretrainRecipe(Section):
    """Everything that a pretraining needs.

    Attributes:
        name: Name of the backbone in cards and tables.
        data: Which images.
        backbone: Which architecture, from which weights.
        method: SSL method, a name or `{name, options}`; see the page of each method.
        optimizer: `{name, options}`; see the page of each optimiser.
        train: How long, and how.
        monitor: What is measured during training.
        tracker: Where curves go beside `log.jsonl`: `tensorboard`, `wandb`, `mlflow` or `none`.
    """

    name: str = "pretraining"
    data: DataSection
    backbone: BackboneSection
    method: Component
    optimizer: Component
    train: TrainSection
    monitor: MonitorSection = MonitorSection()
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"

    def schedule(self, images: int) -> Schedule:
        """Length, warm-up and cadence of a pretraining on so many training images, at least one batch."""
        train, steps_per_epoch = self.train, images // self.train.batch_size
        return Schedule(
            total_steps=max(1, round(train.epochs * steps_per_epoch)),
            steps_per_epoch=steps_per_epoch,
            warmup_steps=round(train.warmup_epochs * steps_per_epoch),
            batch_size=train.batch_size,
            accumulate=train.accumulate_steps,
            log_every=train.log_every_steps,
            checkpoint_every=train.checkpoint_every_steps,
            watch_every=max(1, round(self.monitor.every_epochs * steps_per_epoch)),
        )

    def identity(self) -> dict[str, Any]:
        """What the run's id depends on: neither names, logging, cadence, trackers, workers nor paths of inputs."""
        recipe = self.model_dump(exclude={"name", "monitor", "tracker"})
        for key in ("checkpoint_every_steps", "log_every_steps", "workers"):
            recipe["train"].pop(key)
        for source in (recipe["data"], *recipe["data"]["mix"]):
            source.pop("store")
        if recipe["backbone"]["init"] != "scratch":
            recipe["backbone"].pop("init")
        return recipe


class NoiseSection(Section):
    """Noise on the images of a task: which kind, how strong (as a share of the intensity range), and where.

    Attributes:
        kind: `none`; `gaussian`, as in CT; `rician`: the magnitude of a complex signal with Gaussian noise in both
            parts, as in MR (Gudbjartsson & Patz 1995, doi 10.1002/mrm.1910340618).
        sigma: Standard deviation as a share of the intensity range, in [0, 1].
        at: `train`: the images that are learnt and selected from; `test`: those that are scored; or `both`.
    """

    kind: Literal["none", "gaussian", "rician"] = "none"
    sigma: float = Field(default=0.0, ge=0, le=1)
    at: Literal["both", "train", "test"] = "both"

    @model_validator(mode="after")
    def _kind_and_strength(self) -> NoiseSection:
        if (self.kind == "none") != (self.sigma == 0):
            raise ValueError(
                f"Expected a kind with a sigma above 0, such as noise.kind=gaussian noise.sigma=0.01; found {self.kind} with "
                f"{self.sigma:g}"
            )
        return self


class EvaluateRecipe(Section):
    """What every protocol shares; a protocol's own options stand in its function's signature.

    Attributes:
        fraction: Share of the training patients, in (0, 1]; stratified, and smaller fractions are subsets of larger
            ones of the same seed.
        seed: Seed of that draw, of heads, order of images, views, and resampling.
        size: Height and width that the backbone sees, in pixels; null: the size that it was pretrained at.
        channels: `repeat`: images get the backbone's number of channels (repeated, or luminance); `adapt`: its first
            convolution gets theirs, as timm does.
        precision: Floating-point format of the computation: `fp32`, `bf16`, `fp16` (training only), or `auto`.
        noise: Noise on the images.
        resamples: Bootstrap samples of the test patients for the 95 % intervals; 0: no intervals.
    """

    fraction: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, gt=0)
    channels: Literal["repeat", "adapt"] = "repeat"
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    noise: NoiseSection = NoiseSection()
    resamples: int = Field(default=1000, ge=0)


class FinetuneSection(Section):
    """How long and how a fine-tune learns; the same for every label fraction.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images per step, summed over all processes.
        warmup_steps: Steps of linear warm-up before the cosine to 0.
        clip_gradient: Largest norm of the gradient; null: no clipping.
        balance: For rare classes: `weights` in the loss, or `sampling` of as many images of every class; `none`:
            neither.
        check_every_steps: Steps between evaluations on validation; the weights of the best one are kept.
        patience: Evaluations without improvement after which training stops; null: it never does.
        checkpoint_every_steps: Steps between checkpoints.
        log_every_steps: Steps between lines of `log.jsonl`.
        workers: Processes that read batches ahead; null: chosen by the machine.
        keep_backbone: Whether the fine-tuned backbone, adapters merged, is saved in the result's folder.
    """

    steps: int = Field(default=500, gt=0)
    batch_size: int = Field(default=32, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    clip_gradient: float | None = Field(default=None, gt=0)
    balance: Literal["none", "weights", "sampling"] = "none"
    check_every_steps: int = Field(default=50, gt=0)
    patience: int | None = Field(default=None, gt=0)
    checkpoint_every_steps: int = Field(default=500, gt=0)
    log_every_steps: int = Field(default=10, gt=0)
    workers: int | None = Field(default=None, ge=0)
    keep_backbone: bool = False

    def schedule(self, images: int) -> Schedule:
        """Length, warm-up and cadence of a fine-tune on so many training images."""
        return Schedule(
            total_steps=self.steps,
            steps_per_epoch=max(1, images // self.batch_size),
            warmup_steps=self.warmup_steps,
            batch_size=self.batch_size,
            log_every=self.log_every_steps,
            checkpoint_every=self.checkpoint_every_steps,
            watch_every=self.check_every_steps,
        )

    def identity(self) -> dict[str, Any]:
        """What a run's id depends on."""
        left_out = {"checkpoint_every_steps", "log_every_steps", "workers"}
        return self.model_dump(exclude=left_out if self.keep_backbone else {*left_out, "keep_backbone"})


def digest(identity: Any) -> str:
    """Hash of a JSON-like value: 16 hex digits, independent of key order."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def load_recipe(model: type[BaseModel], path: str | Path, overrides: Iterable[str] = ()) -> Any:
    """Read a YAML file, lay `key=value` overrides over it, validate.

    Args:
        model: Recipe class.
        path: The YAML file.
        overrides: `section.key=value`; values are YAML (`[1, 2]`, `null`).

    Raises:
        RecipeError: If the file or a key is unknown, or a value has the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such recipe.{_recipes_beside(path)}")
    return validate(model, merge(read_yaml(path), overrides), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with every scalar as text, `null` as None."""
    try:
        content = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found {type(content).__name__}, expected a mapping of sections such as `data:`.")
    return _with_nulls(content)


def merge(recipe: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Lay `section.key=value` overrides over a recipe; the recipe itself stays as it is."""
    merged: dict[str, Any] = json.loads(json.dumps(recipe))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.split(".")):
            raise RecipeError(f"override '{override}': expected key=value, for example train.epochs=10.")
        try:
            value = _with_nulls(yaml.load(text, Loader=yaml.BaseLoader)) if text else None
        except yaml.YAMLError as error:
            raise RecipeError(
                f"override '{override}': the value is no YAML ({' '.join(str(error).split())})."
            ) from None
        *sections, last = key.split(".")
        place: dict[str, Any] = merged
        for section in sections:
            below = place.get(section)
            if below is None:
                below = {}
            elif isinstance(below, str):
                below = {"name": below}  # `views: ct` with views.min_scale=0.3
            elif not isinstance(below, dict):
                raise RecipeError(f"override '{override}': '{section}' is no section.")
            place[section] = below
            place = below
        place[last] = value
    return merged


def validate(model: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    """Build `model` from a mapping; a wrong key or value becomes a `RecipeError` that begins with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError(_explain(error, model, where)) from None


def choose(known: Mapping[str, Callable], named: Component, where: str) -> dict[str, Any]:
    """Look up a component by its name and complete its options with the defaults of its signature.

    Args:
        known: Name -> function or class.
        named: The recipe's block.
        where: The block, for the error message: `recipes/x.yaml: method`.

    Returns:
        Every option by name, of the declared type.

    Raises:
        RecipeError: If the name or an option is unknown or a value has the wrong type.
    """
    if named.name not in known:
        raise RecipeError(f"{where}.name: found '{named.name}'.{nearest(named.name, known)}")
    target = known[named.name]
    return resolve_options(target, named.options, where)


def resolve_options(target: Callable, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check options against the signature of `target`; see `choose`."""
    return dict(validate(options_model(target), options, where))


@cache
def options_model(target: Callable) -> type[BaseModel]:
    """A pydantic model of the options of a function or class: its keyword-only parameters."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)  # `PositiveFloat` and the like
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    return create_model(target.__name__, __config__=Section.model_config, **fields)


def recipes_folder() -> Path:
    """Where recipes and task cards lie: `recipes/` here, in the checkout, or inside the installed package."""
    package = Path(__file__).parent
    for folder in (Path("recipes"), package.parent / "recipes", package / "recipes"):
        if folder.is_dir():
            return folder
    return Path("recipes")


def find_recipe(name: str | Path, kind: str = "") -> Path:
    """A recipe or card by its path as given, below the folder of recipes, or by its name alone.

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
    known = [other.stem for other in folder.glob("*.yaml")]
    what = {"tasks": "task card", "studies": "study"}.get(kind, "recipe")
    raise RecipeError(f"{name}: neither a {what} nor a name in {folder}.{nearest(path.stem, known)}")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if value in ("null", "~", "") else value


def _as_yaml(value: Any) -> Any:
    """Give text the type that YAML itself would."""
    if isinstance(value, dict):
        return {key: _as_yaml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_yaml(item) for item in value]
    return yaml.safe_load(value) if isinstance(value, str) and value else value


def _recipes_beside(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else recipes_folder()
    known = [other.name for other in folder.glob("*.yaml")]
    return nearest(path.name, known)


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """The first problem of a pydantic error, in our form; `where` is a file or a block of one (`file: method`)."""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    place = f"{where}.{place}" if ": " in where else f"{where}: {place}"
    if problem["type"] == "extra_forbidden":
        *sections, key = problem["loc"]
        owner: Any = model
        for section in sections:  # of a model, a list or a mapping
            owner = (
                owner.model_fields[section].annotation if hasattr(owner, "model_fields") else typing.get_args(owner)[-1]
            )
            if isinstance(owner, types.UnionType):  # a section or null
                owner = typing.get_args(owner)[0]
        title = ".".join(map(str, sections)) or owner.__name__
        return f"{place}: {title} takes no such option.{nearest(str(key), owner.model_fields)}"
    if problem["type"] == "missing":
        return f"{place} is missing; it has no default."
    if problem["type"] == "value_error":  # of a validator of ours, which says what it found
        return f"{place}: {problem.get('ctx', {}).get('error')}."
    return f"{place}: found {problem['input']!r}. {EXPECTED.get(problem['type']) or _expected(problem['msg'])}."


def _expected(message: str) -> str:
    return message.replace("Input should be", "Expected")
