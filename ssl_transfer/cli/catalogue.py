"""What `ssl-transfer list` lists: the components by name, the recipes, and the artifacts below a folder."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_transfer.cli.flags import described_arguments
from ssl_transfer.errors import UsageError, nearest

Entry = dict[str, Any]  # `name`, `summary`, and `kind` of artifacts
Components = Mapping[str, Any]  # name -> class or function, whose keyword-only parameters are its options


def methods() -> Components:
    """Pretraining methods."""
    from ssl_transfer.methods.registry import METHODS

    return METHODS


def views() -> Components:
    """View presets."""
    from ssl_transfer.data.presets import VIEWS

    return VIEWS


def optimizers() -> Components:
    """Optimisers."""
    from ssl_transfer.training.optim import OPTIMIZERS

    return OPTIMIZERS


def protocols() -> Components:
    """Evaluation protocols."""
    from ssl_transfer.evaluation.registry import IMPLEMENTATIONS

    return IMPLEMENTATIONS


def strategies() -> Components:
    """Fine-tuning strategies."""
    from ssl_transfer.evaluation.strategies.registry import STRATEGIES

    return STRATEGIES


def scores() -> Components:
    """Transferability scores."""
    from ssl_transfer.measures import transferability

    return {name: getattr(transferability, name, score.compute) for name, score in transferability.SCORES.items()}


def sources() -> Components:
    """Kinds of source that `ingest` reads."""
    from ssl_transfer.data.readers.registry import READERS

    return READERS


def layouts() -> list[Entry]:
    """Layouts of checkpoints that `import` reads."""
    from ssl_transfer.models.importing.layouts import LAYOUTS

    return [{"name": layout.name, "summary": layout.title} for layout in LAYOUTS]


def recipes() -> list[Entry]:
    """Pretraining recipes."""
    return _yaml_files("")


def tasks() -> list[Entry]:
    """Task cards."""
    return _yaml_files("tasks")


def studies() -> list[Entry]:
    """Studies."""
    return _yaml_files("studies")


WITH_OPTIONS: dict[str, Callable[[], Components]] = {
    "methods": methods,
    "views": views,
    "optimizers": optimizers,
    "protocols": protocols,
    "strategies": strategies,
    "scores": scores,
    "sources": sources,
}
FILES: dict[str, Callable[[], list[Entry]]] = {
    "layouts": layouts,
    "recipes": recipes,
    "tasks": tasks,
    "studies": studies,
}
COMPONENTS = (*WITH_OPTIONS, *FILES)


def entries(what: str) -> list[Entry]:
    """The names of a kind, each with a sentence."""
    return _documented(WITH_OPTIONS[what]()) if what in WITH_OPTIONS else FILES[what]()


def title(what: str) -> str:
    """What a kind is, in words."""
    return str((WITH_OPTIONS.get(what) or FILES[what]).__doc__).rstrip(".").lower()


def options(what: str, name: str) -> list[Entry]:
    """The options of a component with their defaults, each with its sentences; of a protocol also those that all have.

    Raises:
        UsageError: If there is no such component.
    """
    from ssl_transfer.recipe import EvaluateRecipe, options_model

    components = WITH_OPTIONS[what]()
    if name not in components:
        raise UsageError(f"list {what} {name}: no such name.{nearest(name, components)}")
    target = components[name]
    own = list(_fields(options_model(target), described_arguments(target)))
    shared = _fields(EvaluateRecipe, described_arguments(EvaluateRecipe, "Attributes")) if what == "protocols" else ()
    return [*own, *shared]


def _fields(model: Any, texts: Mapping[str, str], prefix: str = "") -> Iterator[Entry]:
    """The fields of a model, `name=default`; those of a section by dotted names."""
    from ssl_transfer.recipe import Section

    for name, field in model.model_fields.items():
        kind, default = field.annotation, field.get_default(call_default_factory=True)
        if inspect.isclass(kind) and issubclass(kind, Section):
            yield from _fields(kind, described_arguments(kind, "Attributes"), f"{prefix}{name}.")
        else:
            shown = "…" if field.is_required() else _as_yaml(getattr(default, "name", default))
            yield {"name": f"{prefix}{name}={shown}", "summary": texts.get(name, "")}


def _as_yaml(value: Any) -> str:
    """A default value as it is written in a recipe."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def artifacts(folder: Path) -> list[Entry]:
    """The outermost artifacts below a folder, sorted by path."""
    from ssl_transfer.run import read_json
    from ssl_transfer.verification.artifacts import artifacts_below, record_of

    found = []
    for path in artifacts_below(folder):
        record = read_json(path / record_of(path)) or {}
        kind = str(record.get("kind") or record.get("stage"))
        summary = SUMMARIES[kind](path, record) if kind in SUMMARIES else f"not readable; ssl-transfer verify {path}"
        found.append(
            {"name": str(path), "kind": KINDS.get(kind, kind) if kind in SUMMARIES else "?", "summary": summary}
        )
    return found


def _store(path: Path, card: Mapping[str, Any]) -> str:
    patients = card.get("n_patients")
    whose = f" of {patients:,} patients" if patients else ""
    return f"{card.get('domain')}, {card.get('n_images', 0):,} images{whose}"


def _backbone(path: Path, card: Mapping[str, Any]) -> str:
    domain = card.get("source_domain")
    return f"{card.get('name')}: {card.get('architecture')}, {card.get('method')}{f' on {domain}' if domain else ''}"


def _features(path: Path, card: Mapping[str, Any]) -> str:
    return f"of store {card.get('store')} by backbone {card.get('backbone')}"


def _pretraining(path: Path, record: Mapping[str, Any]) -> str:
    """The backbone of a finished run, else how far it is."""
    from ssl_transfer.run import read_json, read_log

    if card := read_json(path / "backbone" / "card.json"):
        return _backbone(path, card)
    steps = [line["step"] for line in read_log(path / "log.jsonl") if "step" in line] if record else []
    return f"not finished{f', last logged step {steps[-1]}' if steps else ''}"


def _result(path: Path, result: Mapping[str, Any]) -> str:
    metrics = (result.get("metrics") or {}).get("test") or {}
    name, value = next(iter(metrics.items()), ("no metric", None))
    how = " ".join(filter(None, (result.get("protocol"), result.get("strategy"))))
    backbone, task = (result.get(key) or {} for key in ("backbone", "task"))
    setting = f"{100 * result.get('fraction', 1):g} % of the labels, seed {result.get('seed')}"
    shown = "undefined" if value is None else f"{value:.4f}"
    return f"{how} of {backbone.get('name')} on {task.get('name')}, {setting}: {name.replace('_', ' ')} {shown}"


def _ranking(path: Path, ranking: Mapping[str, Any]) -> str:
    return str(ranking.get("recommendation"))


def _analysis(path: Path, analysis: Mapping[str, Any]) -> str:
    return f"{len(analysis.get('backbones') or ())} backbones on {analysis.get('store_path')}"


def _tuning(path: Path, tuning: Mapping[str, Any]) -> str:
    selected = ", ".join(f"{key}={value}" for key, value in (tuning.get("selected") or {}).items())
    return f"{tuning.get('protocol')} on {tuning.get('task')}: {selected}"


def _export(path: Path, export: Mapping[str, Any]) -> str:
    return f"{export.get('name')} for {export.get('to')}"


def _study(path: Path, plan: Mapping[str, Any]) -> str:
    title = (plan.get("recipe") or {}).get("title") or plan.get("name")
    return f"{title} ({len(plan.get('jobs') or ()):,} jobs; ssl-transfer study status {path})"


SUMMARIES: dict[str, Callable[[Path, Mapping[str, Any]], str]] = {
    "store": _store,
    "backbone": _backbone,
    "features": _features,
    "pretrain": _pretraining,
    "result": _result,
    "rank": _ranking,
    "analysis": _analysis,
    "tuning": _tuning,
    "export": _export,
    "plan": _study,
}
KINDS = {"pretrain": "run", "rank": "ranking", "plan": "study"}  # kind of a record -> of an artifact


def _documented(components: Mapping[str, Any]) -> list[Entry]:
    """Names, each with the first sentence of its docstring."""
    return [{"name": name, "summary": _first_sentence(inspect.getdoc(item) or "")} for name, item in components.items()]


def _yaml_files(kind: str) -> list[Entry]:
    """Recipes of a kind, each with the first sentence of the comment at its top."""
    from ssl_transfer.recipe.files import recipes_folder

    entries = []
    for path in sorted((recipes_folder() / kind).glob("*.yaml")):
        comment = re.match(r"(?:#.*\n)*", path.read_text())
        text = re.sub(r"^# ?", "", comment[0] if comment else "", flags=re.M)
        entries.append({"name": path.stem, "summary": _first_sentence(text)})
    return entries


def _first_sentence(text: str) -> str:
    """The first sentence of a text's first paragraph, without its full stop."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!et al)\.(?:\s|$)", paragraph)[0]
