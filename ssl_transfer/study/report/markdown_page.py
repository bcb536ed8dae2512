"""Tables, figures and texts of a report in a Markdown page, so that no number of it is copied by hand.

A page has blocks, which begin with a comment and end with `<!-- end -->`. Everything between the two is replaced:

    <!-- table: {name: results, where: {metric: auroc}, columns: {Arm: "{pretraining}", Mean: "{mean} ± {sd}"}} -->
    <!-- figure: {name: answer_units, caption: Every pretraining seed} -->
    <!-- text: answer -->

`table` names a file of `tables/`, `figure` one of `figures/`, and `text` one of the texts of the report. What stands outside of
the blocks is the author's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ssl_transfer.errors import UsageError, nearest
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.limits import limits
from ssl_transfer.study.report.wording import nominal, number, p_value, percent, powers, whole, words
from ssl_transfer.writing import writes

BEGIN = re.compile(r"<!--\s*(?=(?:table|figure|text):)")
BLOCK = re.compile(rf"(?P<head>{BEGIN.pattern}(?P<text>.*?)-->\n)(?:(?!<!--).)*(?P<end><!-- end -->)", re.DOTALL)
KEYS = {"table": ("name", "columns", "where"), "figure": ("name", "caption"), "text": ("name",)}
FORMATS: dict[str, Callable[[Any], str]] = {
    "fraction": percent,
    "level": nominal,
    "level_tost": nominal,
    "flops": powers,
}
NAMES = ("task", "protocol", "metric", "strategy")  # columns whose values are names
COUNTS = re.compile(
    r"n|(\w+_)?(images|patients|steps|cases|seeds)|seen|patient|pixels|near|unknown"
)  # columns of whole numbers
NEW = Path(__file__).parent / "new_page.md"  # a page that does not exist is begun as this one


class _Value:
    """A value of a table, which prints itself as reports do; `{name:+}` shows the sign of a number."""

    def __init__(self, column: str, value: Any):
        self.column, self.value = column, value

    def __format__(self, spec: str) -> str:
        value = self.value
        if isinstance(value, str):
            return (words(value) if self.column in NAMES else value).replace("|", "\\|")
        if value is None or pd.isna(value):
            return "–"
        if isinstance(value, (bool, np.bool_)):
            return "yes" if value else "no"
        if self.column in FORMATS:
            return FORMATS[self.column](float(value))
        if self.column.startswith("p_"):
            return p_value(float(value))
        if float(value).is_integer() and (COUNTS.fullmatch(self.column) or not isinstance(value, float)):
            return whole(int(value))
        return number(float(value), spec == "+")


def fill_page(page: Path, folder: Path, evidence: Evidence) -> Path:
    """Replace the blocks of a Markdown page by what they name in a report; a page that does not exist is begun.

    Figures are copied into the folder beside the page that has its name, as SVG.

    Args:
        page: The page.
        folder: Folder of the report, with `tables` and `figures`.
        evidence: Evidence of the report.

    Raises:
        UsageError: If a block is not one, or names what the report does not have.
    """
    begins = not page.exists()
    text = _begun(evidence) if begins else page.read_text(encoding="utf-8")
    begun = len(BEGIN.findall(text))
    if begun != len(BLOCK.findall(text)):
        raise UsageError(
            f"{page}: {begun} blocks begin (table, figure, text), and not all end. Write <!-- end --> below each."
        )
    texts = _texts(evidence)

    def filled_block(block: re.Match) -> str:
        if begins and not _has(folder, *_parsed(page, block["text"])):
            return ""
        return f"{block['head']}\n{_content(page, folder, texts, block['text'])}\n{block['end']}"

    filled = BLOCK.sub(filled_block, text)
    with writes(page):
        page.parent.mkdir(parents=True, exist_ok=True)
        unfinished = page.with_name(page.name + ".part")
        unfinished.write_text(filled, encoding="utf-8")
        os.replace(unfinished, page)
    return page


def _begun(evidence: Evidence) -> str:
    """A new page, with results in main metrics alone: the tables of a report have all metrics of all classes."""
    metrics = ", ".join(dict.fromkeys(evidence.main_metrics.values()))
    return NEW.read_text(encoding="utf-8").replace("MAIN_METRICS", f"[{metrics}]")


def _texts(evidence: Evidence) -> dict[str, list[str]]:
    """The texts of a report by name, as lines of Markdown."""
    made = evidence.provenance
    versions = [f"{name} {value}" for name, value in made.environment.items()]
    return {
        "title": [f"# {made.title}"],
        "question": [made.question],
        "answer": [f"- {sentence}" for sentence in evidence.sentences],
        "design": [f"- **{heading}**: {text}" for heading, text in made.design.items()],
        "limits": [f"- **{heading}**: {text}" for heading, text in limits(evidence)],
        "missing": [f"- {text}" for text in made.missing] or ["None: all planned runs are there."],
        "environment": [", ".join(versions)],
        "commands": ["```", *made.commands, "```"],
    }


def _content(page: Path, folder: Path, texts: Mapping[str, Sequence[str]], head: str) -> str:
    kind, options = _parsed(page, head)
    name = options["name"]
    if kind == "text":
        if name not in texts:
            raise UsageError(f"{page}: text: {name}: the report has no such text.{nearest(name, texts)}")
        return "".join(f"{line}\n" for line in texts[name])
    if kind == "figure":
        source = _file(page, _path(folder, kind, name))
        with writes(page.with_suffix("")):
            page.with_suffix("").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, page.with_suffix("") / source.name)
        return f"![{options.get('caption') or name}]({page.stem}/{source.name})\n"
    return _table(page, pd.read_csv(_file(page, _path(folder, kind, name))), options)


def _parsed(page: Path, head: str) -> tuple[str, dict[str, Any]]:
    """Kind of a block, and its options."""
    try:
        ((kind, options),) = yaml.safe_load(head).items()
        options = {"name": options} if isinstance(options, str) else dict(options)
        unknown = sorted(set(options) - set(KEYS[kind]))
        named = str(options["name"])
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise UsageError(
            f"{page}: found the block <!-- {head.strip()} -->. Expected such as <!-- table: results -->."
        ) from None
    if unknown:
        raise UsageError(f"{page}: {kind}: {named}: no option '{unknown[0]}'.{nearest(unknown[0], KEYS[kind])}")
    return kind, {**options, "name": named}


def _path(folder: Path, kind: str, name: str) -> Path:
    """The file of a table or figure of a report."""
    return folder / f"{kind}s" / f"{name}.{'csv' if kind == 'table' else 'svg'}"


def _has(folder: Path, kind: str, options: Mapping[str, Any]) -> bool:
    """Whether a report has what a block of a new page names: a study without declared contrasts has no figure of them."""
    return kind == "text" or _path(folder, kind, options["name"]).is_file()


def _file(page: Path, path: Path) -> Path:
    if not path.is_file():
        present = [each.stem for each in path.parent.glob(f"*{path.suffix}")]
        raise UsageError(f"{page}: the report has no {path.parent.name}/{path.name}.{nearest(path.stem, present)}")
    return path


def _table(page: Path, table: pd.DataFrame, options: Mapping[str, Any]) -> str:
    """Rows and columns of a table in Markdown."""
    name, where = options["name"], options.get("where") or {}
    columns = options.get("columns") or {column: f"{{{column}}}" for column in table}
    used = [*where, *(column for template in columns.values() for column in re.findall(r"{(\w+)", str(template)))]
    for column in used:
        if column not in table:
            raise UsageError(f"{page}: table: {name}: it has no column '{column}'.{nearest(column, table.columns)}")
    for column, values in where.items():
        wanted = values if isinstance(values, list) else [values]
        table = table[table[column].isin(wanted) | table[column].astype(str).isin(map(str, wanted))]
    values = [
        {str(column): _Value(str(column), value) for column, value in row.items()} for row in table.to_dict("records")
    ]
    rows = [[str(template).format_map(row) for template in columns.values()] for row in values]
    lines = [list(map(str, columns)), ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
