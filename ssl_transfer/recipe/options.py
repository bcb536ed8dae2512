"""Validation of the sections of a recipe, and of the options of its components.

Options of a component (`method: {name: simclr, temperature: 0.1}`) are the keyword-only parameters of the function or class of
that name, so that every hyper-parameter is declared once.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, create_model, model_validator

from ssl_transfer.errors import RecipeError, nearest
from ssl_transfer.paths import portable

EXPECTED = {  # where pydantic's words speak of Python
    "model_type": "Expected a section of `key: value` lines",
    "model_attributes_type": "Expected a section of `key: value` lines",
    "tuple_type": "Expected a list such as [1, 2]",
    "list_type": "Expected a list such as [1, 2]",
    "bool_parsing": "Expected true or false",
}


PathText = Annotated[str, AfterValidator(portable)]  # of a path, or a name: recipes are stored, and name no user


class Section(BaseModel):
    """A section of a recipe. It is immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(BaseModel):
    """A name and options: `{name: simclr, temperature: 0.1}`, or only `simclr`."""

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


def validate(model: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    """Build `model` from a mapping; a wrong key or value becomes a `RecipeError` that begins with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RecipeError(_explain(error, model, where)) from None


def choose(registry: Mapping[str, Callable], component: Component, where: str) -> dict[str, Any]:
    """Look up a component by its name and complete its options with the defaults of its signature.

    Args:
        registry: Name -> function or class.
        component: The recipe's block.
        where: The block, for the error message: `recipes/x.yaml: method`.

    Returns:
        Every option by name, of the declared type.

    Raises:
        RecipeError: If the name or an option is unknown or a value has the wrong type.
    """
    if component.name not in registry:
        raise RecipeError(f"{where}.name: found '{component.name}'.{nearest(component.name, registry)}")
    target = registry[component.name]
    return resolve_options(target, component.options, where)


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


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """The first problem of a pydantic error, in our form; `where` is a file or a block of one (`file: method`)."""
    problem = error.errors()[0]
    location = ".".join(map(str, problem["loc"]))
    separator = "." if ": " in where else ": "
    location = f"{where}{separator}{location}" if location else where
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
        return f"{location}: {title} takes no such option.{nearest(str(key), owner.model_fields)}"
    if problem["type"] == "missing":
        return f"{location} is missing; it has no default."
    if problem["type"] == "value_error":  # of a validator of ours, which says what it found
        return f"{location}: {problem.get('ctx', {}).get('error')}."
    return f"{location}: found {problem['input']!r}. {EXPECTED.get(problem['type']) or _expected(problem['msg'])}."


def _expected(message: str) -> str:
    return message.replace("Input should be", "Expected")
