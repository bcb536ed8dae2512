"""Findings of a verification: what was checked, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ssl_transfer.errors import SslTransferError


@dataclass(frozen=True)
class Finding:
    """A line about an artifact.

    Attributes:
        path: What the line is about.
        text: What was checked, or what is wrong.
    """

    path: str
    text: str


@dataclass
class Findings:
    """Collects what was checked and what is wrong."""

    checked: list[Finding] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    def fine(self, path: Path, text: str) -> None:
        """Note what was checked and found right."""
        self.checked.append(Finding(str(path), text))

    def wrong(self, path: Path, text: str) -> None:
        """Note what is wrong."""
        self.problems.append(Finding(str(path), text))

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Note an error that reading an artifact raises within the block, and go on behind it."""
        try:
            yield
        except SslTransferError as error:
            text = str(error)
            self.wrong(path, text.removeprefix(f"{path}").removeprefix(": ") if text.startswith(str(path)) else text)
        except (OSError, ValueError) as error:  # of a file that vanished, or cannot be opened
            self.wrong(path, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
