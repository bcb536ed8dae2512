"""The columns of a label CSV: which of them is the file, the patient, the series, the label and the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_transfer.csv_table import CsvTable, plain_name, shown
from ssl_transfer.data.store import SPLITS
from ssl_transfer.errors import LabelError, nearest

KEYS = ("patient", "series", "file")
SPLIT_WORDS = {
    **{word: "train" for word in ("train", "training")},
    **{word: "val" for word in ("val", "valid", "validation")},
    **{word: "test" for word in ("test", "testing")},
}

# Names that are read as a role, without upper case, blanks and punctuation. The first one is the role itself.
SYNONYMS = {
    "file": (
        *("file", "filename", "filepath", "path", "fname", "image", "imagename", "imagefile", "imagefilename"),
        *("imagepath", "imageid", "imageindex", "img", "imgname", "imgpath", "imgid", "isicid", "dicompath"),
    ),
    "patient": (
        *("patient", "patientid", "patientnumber", "patientno", "patientkey", "patientname", "pid", "mrn"),
        *("subject", "subjectid", "subjectkey", "participant", "participantid", "person", "personid"),
    ),
    "series": ("series", "seriesid", "seriesuid", "seriesinstanceuid"),
    "label": ("label", "class", "classname", "category", "diagnosis", "dx", "target", "groundtruth"),
    "split": ("split", "subset", "partition"),
}
# Columns of rows.parquet that ingest itself writes. Spacings in mm may come from a CSV.
RESERVED = frozenset(
    {"slice", "study", "volume", "pixel_digest", "mask_digest", "intensity", "bits", "rescale", "photometric"}
    | {"padding", "z_mm", "range_low", "range_high"}
)


@dataclass(frozen=True)
class LabelColumns:
    """How the columns of a CSV are joined.

    Attributes:
        key: `patient`, `series` or `file`.
        key_column: Column of the CSV by which rows are found.
        joined: Name of each column of the store -> column of the CSV.
        notes: What was decided, for the user.
    """

    key: str
    key_column: str
    joined: dict[str, str]
    notes: list[str]


def label_columns(table: CsvTable, key: str | None, named: Mapping[str, str | None]) -> LabelColumns:
    """Find the role of each column: as named by an option, or else by its name or a synonym.

    Args:
        table: The CSV.
        key: `patient`, `series` or `file`; None: `file` if the CSV has such a column, otherwise the one of patient and
            series that it has.
        named: Role -> its column, as named by `--file-column`, `--patient-column` and `--label-column`; None: not named.

    Raises:
        LabelError: If a named column does not exist, several columns could be the file or the patient, or there is no
            key or nothing else.
    """
    if key not in (None, *KEYS):
        raise LabelError(f"--label-key {key}: expected one of {', '.join(KEYS)}.")
    roles, notes = _roles(table, key, named)
    key = key or _key(table, roles)
    if key not in roles:
        hint = nearest(key, table.columns)
        option = f" Name it with --{key}-column." if key in named else " Rename it."
        raise LabelError(f"{table.path}: no column '{key}', which --label-key names.{hint}{option}")
    joined = _joined(table, key, roles, notes)
    if not joined:
        raise LabelError(f"{table.path}: only the column '{roles[key]}'. Add a column 'label', or others to join.")
    return LabelColumns(key, roles[key], joined, notes)


def _roles(table: CsvTable, key: str | None, named: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """Role -> column, and notes about columns that do not have the name of their role."""
    roles = {role: _named(table, role, column) for role, column in named.items() if column is not None}
    notes = []
    for role in SYNONYMS:
        if role in roles:
            continue
        free = [column for column in table.columns if column not in roles.values()]
        column = _by_name(table, role, free, key, notes)
        if column is not None and (role != "split" or column == role or _are_splits(table, column)):
            roles[role] = column
            if column != role:
                option = f" (--{role}-column)" if role in named else ""
                notes.append(f"{table.path.name}: column {shown(column)} is read as the {role}{option}")
    return roles, notes


def _named(table: CsvTable, role: str, column: str) -> str:
    """The column that an option names, in upper or lower case."""
    if column in table.cells:
        return column
    alike = [name for name in table.columns if plain_name(name) == plain_name(column)]
    if len(alike) == 1:
        return alike[0]
    raise LabelError(
        f"{table.path}: no column {shown(column)}, which --{role}-column names.{nearest(column, table.columns)}"
    )


def _by_name(table: CsvTable, role: str, free: list[str], key: str | None, notes: list[str]) -> str | None:
    """The column whose name is the role, or the only one whose name is a synonym of it."""
    if role in free:
        return role
    candidates = [column for column in free if plain_name(column) in SYNONYMS[role]]
    exact = [column for column in candidates if plain_name(column) == role]
    if len(exact) == 1 or len(candidates) < 2:
        return next(iter(exact or candidates), None)
    names = " and ".join(map(shown, candidates))
    if role == "patient" or (role == "file" and key in (None, "file")) or role == key:
        advice = f"Name one with --{role}-column" if role != "series" else "Rename one to 'series'"
        raise LabelError(f"{table.path}: the columns {names} could each be the {role}. {advice}.")
    if role == "label":
        notes.append(
            f"{table.path.name}: the columns {names} could each be the label, so none is. Name one with --label-column"
        )
    return None


def _are_splits(table: CsvTable, column: str) -> bool:
    return all(not cell or cell.casefold() in SPLIT_WORDS for cell in table.cells[column])


def _key(table: CsvTable, roles: Mapping[str, str]) -> str:
    """`file` if there is such a column, otherwise the only one of patient and series."""
    present = ["file"] if "file" in roles else [role for role in KEYS if role in roles]
    if len(present) == 1:
        return present[0]
    found = " and ".join(f"{role} ({shown(roles[role])})" for role in present) or "none"
    raise LabelError(
        f"{table.path}: of the columns file, patient and series it has {found}; its columns are "
        f"{', '.join(map(shown, table.columns[:20]))}. Name one with --file-column or --patient-column, "
        "or say which one finds the images with --label-key."
    )


def _joined(table: CsvTable, key: str, roles: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Name of each column of the store -> column of the CSV, without the key and the file."""
    joined = {role: column for role, column in roles.items() if role not in (key, "file")}
    ids = {roles[role] for role in ("file", "patient", "series") if role in roles}
    for column in table.columns:
        is_role = column in ids or any(plain_name(column) == role and roles.get(role) == column for role in roles)
        if is_role or roles.get("split") == column:
            continue
        name = column
        while name in RESERVED or name in joined or name in ("file", key):
            name += "_csv"
        if name != column:
            notes.append(
                f"{table.path.name}: column {shown(column)} is joined as '{name}': '{column}' is another column"
            )
        joined[name] = column
    return joined


def check_splits(table: CsvTable, column: str, values: Sequence[str | None]) -> list[str | None]:
    """The names of splits: train, val and test, of `training`, `valid` and the like.

    Raises:
        LabelError: If a value is something else.
    """
    for row, value in enumerate(values):
        if value is not None and value.casefold() not in SPLIT_WORDS:
            raise table.failure(row, column, f"split {shown(value)}; expected {', '.join(SPLITS)}.")
    return [None if value is None else SPLIT_WORDS[value.casefold()] for value in values]
