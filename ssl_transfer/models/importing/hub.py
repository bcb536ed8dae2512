"""Checkpoints on the Hugging Face hub: downloaded, or read from its cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ssl_transfer.errors import BackboneError, UnreachableError
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.importing.checkpoint import INDEX, SUFFIXES, WEIGHTS

HUB = "hf-hub:"
BESIDE = ("config.json", "open_clip_config.json", "preprocessor_config.json", "README.md")


class Repository(NamedTuple):
    """A repository of the hub: `OWNER/NAME`, revision (None: main), and the file with the tensors (None: found)."""

    name: str
    revision: str | None
    file: str | None


def parse_hub(spec: str) -> Repository:
    """Parse `hf-hub:OWNER/NAME[@REVISION][/FILE]`.

    Example:
        >>> parse_hub("hf-hub:microsoft/rad-dino@main")
        Repository(name='microsoft/rad-dino', revision='main', file=None)

    Raises:
        BackboneError: If it has another form.
    """
    match = re.fullmatch(r"hf-hub:(\w[\w.-]*/\w[\w.-]*)(?:@([\w.-]+))?(?:/(\w.*))?", spec)
    if match is None:
        raise BackboneError(
            f"{spec}: expected hf-hub:OWNER/NAME, hf-hub:OWNER/NAME@REVISION or hf-hub:OWNER/NAME/FILE."
        )
    return Repository(*match.groups())


def fetch(repository: Repository) -> tuple[Path, Path | None]:
    """Folder with the files of a repository, and the file of its weights (None: by the names of the hub).

    Raises:
        UnreachableError: If they cannot be fetched and are not in the cache.
        BackboneError: If the repository has no weights, or several files of which none is named.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline = False  # once the hub could not be reached, only its cache is asked

    def get(name: str) -> Path | None:
        nonlocal offline
        try:
            return Path(hf_hub_download(repository.name, name, revision=repository.revision, local_files_only=offline))
        except LocalEntryNotFoundError:
            offline = True
            return None
        except EntryNotFoundError:
            return None

    try:
        for name in BESIDE:
            get(name)
        if repository.file:
            found = get(repository.file)
        else:
            found = next((path for name in WEIGHTS if (path := get(name))), None) or _shards(get)
            if found is None:
                found = get(_only_file(repository, offline))
    except BackboneError:
        raise
    except Exception as error:  # huggingface_hub passes on errors of the network, of permissions and of the disk
        raise _unreachable(repository, error) from None
    if found is None:
        raise _unreachable(repository, FileNotFoundError(f"{repository.file} is neither there nor in the cache."))
    inside = found if repository.file or found.name not in (*WEIGHTS, INDEX) else None
    folder = found
    for _ in Path(repository.file or found.name).parts:
        folder = folder.parent
    return folder, inside


def _shards(get) -> Path | None:
    """The index of weights in several files, which are fetched; None without."""
    import json

    index = get(INDEX)
    if index is None:
        return None
    for name in sorted(set(json.loads(index.read_text())["weight_map"].values())):
        get(name)
    return index


def _only_file(repository: Repository, offline: bool) -> str:
    """Name of the only file of weights in a repository.

    Raises:
        BackboneError: If there is none, or several.
        ConnectionError: If the hub could not be reached before.
    """
    from huggingface_hub import list_repo_files

    if offline:
        raise ConnectionError("the hub cannot be reached, and its weights are not in the cache.")
    files = [name for name in list_repo_files(repository.name, revision=repository.revision) if name.endswith(SUFFIXES)]
    if len(files) != 1:
        listed = ", ".join(files[:5]) or "no file of weights"
        raise BackboneError(
            f"hf-hub:{repository.name}: found {listed}; expected one. Name the file: hf-hub:{repository.name}/FILE."
        )
    return files[0]


def _unreachable(repository: Repository, error: Exception) -> UnreachableError:
    revision = f" --revision {repository.revision}" if repository.revision else ""
    name = repository.name
    return UnreachableError(
        f"hf-hub:{name}: cannot be loaded: {brief(error)} If its licence has to be accepted, do so on "
        f"https://huggingface.co/{name} and `hf auth login`. Without a network: on a machine that has one, `hf download {name}"
        f"{revision} --local-dir FOLDER`; copy FOLDER here, and write its path instead of hf-hub:{name}."
    )
