"""Reading of checkpoints: tensors, and what else a file or folder says of them. No code of a checkpoint is executed."""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.architecture import brief
from ssl_transfer.models.importing.layout import Tensors
from ssl_transfer.run import file_sha256, read_json

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".torch", ".th")
INDEX = "model.safetensors.index.json"
# settings that checkpoints hold beside tensors; making them executes nothing
HARMLESS = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    np.float64(0).__reduce__()[0],  # what makes a scalar of NumPy
    *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")),
]
CONVERT = (
    'python -c "import torch; f = lambda v: v.state_dict() if isinstance(v, torch.nn.Module) else {k: f(x) for k, x in v.items() '
    "if isinstance(x, (dict, torch.Tensor, torch.nn.Module))} if isinstance(v, dict) else v; "
    "torch.save(f(torch.load('%s', map_location='cpu', weights_only=False)), 'converted.pth')\""
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint, and what is beside them.

    Attributes:
        path: The file or folder.
        sha256: SHA-256 of the file with the tensors; of several files, that of the lines that `sha256sum` prints for them.
        state_dicts: Path in the checkpoint, such as `teacher` or `state_dict` -> tensors by name. The path of the top is empty.
        config: `config.json`, or the settings of timm in the checkpoint; empty without.
        preprocessor: `preprocessor_config.json`; empty without.
        licence: Licence that the folder states; None without.
    """

    path: Path
    sha256: str
    state_dicts: dict[str, Tensors]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    licence: str | None


def read_checkpoint(path: Path, weights: Path | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: A file, or a folder with one.
        weights: File of the folder; None: found by its name.

    Raises:
        BackboneError: If there is no such file, it holds no tensors, or it would execute code.
    """
    if not path.exists():
        raise BackboneError(f"{path}: there is no such file or folder.")
    folder = path if path.is_dir() else path.parent
    files = [weights] if weights else _weights_of(path) if path.is_dir() else [path]
    content: Any = {}
    for file in files:
        part = _content(file)
        content = part if len(files) == 1 else {**content, **part}
    state_dicts = dict(_state_dicts(content)) if isinstance(content, dict) else {}
    if not state_dicts:
        kind = type(content).__name__
        raise BackboneError(
            f"{files[0]}: no tensors with names: found {kind}, expected a state dict. Save `model.state_dict()`."
        )
    beside = path.is_dir() or weights is not None
    configs = ("open_clip_config.json", "config.json") if beside else ()
    config = {key: value for name in configs for key, value in (read_json(folder / name) or {}).items()}
    if isinstance(content.get("arch"), str):
        config = {"arch": content["arch"], **config}
    return Checkpoint(
        path,
        _sha256(files),
        state_dicts,
        config,
        (read_json(folder / "preprocessor_config.json") or {}) if beside else {},
        _licence(folder / "README.md") if beside else None,
    )


def _weights_of(folder: Path) -> list[Path]:
    """The files of a folder that hold its tensors: by the names of the Hugging Face hub, else the only one.

    Raises:
        BackboneError: If there is none, or several.
    """
    index = read_json(folder / INDEX)
    if index:
        files = [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
        if missing := [file for file in files if not file.is_file()]:
            raise BackboneError(f"{missing[0]}: there is no such file, but {INDEX} names it. Copy it there.")
        return files
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:5]) or "no file of weights"
        raise BackboneError(
            f"{folder}: found {listed}; expected one. Name the file: ssl-transfer import {folder}/FILE …"
        )
    return found


def _content(path: Path) -> Any:
    """The content of a file of tensors.

    Raises:
        BackboneError: If it is damaged, of another format, or would execute code.
    """
    if _is_script(path):
        raise BackboneError(
            f'{path}: is a TorchScript program. Convert it once, and import converted.pth: python -c "import torch; '
            f"torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), 'converted.pth')\""
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.findall(r"GLOBAL ([\w.]+)", str(error))
        objects = f" ({named[0]})" if named else ""
        if not _is_pickle(path):
            raise BackboneError(f"{path}: is no checkpoint of torch: {brief(error)} Copy it again.") from None
        raise BackboneError(
            f"{path}: holds Python objects{objects} beside tensors, and loading them may execute any code. If you trust its "
            "origin, convert it once, where the program that wrote it is installed, and import converted.pth: "
            f"{CONVERT % path}"
        ) from None
    except Exception as error:  # torch, zip and safetensors raise many
        raise BackboneError(f"{path}: cannot be read as a checkpoint: {brief(error)} Copy it again.") from None


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(2)
    return start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _state_dicts(content: dict[Any, Any], path: str = "") -> Iterator[tuple[str, Tensors]]:
    """Yield path and tensors of every state dict of a checkpoint: those tensors of a dictionary that have names."""
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield path, tensors
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, dict):
            yield from _state_dicts(value, f"{path}.{key}" if path else key)


def _sha256(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, that of their lines as `sha256sum` prints them."""
    digests = [file_sha256(path) for path in files]
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _licence(readme: Path) -> str | None:
    """The licence in the header of a model card of the hub; None without."""
    try:
        text = readme.read_text(errors="replace")
    except OSError:
        return None
    header = re.match(r"---\n(.*?)\n---", text, re.S)
    found = dict(re.findall(r"^(license(?:_name)?): *['\"]?([^'\"\n]+)", header[1], re.M)) if header else {}
    return found.get("license_name") or found.get("license")
