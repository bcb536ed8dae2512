"""Sex and age as stores and results have them: M, F or O, and bands of five years, of which the last is 90+."""

from __future__ import annotations

import math
from datetime import date

SEXES = {
    **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    **dict.fromkeys(("f", "female", "woman", "girl", "w"), "F"),
    **dict.fromkeys(("o", "other", "diverse", "d"), "O"),
}
BAND_YEARS = 5
OLDEST = 90  # years from which on ages are joined: 45 CFR 164.514(b)(2)(i)(C)
MOST_YEARS = 130


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


def years_between(birth: date, day: date) -> int:
    """Completed years from a birth to a day; negative if the day is earlier."""
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
