"""Sex and age as stores and results have them: M, F or O, and bands of five years, of which the last is 90+."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date

from ssl_transfer.csv_table import plain_name

SEXES = {
    **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    **dict.fromkeys(("f", "female", "woman", "girl", "w"), "F"),
    **dict.fromkeys(("o", "other", "diverse", "d"), "O"),
}
BAND_YEARS = 5
OLDEST = 90  # years from which on ages are joined: 45 CFR 164.514(b)(2)(i)(C)
MOST_YEARS = 130
AGES = ("age", "patientage", "ageyears", "ageinyears")  # names of a column, without upper case, blanks and punctuation


def sex(value: str) -> str | None:
    """`M`, `F` or `O` of a word; None for any other word.

    Example:
        >>> sex("Female"), sex("m"), sex("unknown")
        ('F', 'M', None)
    """
    return SEXES.get(value.strip().casefold())


def age_band(years: float) -> str | None:
    """The band of an age in years; None below 0, above 130, and for NaN.

    Example:
        >>> age_band(3.5), age_band(64), age_band(97)
        ('00-04', '60-64', '90+')
    """
    if not 0 <= years <= MOST_YEARS:
        return None
    if years >= OLDEST:
        return f"{OLDEST}+"
    first = math.floor(years / BAND_YEARS) * BAND_YEARS
    return f"{first:02d}-{first + BAND_YEARS - 1:02d}"


def are_ages(column: str, numbers: Iterable[float]) -> bool:
    """Whether the numbers of a column are ages in years, by its name and its range.

    Example:
        >>> are_ages("Patient age", [3, 64, 97]), are_ages("age", [1947]), are_ages("stage", [3])
        (True, False, False)
    """
    return plain_name(column) in AGES and all(0 <= number <= MOST_YEARS for number in numbers)


def years_between(birth: date, day: date) -> int:
    """Completed years from a birth to a day; negative if the day is earlier."""
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
