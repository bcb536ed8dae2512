"""A copy of the package to which things are added as docs and CONTRIBUTING say: a file, and an entry of a table."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from support.command_line import ROOT, run

ADDITIONS = Path(__file__).parent.parent / "additions"

# Runs commands in one process, and prints what each of them said.
DRIVER = """
import contextlib, io, json, sys
from ssl_transfer.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main(words)
        except SystemExit as end:  # of --help
            status = end.code or 0
    answers.append([status, out.getvalue(), err.getvalue()])
print("answers:" + json.dumps(answers))
"""


@dataclass(frozen=True)
class Entry:
    """One entry of a literal table.

    Attributes:
        module: Where the table is, below the package.
        table: Its name: a dict or a list.
        text: The entry, as it is written.
        imports: The line that imports what it names; empty: nothing.
    """

    module: str
    table: str
    text: str
    imports: str = ""

    def write(self, package: Path) -> None:
        """Put the entry first into the table."""
        path = package / self.module
        lines = path.read_text().splitlines()
        (literal,) = (node.value for node in ast.parse(path.read_text()).body if self.table in _bound(node))
        assert isinstance(literal, ast.Dict | ast.List)
        row, column = literal.lineno - 1, literal.col_offset + 1
        lines[row] = f"{lines[row][:column]}{self.text}, {lines[row][column:]}"
        first = next(n for n, line in enumerate(lines) if line.startswith("from ssl_transfer"))
        path.write_text("\n".join([*lines[:first], *filter(None, [self.imports]), *lines[first:]]) + "\n")


def _bound(node: ast.stmt) -> list[str]:
    """Names that a statement binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


class Extended:
    """A copy of package and recipes in a folder, and a way to use it.

    Args:
        folder: Empty.
        files: Name in `tests/additions` -> where it goes, below the folder.
        entries: Of tables of the package.
    """

    def __init__(self, folder: Path, files: dict[str, str], entries: list[Entry]):
        self.folder = folder
        for name in ("ssl_transfer", "recipes"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name, place in files.items():
            assert not (folder / place).exists()
            shutil.copy(ADDITIONS / name, folder / place)
        for entry in entries:
            entry.write(folder / "ssl_transfer")

    def python(self, code: str, workdir: Path, *words: str) -> str:
        """Run code with the copy importable and return what it prints."""
        paths = [str(self.folder), str(ROOT / "tests")]
        found = run([sys.executable, "-c", f"import sys\nsys.path[:0] = {paths}\n{code}", *words], workdir, timeout=300)
        assert found.status == 0, found.stderr
        return found.stdout

    def commands(self, workdir: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
        """Run commands one after the other: status, standard output, standard error of each."""
        said = self.python(DRIVER, workdir, json.dumps(commands)).rpartition("answers:")[2]
        return [(status, out, err) for status, out, err in json.loads(said)]
