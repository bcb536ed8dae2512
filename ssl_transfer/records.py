"""Records of artifacts: JSON files whose content is validated against its dataclass before it is used.

Artifacts may be torn, edited, or come from strangers. Types, ranges and the form of ids are in the annotations of the
dataclasses.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from ssl_transfer.errors import SslTransferError

if TYPE_CHECKING:
    import pandas

Record = TypeVar("Record")

# Ids and names that become parts of paths: no separator, no leading dot, no control character.
PathPart = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,499}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Pixels = Annotated[int, Field(ge=1, le=65_536)]  # height or width
Finite = Annotated[float, Field(allow_inf_nan=False)]
SHOWN = 60  # characters of a wrong value in a message


def damage(path: Path) -> str:
    """Why a file cannot be read as a JSON object, in words; empty if it can be.

    Example:
        >>> damage(Path("no/such/card.json"))
        'there is no such file'
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return "is damaged: it is not text"
    except RecursionError:
        return "is damaged: its content is nested too deeply"
    except ValueError as error:
        return "is empty" if not path.stat().st_size else f"is damaged: it is not JSON ({error})"
    return "" if isinstance(content, dict) else f"holds {type(content).__name__}, expected a JSON object"


def validated(
    kind: type[Record], content: dict[str, Any], where: Path | str, error: type[SslTransferError], again: str
) -> Record:
    """Make a dataclass from its JSON object: lists become tuples, keys that are not fields are ignored, no value is converted.

    Args:
        kind: The dataclass; its annotations state types, ranges and forms.
        content: The JSON object.
        where: Path of the file, for the message.
        error: Class of the error.
        again: What to do, a sentence for the message.

    Raises:
        SslTransferError: Of class `error`, if a field is missing or its value does not fit its annotation.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as invalid:
        raise error(f"{where}: is damaged: {explained(invalid)}. {again}") from None


def explained(invalid: ValidationError) -> str:
    """The first problem of a validation, in words: key, value, and what was expected."""
    problem = invalid.errors(include_url=False)[0]
    key = ".".join(map(str, problem["loc"])) or "content"
    if problem["type"] == "missing":
        return f"{key} is missing"
    found, expected = repr(problem["input"]), problem["msg"].replace("Input should be", "expected")
    found = found if len(found) <= SHOWN else f"{found[:SHOWN]}…"
    expected = "expected an id without path separators" if "pattern" in problem["type"] else expected
    return f"{key}: found {found}, {expected}"


def parquet_rows(path: Path, error: type[SslTransferError], again: str) -> pandas.DataFrame:
    """Read a Parquet file.

    Args:
        path: The file.
        error: Class of the error.
        again: What to do, a sentence for the message.

    Raises:
        SslTransferError: Of class `error`, if the file cannot be read.
    """
    import pandas

    try:
        return pandas.read_parquet(path)
    except Exception as damaged:  # pyarrow raises errors of its own
        raise error(f"{path}: cannot be read: {' '.join(str(damaged).split())[:200]}. {again}") from None


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)
