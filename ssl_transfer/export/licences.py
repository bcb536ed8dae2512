"""Licences of weights: which ones exclude commercial use, and their identifiers on the Hugging Face hub."""

from __future__ import annotations

import re

NON_COMMERCIAL = re.compile(
    r"\bnc\b|non[- ]?commercial|research[- ](?:use[- ])?only|only for research|academic|\bfair\b.*research",
    re.IGNORECASE,
)
KNOWN = {  # identifiers of the hub, https://huggingface.co/docs/hub/repositories-licenses
    *(
        "apache-2.0",
        "mit",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "openrail",
        "unlicense",
        "gpl-3.0",
        "agpl-3.0",
    ),
    *("cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0"),
}


def is_non_commercial(licence: str) -> bool:
    """Whether a licence excludes commercial use, by its name.

    Example:
        >>> is_non_commercial("CC BY-NC 4.0"), is_non_commercial("apache-2.0")
        (True, False)
    """
    return NON_COMMERCIAL.search(licence.replace("_", "-")) is not None


def hub_licence(licence: str) -> tuple[str, str | None]:
    """The identifier of a licence on the hub, and its name where that is `other`.

    Example:
        >>> hub_licence("CC BY-NC 4.0"), hub_licence("as its training images")
        (('cc-by-nc-4.0', None), ('other', 'as its training images'))
    """
    identifier = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return (identifier, None) if identifier in KNOWN else ("other", licence)
