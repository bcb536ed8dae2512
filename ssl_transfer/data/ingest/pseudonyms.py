"""Patients without names: ids leave the source as keyed hashes, in every column and in file names.

The same patient gets the same hash in every store, so that overlaps between stores can be found. Short ids can be
guessed by trying them all: set SSL_TRANSFER_PATIENT_KEY to a secret of your own for real hospital data.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re

KEY_VARIABLE = "SSL_TRANSFER_PATIENT_KEY"
DEFAULT_KEY = "ssl_transfer"
HASHED = ("patient", "study", "series")
SHORTEST_IN_NAME = 3  # a shorter id stands in too many names by chance


def pseudonym(kind: str, value: str) -> str:
    """Hash an id: the first 16 hex digits of HMAC-SHA256.

    Args:
        kind: `patient`, `study` or `series`; equal ids of different kinds give different hashes.
        value: The raw id.
    """
    key = os.environ.get(KEY_VARIABLE) or DEFAULT_KEY
    return hmac.new(key.encode(), f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


class Pseudonyms:
    """Hashes the ids of one source, and takes them out of its file names.

    Args:
        patients: Every raw patient id of the source; names of files without a patient of their own are searched for
            these.
    """

    def __init__(self, patients: set[str]):
        self._patients = {patient for patient in patients if len(patient) >= SHORTEST_IN_NAME}

    def row(self, row: dict) -> dict:
        """Return a row with patient, study and series hashed."""
        return {
            column: pseudonym(column, str(value)) if column in HASHED and value is not None else value
            for column, value in row.items()
        }

    def text(self, text: str, row: dict) -> str:
        """Take raw ids out of a file name or a reason: the row's own anywhere, others where they are words."""
        own = {str(row[kind]): kind for kind in reversed(HASHED) if row.get(kind) is not None}
        own = {raw: kind for raw, kind in own.items() if len(raw) >= SHORTEST_IN_NAME}
        if own:
            longest_first = "|".join(re.escape(raw) for raw in sorted(own, key=len, reverse=True))
            text = re.sub(longest_first, lambda match: pseudonym(own[match[0]], match[0]), text)
        if row.get("patient") is None:
            text = "/".join(self._component(part) for part in text.split("/"))
        return text

    def _component(self, part: str) -> str:
        for candidate in (part, part.rsplit(".", 1)[0]):
            if candidate in self._patients:
                return part.replace(candidate, pseudonym("patient", candidate))
        words = re.split(r"([^\w-]+|_)", part)
        return "".join(pseudonym("patient", word) if word in self._patients else word for word in words)
