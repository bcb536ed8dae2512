"""MkDocs hook: pages generated from signatures and docstrings, so that an option is described in one place only.

One page per method, strategy, protocol and score; one each for view presets, optimisers, the sections of a recipe, the command
line, and the Python API. The start page, the contributing guide and the changelog are the files at the top of the repository.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind, Parser
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

import ssl_transfer
from ssl_transfer import recipe
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.measures import transferability
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import options_model
from ssl_transfer.training.optim import OPTIMIZERS

ROOT = Path(__file__).parent.parent
SCORES = {name: getattr(transferability, name, score.compute) for name, score in transferability.SCORES.items()}
FOLDERS = {"methods": METHODS, "strategies": STRATEGIES, "protocols": IMPLEMENTATIONS, "scores": SCORES}
NUMBERS = {"Positive": "> 0", "NonNegative": "≥ 0"}  # of pydantic's types


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace an entry of the navigation that ends with `/` by the pages of that folder."""
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of every generated page."""
    for path, name in (
        ("index.md", "README.md"),
        ("contributing.md", "CONTRIBUTING.md"),
        ("changelog.md", "CHANGELOG.md"),
    ):
        yield path, _relative_to_docs((ROOT / name).read_text())
    for name, method in METHODS.items():
        yield f"methods/{name}.md", method_page(name, method)
    for name, strategy in STRATEGIES.items():
        yield f"strategies/{name}.md", strategy_page(name, strategy)
    for name, protocol in IMPLEMENTATIONS.items():
        yield f"protocols/{name}.md", protocol_page(name, protocol)
    for name, score in SCORES.items():
        yield f"scores/{name}.md", score_page(name, score)
    yield (
        "views.md",
        components_page("View presets", "`data.views` of a recipe, `views` of an evaluation.", VIEWS, "views"),
    )
    yield (
        "optimizers.md",
        components_page("Optimisers", "`optimizer` of a recipe or an evaluation.", OPTIMIZERS, "optimizer"),
    )
    yield "recipes.md", recipes_page()
    yield "command_line.md", command_line_page()
    yield "api.md", api_page()
    yield "modules.md", modules_page()


def method_page(name: str, method: type) -> str:
    """A method: what it does, its options, and the recipes that use it."""
    recipes = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if f"name: {name}," in path.read_text()]
    batch = (
        f"The loss compares the images of a batch ({method.compares}), so `train.accumulate_steps` must be 1."
        if method.compares
        else "A batch may be accumulated from smaller ones (`train.accumulate_steps`)."
    )
    commands = "\n".join(f"accelerate launch pretrain.py {path.relative_to(ROOT)}" for path in recipes)
    used = f"## Recipes\n\n```\n{commands}\n```\n" if recipes else ""
    return f"# {method.__name__}\n\n{described(method, 'method.{}')}\n{batch}\n\n{used}"


def strategy_page(name: str, strategy: type) -> str:
    """A fine-tuning strategy and its options."""
    command = f"ssl-transfer evaluate finetune BACKBONE TASK strategy={name}"
    return f"# `{name}`\n\n{described(strategy, 'strategy.{}')}\n```\n{command}\n```\n"


def protocol_page(name: str, protocol: Callable) -> str:
    """A protocol: its own options, and those that all protocols share."""
    kinds = ", ".join(PROTOCOLS[name].task_kinds)
    head = f"# `{name}`\n\n```\nssl-transfer evaluate {name} BACKBONE TASK [option=value …]\n```\n\nFor tasks of kind {kinds}."
    shared = table(recipe.EvaluateRecipe, "{}")
    return f"{head}\n\n{described(protocol, '{}')}\n## Settings of every protocol\n\n{shared}"


def score_page(name: str, score: Callable) -> str:
    """A transferability score and its arguments."""
    module = "ssl_transfer.measures.transferability"
    arguments = described(score, "{}", all_parameters=True)
    return f"# {transferability.SCORES[name].title}\n\n`{module}.{name}`\n\n{arguments}"


def components_page(title: str, where: str, components: dict[str, Callable], key: str) -> str:
    """Several components with their options on one page."""
    parts = [f"## `{name}`\n\n{described(component, f'{key}.{{}}')}" for name, component in components.items()]
    return "\n".join([f"# {title}\n\n{where}\n", *parts])


def recipes_page() -> str:
    """Every key of a pretraining recipe."""
    mix = described(recipe.MixPart, "data.mix: {}")
    head = "# Keys of a recipe\n\nYAML sections, and `section.key=value` on the command line."
    return f"{head}\n\n{described(recipe.PretrainRecipe, '{}')}\n## A part of `data.mix`\n\n{mix}"


def command_line_page() -> str:
    """`--help` of every verb."""

    def help_of(*words: str) -> str:
        command = [sys.executable, "-m", "ssl_transfer", *words, "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    verbs = re.findall(r"^    (\w+)\b", help_of(), re.M)
    parts = [f"## {verb}\n\n```text\n{help_of(verb)}```\n" for verb in verbs]
    return "\n".join(
        [
            "# Command line\n\nExit status: 0 done, 2 the input is wrong or an output cannot be written, 130 and 143 stopped by "
            "Ctrl-C and SIGTERM, 1 anything else.\n",
            *parts,
        ]
    )


def api_page() -> str:
    """The public names of `ssl_transfer`, by mkdocstrings."""
    public = [getattr(ssl_transfer, name) for name in sorted(ssl_transfer.__all__) if not name.startswith("_")]
    names = [f"::: {item.__module__}.{item.__qualname__}\n" for item in public]
    return "\n".join(
        [
            "# Python API\n\n`import ssl_transfer as st`; the names below are attributes of `st` and load on first use.\n",
            *names,
        ]
    )


def modules_page() -> str:
    """The first line of every module's docstring."""
    package = ROOT / "ssl_transfer"
    rows = [
        f"| `{path.relative_to(package)}` | {_cell(ast.get_docstring(ast.parse(path.read_text())).splitlines()[0])} |"
        for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name))
        if path.name != "__init__.py"
    ]
    return "\n".join(["# Modules\n", "| module | what it is |", "|---|---|", *rows])


def described(target: Any, key: str, all_parameters: bool = False) -> str:
    """The docstring of a class or function as Markdown, with a table of its options.

    Args:
        target: A class, function or pydantic model.
        key: How an option is written, with `{}` for its name: `method.{}`.
        all_parameters: Whether the table has every parameter and not only the keyword-only ones.
    """
    parts = []
    for section in sections(target):
        if section.kind is DocstringSectionKind.text:
            parts.append(section.value)
        elif section.kind is DocstringSectionKind.admonition:  # `References:`, `Source:`, `Example:`
            text = section.value.description
            body = f"\n\n```pycon\n{text}\n```" if text.startswith(">>>") else f" {_linked(text)}"
            parts.append(f"**{section.value.kind.capitalize()}.**{body}")
        elif section.kind is DocstringSectionKind.raises:
            parts += [f"**Raises** `{error.annotation}`: {error.description}" for error in section.value]
    parts.insert(1, table(target, key, all_parameters) or "It has no options.")
    return "\n\n".join(parts) + "\n"


def table(target: Any, key: str, all_parameters: bool = False) -> str:
    """The options of a target as a Markdown table; options of a nested section are listed as `section.option`."""
    rows = "".join(
        f"| `{name}` | {kind} | {default} | {meaning} |\n"
        for name, kind, default, meaning in options(target, key, all_parameters)
    )
    return f"| option | type | default | meaning |\n|---|---|---|---|\n{rows}" if rows else ""


def options(target: Any, key: str = "{}", all_parameters: bool = False) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of every option."""
    meanings = parameter_meanings(target)
    is_model = inspect.isclass(target) and issubclass(target, BaseModel)
    fields = (target if is_model else options_model(target)).model_fields
    declared = inspect.get_annotations(target) if is_model else _annotations(target)
    if all_parameters:
        for name, parameter in inspect.signature(target).parameters.items():
            default = "required" if parameter.default is parameter.empty else f"`{parameter.default}`"
            yield key.format(name), _cell(f"`{parameter.annotation}`"), default, _cell(_linked(meanings.get(name, "")))
        return
    for name, field in fields.items():
        default = "required" if field.is_required() else f"`{_shown(field.get_default(call_default_factory=True))}`"
        section = field.annotation
        if inspect.isclass(section) and issubclass(section, recipe.Section):
            yield key.format(name), "section", "see below", _cell(_linked(meanings[name]))
            yield from options(section, key.format(f"{name}.{{}}"))
        else:
            yield key.format(name), _cell(_type(str(declared[name]))), _cell(default), _cell(_linked(meanings[name]))


def parameter_meanings(target: Any) -> dict[str, str]:
    """The description of each parameter or field in the docstring."""
    kinds = (DocstringSectionKind.parameters, DocstringSectionKind.attributes)
    items = (item for section in sections(target) if section.kind in kinds for item in section.value)
    return {item.name: " ".join(item.description.split()) for item in items}


def sections(target: Any) -> list:
    """The parsed docstring."""
    return Docstring(inspect.getdoc(target)).parse(Parser.google, warnings=False)


def _annotations(target: Any) -> dict[str, str]:
    return inspect.get_annotations(target.__init__ if inspect.isclass(target) else target)


def _shown(value: Any) -> str:
    """A default value as it is written in a recipe."""
    if isinstance(value, BaseModel):
        return str(value.model_dump()).replace("'", "")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type(annotation: str) -> str:
    """A declared type in words: `PositiveFloat` is float > 0, `Annotated[float, Field(gt=0, lt=1)]` is float, 0 < · < 1."""
    for prefix, words in NUMBERS.items():
        annotation = re.sub(
            rf"\b{prefix}(Float|Int)\b", lambda match, words=words: f"{match[1].lower()} {words}", annotation
        )
    annotation = re.sub(r"Annotated\[(.*), Field\((.*)\)\]$", _bounded, annotation)
    choices = re.fullmatch(r"Literal\[(.*)\]", annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in re.findall(r"[\"']([^\"']*)[\"']", choices[1]))
    return annotation.replace(" | None", " or null").replace("<class '", "").replace("'>", "")


def _bounded(match: re.Match) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [f"{signs[name]} {value}" for name, value in re.findall(r"(\w+)=([\w.]+)", match[2]) if name in signs]
    return " ".join([match[1], *([", ".join(bounds)] if bounds else [])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _linked(text: str) -> str:
    """The text with addresses and arXiv numbers as links."""
    text = re.sub(r"(https?://[^\s,;)]*[^\s,;).])", r"<\1>", text)
    return re.sub(r"(?<![\w./])(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", text)


def _relative_to_docs(text: str) -> str:
    """The links of a file at the top of the repository, relative to `docs/`."""
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    for name in ("CONTRIBUTING", "CHANGELOG"):
        text = text.replace(f"]({name}.md)", f"]({name.lower()}.md)")
    return text


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        ((title, value),) = entry.items()
        if isinstance(value, str) and value.endswith("/"):
            folder = value.strip("/")
            return {title: [f"{folder}/{name}.md" for name in FOLDERS[folder]]}
        return {title: [_expanded(item) for item in value] if isinstance(value, list) else value}
    return entry
