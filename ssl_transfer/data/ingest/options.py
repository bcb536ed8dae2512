"""The options of `ingest`, checked. They are declared only once, by the signature of `ingest`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_transfer.data.ingest.patients import PatientPattern
from ssl_transfer.data.readers.registry import READERS
from ssl_transfer.domains import Domain
from ssl_transfer.errors import UsageError, nearest

RANGE_RULES = ("auto", "window", "bits", "percentile")
RANGES_PER = ("series", "volume")


@dataclass(frozen=True)
class Options:
    """Values of the options of `ingest`, by name and as attributes.

    Attributes:
        values: Values of all options; paths are text.
        defaults: Default values in the signature.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> Options:
        """Check values; missing ones are set to their defaults.

        Raises:
            UsageError: If a value is invalid, or cannot be combined with another.
            RecipeError: If the domain is unknown.
        """
        options = cls({name: _hashable(values.get(name, default)) for name, default in defaults.items()}, defaults)
        options._check()
        return options

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {name: value for name, value in self.values.items() if value != self.defaults[name]}

    def _check(self) -> None:
        formats = ("auto", *READERS)
        if self.format not in formats:
            raise UsageError(f"--format {self.format}: no such format.{nearest(self.format, formats)}")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"--channels {self.channels}: expected 1 or 3.")
        if self.range not in RANGE_RULES:
            raise UsageError(
                f"--range {self.range}: expected {', '.join(RANGE_RULES)}.{nearest(str(self.range), RANGE_RULES)}"
            )
        if self.range_per not in RANGES_PER:
            raise UsageError(
                f"--range-per {self.range_per}: expected series or volume.{nearest(str(self.range_per), RANGES_PER)}"
            )
        if self.size is not None and self.size < 1:
            raise UsageError(f"--size {self.size}: expected a number of pixels above 0.")
        if not self.max_megapixels > 0:
            raise UsageError(f"--max-megapixels {self.max_megapixels:g}: expected a number above 0.")
        if not 0 <= self.max_refused <= 1:
            raise UsageError(f"--max-refused {self.max_refused}: expected a share from 0 to 1, such as 0.05.")
        if not 0 <= self.max_unmatched <= 1:
            raise UsageError(f"--max-unmatched {self.max_unmatched}: expected a share from 0 to 1, such as 0.1.")
        for name in ("label_key", "file_column", "patient_column", "label_column", "missing"):
            if getattr(self, name) is not None and self.labels is None:
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise UsageError(f"{flag}: there is no --labels CSV, which it is for.")
        if self.patient_from is not None:
            PatientPattern(self.patient_from)
        if self.keep_columns is not None and self.labels is None and self.format not in ("auto", "npz"):
            raise UsageError(f"--keep-columns {self.keep_columns}: there is no --labels CSV, whose columns it names.")
        shares = self.split
        if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            text = ",".join(f"{share:g}" for share in shares)
            raise UsageError(f"--split {text}: expected three shares that sum to 1, for example 0.7,0.15,0.15.")
        if self.domain is not None:
            Domain.parse(self.domain)


def _hashable(value: Any) -> Any:
    """Convert paths to text and lists to tuples."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value
