"""The patient of each image: from the header, from `--patient-from`, or from file names of a known convention.

A pattern such as `{patient}_*` or `*/{patient}/**` says which part of a path names the patient. Without a pattern, names of known
conventions are recognised (see `conventions`). Where names only look as if a patient had several files, a warning says so.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ssl_transfer.data.ingest.conventions import CONVENTIONS
from ssl_transfer.data.readers.items import Selected
from ssl_transfer.data.readers.matching import stem
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, named_file
from ssl_transfer.errors import SourceError, UsageError
from ssl_transfer.texts import HashSet, distinct_pairs, hashes

FIELDS = ("patient", "series")
PARTS = re.compile(r"{(\w*)}|(\*\*/|\*\*|\*|\?)|([^{*?]+|{)")
WILDCARDS = {"**/": "(?:.*?/)??", "**": ".*?", "*": "[^/]*?", "?": "[^/]"}  # the shortest text that fits
ALMOST_ALL = 0.9  # share of the files that must follow a convention for it to be used
FEWEST_PER_PATIENT = 1.5  # files, on average, for names to look as if patients had several
FEWEST_LABELS = 3  # fewer may be classes of which each has a single patient
PLACEHOLDER = re.compile(r"(?:anon\w*|de-?identified|unknown|none|removed|n/?a|no[ _]?id|x+|0+)", re.IGNORECASE)
MARKS = re.compile(r"[_\-. ]+")


class PatientPattern:
    """A pattern of paths, with the fields {patient} and optionally {series}.

    `*` stands for any characters but `/`, `**` for any folders, `?` for one character, a field for one or more characters but
    `/`. Each ends at the first place where the rest of the pattern fits. A pattern without `/` is for the file name alone.
    Suffixes of images may be left out. A field that occurs twice stands for the same text.

    Example:
        >>> PatientPattern("{patient}_*").fields("scans/P7_left_1.png")
        {'patient': 'P7'}
        >>> PatientPattern("*/{patient}/{series}/**").fields("ct/P7/thorax/1.dcm")
        {'patient': 'P7', 'series': 'P7/thorax'}

    Raises:
        UsageError: If a field is unknown, or {patient} is missing.
    """

    def __init__(self, text: str):
        self.text, fields = text, []
        expression = "" if "/" in text else "(?:.*/)?"
        for field, wildcard, literal in PARTS.findall(text.removeprefix("./")):
            if wildcard or literal:
                expression += WILDCARDS[wildcard] if wildcard else re.escape(literal)
                continue
            if field not in FIELDS:
                raise UsageError(
                    f"--patient-from {text}: no field is called {{{field}}}. Fields: {{patient}}, {{series}}."
                )
            expression += f"(?P={field})" if field in fields else f"(?P<{field}>[^/]+?)"
            fields.append(field)
        if "patient" not in fields:
            raise UsageError(
                f"--patient-from {text}: it has no {{patient}}, which stands for the part of the path that names the patient, "
                "as in {patient}_* or */{patient}/**."
            )
        self._expression = re.compile(expression, re.DOTALL)

    def fields(self, file: str) -> dict[str, str] | None:
        """Patient (and series) of a path; None if it does not match."""
        bare = file[: file.rfind("/") + 1] + stem(file)
        match = self._expression.fullmatch(bare) or self._expression.fullmatch(file)
        if match is None:
            return None
        found = match.groupdict()
        if "series" in found:  # names such as `t1` repeat from patient to patient
            found["series"] = f"{found['patient']}/{found['series']}"
        return found


def assign_patients(scan: Scan, pattern: str | None) -> list[str]:
    """Set the patient of each item (and refusal) from its path, in place.

    Patients of headers stay, unless there is a pattern.

    Args:
        scan: Items and refusals; file names are paths below the source.
        pattern: The `--patient-from` option.

    Returns:
        Notes for the card: which convention was recognised.

    Raises:
        UsageError, SourceError: If the pattern is invalid or does not match every image.
    """
    notes = _by_pattern(scan, PatientPattern(pattern)) if pattern is not None else _by_convention(scan)
    return notes + _without_labels_of_patients(scan.items) if notes else []


def _by_pattern(scan: Scan, pattern: PatientPattern) -> list[str]:
    failed, first = 0, []
    patients = array("q")
    for item in scan.items:
        answer = pattern.fields(item.file)
        if answer is None:
            failed, first = failed + 1, [*first, item.file][:3]
        else:
            item.row |= answer
            patients.append(hash(answer["patient"]))
    if failed:
        raise SourceError(
            f"--patient-from {pattern.text}: {failed} of {len(scan.items)} images do not match, for example "
            f"{', '.join(first)}. {_better_pattern(scan.items, pattern)}Every image needs a patient. {{patient}} ends at the "
            "first place where the rest of the pattern fits; * stands for any characters but /, ** for any folders."
        )
    _name_refused(scan.refused, (pattern.fields(refusal.file) for refusal in scan.refused))
    return [f"patients are {pattern.text} of the file names: {_counted(len(HashSet(patients)), len(scan.items))}"]


def _better_pattern(items: Sequence[Item], pattern: PatientPattern) -> str:
    """A question that names the pattern with what was forgotten at its ends, if that fits every image."""
    for before, after in (("", "*"), ("*", ""), ("*", "*"), ("**/", ""), ("**/", "*")):
        longer = PatientPattern(text := before + pattern.text + after)
        if all(longer.fields(item.file) for item in items):
            return f"Did you mean '{text}'? "
    return ""


def _by_convention(scan: Scan) -> list[str]:
    unknown = _positions(scan.items, lambda item: not item.row.get("patient"))
    files = Selected(scan.items, unknown, lambda item: item.file)
    for convention in CONVENTIONS if len(files) else ():
        patient = convention.rule(files)
        named = sum(patient(file) is not None for file in files)
        if named < ALMOST_ALL * len(files):
            continue
        patients, other = array("q"), None
        for item in Selected(scan.items, unknown, lambda item: item):
            item.row["patient"] = found = patient(item.file)
            if found is None:
                other = other or item.file
            else:
                patients.append(hash(found))
        names = ((refusal, patient(refusal.file)) for refusal in scan.refused)
        _name_refused(scan.refused, ({"patient": name} if name else None for _, name in names))
        counted = _counted(len(HashSet(patients)), named)
        notes = [f"patients are {convention.title}: {counted}; --patient-from PATTERN overrides this"]
        if other is not None:
            notes.append(f"{len(files) - named} files are not named like the others, for example {named_file(other)}")
        return notes
    return []


def _positions(items: Sequence[Item], claim: Callable[[Item], object]) -> array:
    """Positions of the items for which a claim holds."""
    return array("q", (position for position, item in enumerate(items) if claim(item)))


def _first_of_files(items: Sequence[Item], positions: array) -> array:
    """Of some positions, the first of each file; the volumes of a file follow each other."""
    firsts, before = array("q"), None
    for position, file in zip(positions, Selected(items, positions, lambda item: item.file), strict=True):
        if file != before:
            firsts.append(position)
        before = file
    return firsts


def _name_refused(refused: Iterable[Refusal], answers: Iterable[dict | None]) -> None:
    for refusal, answer in zip(refused, answers, strict=True):
        refusal.row |= {"patient": answer["patient"]} if answer and not refusal.row.get("patient") else {}


def _without_labels_of_patients(items: Sequence[Item]) -> list[str]:
    """Remove labels (names of folders) if every patient has its own: they are no classes but patients."""
    labels = HashSet(item.row.get("label") for item in items)
    patients = HashSet(item.row.get("patient") for item in items)
    pairs = HashSet((item.row.get("label"), item.row.get("patient")) for item in items)
    folders = all(str(item.row.get("label")) in item.file.split("/")[:-1] for item in items)
    own_label = len(labels) >= FEWEST_LABELS and len(pairs) == len(labels) == len(patients)
    if not folders or not (own_label or all(item.row.get("label") == item.row.get("patient") for item in items)):
        return []
    for item in items:
        item.row["label"] = None
    return ["the folders are patients, so their names are not used as labels"]


def complete_patients(scan: Scan) -> list[str]:
    """After labels are joined: make each volume without a patient a patient of its own, and warn where names look otherwise.

    Returns:
        Warnings for the card.
    """
    unknown = _positions(scan.items, lambda item: not item.row.get("patient") and not item.row.get("study"))
    warnings = _doubtful_ids(scan.items)
    files = Selected(scan.items, _first_of_files(scan.items, unknown), lambda item: item.file)
    suspected = suspected_pattern(files)
    if scan.patient_per_file:
        for item in Selected(scan.items, unknown, lambda item: item):
            item.row["patient"] = item.row["series"]
    if suspected is None:
        return warnings
    pattern, first, second, patients = suspected
    state = "each count as a patient" if scan.patient_per_file else "have no patient"
    return [
        *warnings,
        f"{len(files)} files {state}, but names such as {named_file(first)} and {named_file(second)} look like files of one "
        f"patient, whose images must not stand in several splits: --patient-from '{pattern}' makes "
        f"{_counted(patients, len(files))}",
    ]


def _doubtful_ids(items: Sequence[Item]) -> list[str]:
    """Warnings about ids that may be one person or many: equal but for letter case and blanks, or an anonymiser's placeholder."""
    plain, exact, position_of = array("q"), array("q"), array("q")
    studies: dict[str, set[int]] = {}  # of placeholders
    for position, item in enumerate(items):
        if patient := item.row.get("patient"):
            plain.append(hash(_plainest(str(patient))))
            exact.append(hash(str(patient)))
            position_of.append(position)
            if PLACEHOLDER.fullmatch(str(patient)):
                studies.setdefault(str(patient), set()).add(hash(str(item.row.get("study"))))
    warnings = []
    _, first, codes = np.unique(np.asarray(plain), return_index=True, return_inverse=True)
    spellings = distinct_pairs(codes, np.asarray(exact), len(first)) if len(first) else np.zeros(0, np.int64)
    doubles = np.flatnonzero(spellings > 1)
    if len(doubles):
        members = np.flatnonzero(codes == doubles[first[doubles].argmin()])
        names = dict.fromkeys(str(items[position_of[k]].row["patient"]) for k in members)
        pair = " and ".join(named_file(patient) for patient in list(names)[:2])
        warnings.append(
            f"{len(doubles)} patient ids are written in several ways, for example {pair}: they count as different patients"
        )
    for patient, known in studies.items():
        if len(known) > 1:
            warnings.append(
                f"the patient id {named_file(patient)} stands for all patients of {len(known)} studies, so they count as one "
                "patient: name them with --patient-from, or the column patient of --labels"
            )
    return warnings


def _plainest(patient: str) -> str:
    """An id without letter case, blanks, and what spreadsheets do to numbers: `0017`, `17` and `17.0` are `17`."""
    plain = "".join(patient.casefold().split())
    number = re.fullmatch(r"0*(\d+)(?:\.0+)?", plain)
    return number[1] if number else plain


def suspected_pattern(files: Sequence[str]) -> tuple[str, str, str, int] | None:
    """The pattern by which several files seem to be of one patient.

    Names are divided at `_`, `-`, `.` and blanks. The shortest beginning with a digit in it counts as a patient, or else that of
    the folder's name, or else the folder, if most files share theirs with others.

    Returns:
        Pattern, two files of one patient, and the number of patients; None if nothing suggests it.

    Example:
        >>> suspected_pattern(["P1_a.png", "P1_b.png", "P2_a.png", "P2_b.png"])
        ('{patient}_*', 'P1_a.png', 'P1_b.png', 2)
    """
    for depth in range(1, 5):
        if answer := _shared(files, lambda file, depth=depth: (_beginning(stem(file), depth) or (None,))[0]):
            pattern = next(begin[1] for file in files if (begin := _beginning(stem(file), depth)))
            return _checked(pattern, files, answer)
    levels = {file.count("/") for file in files}
    if len(levels) != 1 or levels == {0}:
        return None
    above = "*/" * (levels.pop() - 1)
    for depth in range(1, 5):
        if answer := _shared(files, lambda file, depth=depth: (_beginning(_folder(file), depth) or (None,))[0]):
            pattern = next(begin[1] for file in files if (begin := _beginning(_folder(file), depth)))
            return _checked(f"{above}{pattern}/*", files, answer)
    if answer := _shared(files, _numbered_folder):
        return _checked(f"{above}{{patient}}/*", files, answer)
    return None


def _folder(file: str) -> str:
    """The name of the folder of a file."""
    return file.rpartition("/")[0].rpartition("/")[2]


def _numbered_folder(file: str) -> str | None:
    """The name of the folder of a file, if there is a digit in it."""
    name = _folder(file)
    return name if re.search(r"\d", name) else None


def _beginning(name: str, depth: int) -> tuple[str, str] | None:
    """The first `depth` parts of a name and a pattern for them, if a digit is among the last of them alone and a part follows."""
    marks = list(MARKS.finditer(name))
    if len(marks) < depth or not marks[0].start():
        return None
    ends = [0, *(mark.start() for mark in marks[:depth])]
    if re.search(r"\d", name[: ends[-2]]) or not re.search(r"\d", name[: ends[-1]]):
        return None
    before = "".join(f"*{mark[0]}" for mark in marks[: depth - 1])
    return name[: ends[-1]], f"{before}{{patient}}{marks[depth - 1][0]}*"


def _checked(pattern: str, files: Sequence[str], pair: tuple[str, str]) -> tuple[str, str, str, int] | None:
    """The answer of `suspected_pattern`; None if the pattern does not fit every file."""
    patients, matched = array("q"), PatientPattern(pattern)
    for file in files:
        fields = matched.fields(file)
        if fields is None:
            return None
        patients.append(hash(fields["patient"]))
    return pattern, *pair, len(HashSet(patients))


def _shared(files: Sequence[str], key: Callable[[str], str | None]) -> tuple[str, str] | None:
    """Two files with the same key, if most files share a key with others and there are several keys."""
    keys = hashes(key(file) for file in files)
    known = keys != hash(None)
    counts = np.unique(keys[known], return_counts=True)[1]
    sharing = int(counts[counts > 1].sum())
    if len(counts) < 2 or sharing < len(files) / 2 or len(files) < FEWEST_PER_PATIENT * len(counts):
        return None
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    first = int(np.flatnonzero(known & (counts[inverse] > 1))[0])
    pair = np.flatnonzero(keys == keys[first])[:2]
    return files[int(pair[0])], files[int(pair[1])]


def _counted(patients: int, files: int) -> str:
    return f"{patients} patient{'s' * (patients != 1)} in {files} files"
