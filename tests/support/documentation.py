"""The README and the pages of `docs/`: their blocks of code, and a way to run a command as it is written."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
from pathlib import Path

import torch
from support.command_line import ROOT, Answer, run

from ssl_transfer.target_kinds import KINDS

PAGES = {  # in the order in which their commands are run
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md"]
    + [
        ROOT / "docs" / f"{name}.md"
        for name in (
            *(
                "data",
                "pretraining",
                "transferability",
                "evaluation",
                "external",
                "feature_space",
                "studies",
                "tutorial",
            ),
            *(f"target_{kind}" for kind in KINDS),
            *("weights", "export"),
        )
    ]
}
OTHERS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
    if path.relative_to(ROOT).as_posix() not in PAGES
}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """Commands of a page: lines of `sh` blocks, and of `console` blocks those behind `$ `."""
    found = []
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.M | re.S):
        prompt = "$ " if language == "console" else ""
        found += [line.removeprefix(prompt) for line in block.splitlines() if line.strip() and line.startswith(prompt)]
    return found


COMMANDS = list(dict.fromkeys(command for text in PAGES.values() for command in commands(text)))
LONG_PAGES = tuple(PAGES)[2:]  # all but the README and the page of data: their commands take longest
LONG_COMMANDS = [
    command
    for command in COMMANDS
    if all(command not in commands(PAGES[page]) for page in PAGES if page not in LONG_PAGES)
]


def entry_point():
    """The function behind the command `ssl-transfer`."""
    script = re.search(r'^ssl-transfer = "([\w.]+):(\w+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    return getattr(importlib.import_module(script[1]), script[2])


def perform(command: str, folder: Path) -> Answer:
    """Run a command in a folder: `ssl-transfer …` in this process, which saves its imports; anything else in a shell."""
    program, *words = shlex.split(command)
    if program != "ssl-transfer":
        return run(["bash", "-c", command], folder)
    output, errors, before, threads = io.StringIO(), io.StringIO(), os.getcwd(), torch.get_num_threads()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = entry_point()(words)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)  # numba, under UMAP, leaves as many as there are cores
    return Answer(status, output.getvalue(), errors.getvalue())
