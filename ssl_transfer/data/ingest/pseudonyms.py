"""Pseudonyms: ids of patients, studies and series are replaced by keyed hashes, in every column and in file names.

A patient has the same hash in every store, so that overlaps between stores can be found. Short ids can be guessed by trying all
of them: for real hospital data, set SSL_TRANSFER_PATIENT_KEY to a secret of your own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re

KEY_VARIABLE = "SSL_TRANSFER_PATIENT_KEY"
DEFAULT_KEY = "ssl_transfer"
HASHED = ("patient", "study", "series")
SHORTEST_IN_NAME = 3  # characters; shorter ids occur in file names by chance


def pseudonym(kind: str, value: str) -> str:
    """Hash an id: the first 16 hex digits of HMAC-SHA256.

    Args:
        kind: `patient`, `study` or `series`; equal ids of different kinds give different hashes.
        value: The raw id.
    """
    key = os.environ.get(KEY_VARIABLE) or DEFAULT_KEY
    return hmac.new(key.encode(), f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


class Pseudonyms:
    """Hashes the ids of a source, and replaces them in its file names.

    Args:
        patients: All raw patient ids of the source. They are searched for in the names of files whose patient is unknown.
    """

    def __init__(self, patients: set[str]):
        self._patients = {patient for patient in patients if len(patient) >= SHORTEST_IN_NAME}

    def row(self, row: dict) -> dict:
        """Return a row in which patient, study and series are hashed."""
        return {
            column: pseudonym(column, str(value)) if column in HASHED and value is not None else value
            for column, value in row.items()
        }

    def text(self, text: str, row: dict) -> str:
        """Replace raw ids in a file name or a reason: ids of the row everywhere, other patient ids if they are whole words."""
        ids = {str(row[kind]): kind for kind in reversed(HASHED) if row.get(kind) is not None}
        ids = {raw: kind for raw, kind in ids.items() if len(raw) >= SHORTEST_IN_NAME}
        if ids:
            longest_first = "|".join(re.escape(raw) for raw in sorted(ids, key=len, reverse=True))
            text = re.sub(longest_first, lambda match: pseudonym(ids[match[0]], match[0]), text)
        if row.get("patient") is None:
            text = "/".join(self._component(part) for part in text.split("/"))
        return text

    def _component(self, part: str) -> str:
        for candidate in (part, part.rsplit(".", 1)[0]):
            if candidate in self._patients:
                return part.replace(candidate, pseudonym("patient", candidate))
        words = re.split(r"([^\w-]+|_)", part)
        return "".join(pseudonym("patient", word) if word in self._patients else word for word in words)
