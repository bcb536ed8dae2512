"""Paths and texts as artifacts record them: without the names of the user and of the machine."""

from __future__ import annotations

import getpass
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

SHORTEST_NAME = 3  # characters; shorter names occur in paths by chance
COMMON_NAMES = {"root", "user", "home", "localhost", "ubuntu"}  # of many machines: they name nobody


def portable(path: str | Path) -> str:
    """A path that leads to the same place from this working directory, and does not name the user if that is possible.

    Absolute paths become relative ones if they lie in the working directory, or if they name the user and the relative path does
    not. Everything else is returned as it is, such as `stores/ct` and `timm:resnet50`.

    Example:
        >>> portable(os.path.abspath("stores/ct")), portable("stores/ct"), portable("/archive/ct")
        ('stores/ct', 'stores/ct', '/archive/ct')
    """
    text = os.fspath(path)
    if not os.path.isabs(text):
        return text
    relative = os.path.relpath(text)
    outside = relative.split(os.sep)[0] == os.pardir
    return relative if not outside or (_names_user(text) and not _names_user(relative)) else text


def without_user(text: str) -> str:
    """A text, such as a traceback, without the names of the user and of the machine: `~` stands for the home directory.

    Example:
        >>> without_user(f"{Path.home()}/x.py, line 3")
        '~/x.py, line 3'
    """
    home = str(Path.home())
    text = re.sub(rf"{re.escape(home)}(?=/|\b)", "~", text) if home not in ("/", "") else text
    users, hosts = (sorted(names, key=len, reverse=True) for names in (user_names(), host_names()))
    for name, word in (*((user, "USER") for user in users), *((host, "HOST") for host in hosts)):
        text = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", word, text)
    return text


def user_names() -> set[str]:
    """Names of the user, by the environment, the home directory and the system."""
    names = {os.environ.get("USER", ""), os.environ.get("LOGNAME", ""), Path.home().name}
    with suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    return {name for name in names if len(name) >= SHORTEST_NAME and name not in COMMON_NAMES}


def host_names() -> set[str]:
    """Names of the machine, in full and without its domain."""
    full = platform.node()
    return {name for name in (full, full.partition(".")[0]) if len(name) >= SHORTEST_NAME and name not in COMMON_NAMES}


def _names_user(path: str) -> bool:
    home, whole = str(Path.home()), os.path.join(os.sep, path)
    at_home = home != os.sep and os.path.commonpath([home, whole]) == home
    return at_home or bool(user_names() & set(path.split(os.sep)))
