"""Columns of label tables and archives that identify persons: by their name, or by what they contain.

Readers write only columns that describe images. Whatever a table adds is looked at: ids, names, dates, places, file names and
free text are hashed, so that equal values stay equal and nothing else is left of them. A name may stand in any column, and no
rule tells names from other words. So text is stored as it is only where the heading is known to describe images, or where every
value consists of known words, codes and numbers (see `vocabulary`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from ssl_transfer.data.ingest.vocabulary import HEADINGS, is_personal, is_plain
from ssl_transfer.data.readers.matching import MASK_SUFFIXES

OF_READERS = frozenset(  # columns that readers make from headers by rules of their own: no name, date or free text
    (
        *("label", "split", "slice", "volume", "body_part", "modality", "z_mm", "window_center", "window_width"),
        *(
            "spacing_row_mm",
            "spacing_col_mm",
            "spacing_slice_mm",
            "spacing_at",
            "geometry",
            "intensity",
            "bits",
            "rescale",
            "photometric",
            "padding",
            "non_finite",
            "channel",
            "time",
        ),
        *("range_low", "range_high", "patient", "study", "series", "file"),
    )
)
PERSON = {"patient", "patients", "subject", "subjects", "subj", "participant", "proband", "person", "mrn", "pid"}
NAME = {
    "name",
    "names",
    "surname",
    "firstname",
    "lastname",
    "forename",
    "familyname",
    "givenname",
    "vorname",
    "nachname",
    "nom",
}
STAFF = {"physician", "doctor", "radiologist", "operator", "referrer", "technician", "nurse", "reader", "rater"}
STAFF |= {"annotator", "reviewer", "observer", "author"}
MACHINE = {"username", "user", "host", "hostname", "station"}
BIRTH = {"birth", "birthday", "birthdate", "born", "dob", "geburtsdatum", "geburtstag"}
DATE = {"date", "dates", "datetime", "timestamp", "datum"}
PLACE = {
    "address",
    "street",
    "zip",
    "zipcode",
    "postcode",
    "phone",
    "telephone",
    "email",
    "mail",
    "insurance",
    "ssn",
    "nhs",
}
TEXT = {"comment", "comments", "note", "notes", "remark", "remarks", "report", "reports", "freetext"}
FILE = {"file", "filename", "filepath", "path", "filenames", "url", "uri", "folder", "directory"}
NUMBER = {"id", "ids", "uid", "uids", "uuid", "guid", "identifier", "accession"}
HARMLESS = {  # beside one of these words, the others describe a property: PatientAge, class_name
    *(
        "age",
        "sex",
        "gender",
        "weight",
        "height",
        "size",
        "position",
        "orientation",
        "view",
        "group",
        "count",
        "bmi",
        "smoker",
    ),
    *(
        "class",
        "label",
        "organ",
        "disease",
        "diagnosis",
        "device",
        "model",
        "protocol",
        "lesion",
        "finding",
        "site",
        "split",
    ),
}
FEWEST_VALUES = 10  # distinct; with fewer, a column is taken for classes
MOST_VALUES = 20_000  # distinct; with more, a column of text is taken for identifiers, whatever the number of patients
LARGE_NUMBER = 100_000  # whole numbers from here on, different for most patients, are taken for record numbers
DATE_VALUE = re.compile(
    r"(?:19|20)\d\d[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12]\d|3[01])(?:[T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d\d"
)
MEASURE = re.compile(r"[-+]?(?:0|[1-9]\d{0,4})|[-+]?\d*[.,]\d+")  # a leading zero is for record numbers
SEPARATORS = re.compile(r"[|;,]")


def identifying_columns(rows: Sequence[dict], keep: Collection[str] = ()) -> dict[str, str]:
    """Find the columns that identify persons.

    Args:
        rows: A row of columns per image, before hashing.
        keep: Columns that are not looked at.

    Returns:
        Kind of hash of each identifying column: `patient` for ids of patients, so that equal ids have equal hashes in every
        column; `file` for file names; otherwise the name of the column.

    Example:
        >>> identifying_columns([{"label": "ill", "Patient ID": "7", "dob": "1970-01-01", "PatientAge": 48}])
        {'Patient ID': 'patient', 'dob': 'dob'}
    """
    step = max(1, len(rows) // 1000)
    columns = dict.fromkeys(name for number in range(0, len(rows), step) for name in rows[number])
    further = [name for name in columns if name not in OF_READERS and name not in keep]
    kinds = {name: _kind_of_name(name) for name in further}
    values = _values([name for name in further if not kinds[name]], rows)
    patients = _patients([name for name in values if FEWEST_VALUES <= len(values[name]) <= MOST_VALUES], rows)
    kinds |= {name: _kind_of_content(name, found, patients.get(name, 0)) for name, found in values.items()}
    return {name: kind for name, kind in kinds.items() if kind}


def words_of(name: str) -> set[str]:
    """The words of a column name, in lower case, and the whole name without marks.

    Example:
        >>> sorted(words_of("PatientID"))
        ['id', 'patient', 'patientid']
    """
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-zà-ÿ]+|\d+", name)
    return {part.lower() for part in parts} | {"".join(parts).lower()}


def _kind_of_name(name: str) -> str | None:
    words = words_of(name)
    if words & HARMLESS and not words & (BIRTH | DATE | {"patientid", "mrn"}):
        return None  # its content decides
    if words & PERSON or words == {"id"}:
        return name if words & (NAME | BIRTH | DATE | PLACE) else "patient"
    if words & FILE:
        return "file"
    return name if words & (NAME | STAFF | MACHINE | BIRTH | DATE | PLACE | TEXT | NUMBER) else None


def _values(names: Sequence[str], rows: Sequence[dict]) -> dict[str, set]:
    """The distinct values of each column, at most one more than `MOST_VALUES`; in one pass."""
    values: dict[str, set] = {name: set() for name in names}
    for row in rows if names else ():
        for name, found in values.items():
            value = row.get(name)
            if value is not None and value == value and len(found) <= MOST_VALUES:
                found.add(value)
    return values


def _patients(names: Sequence[str], rows: Sequence[dict]) -> dict[str, int]:
    """Number of patients that have a value of each column, up to twice `MOST_VALUES`; an unknown patient is one of its own."""
    patients: dict[str, set[int]] = {name: set() for name in names}
    for row in rows if names else ():
        patient = row.get("patient")
        for name, found in patients.items():
            value = row.get(name)
            if value is not None and value == value and len(found) < 2 * MOST_VALUES:
                found.add(hash(patient) if patient else len(found))
    return {name: len(found) for name, found in patients.items()}


def _kind_of_content(name: str, values: set, patients: int) -> str | None:
    """Whether values are file names, dates, record numbers, texts that nearly every patient has for itself, or may be names."""
    texts = [str(value) for value in values]
    own = FEWEST_VALUES <= len(values) > min(patients / 2, MOST_VALUES)
    if any(isinstance(value, str) and _may_name(name, value) for value in values):
        return "file" if _most(texts, _is_file) else name
    if not texts or not all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values):
        return None
    if _most(texts, DATE_VALUE.fullmatch):
        return name
    if all(isinstance(value, int) for value in values):
        return name if own and min(map(abs, values)) >= LARGE_NUMBER else None
    if _most(texts, _is_file):
        return "file"
    return name if own and not _most(texts, MEASURE.fullmatch) and not _most(texts, SEPARATORS.search) else None


def _may_name(name: str, value: str) -> bool:
    """Whether a value may be the name of a person: it looks like one, or neither the heading nor the value is known."""
    if is_personal(value):
        return True
    words = words_of(name)
    is_known = words & (HARMLESS | HEADINGS) and not words & STAFF
    return not (is_known or MEASURE.fullmatch(value) or is_plain(value))


def _is_file(text: str) -> bool:
    return text.lower().endswith((*MASK_SUFFIXES, ".dcm")) or text.count("/") > 1


def _most(texts: Sequence[str], claim: Callable[[str], object]) -> bool:
    return sum(bool(claim(text)) for text in texts[:1000]) > 0.9 * min(len(texts), 1000)
