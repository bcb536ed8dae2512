"""`ingest --check`: what ingest would decide about a source, without writing anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ssl_transfer.data.ingest.filling import prepare
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.ingest.stage import DEFAULTS, assert_exists, opened
from ssl_transfer.data.readers.reader import shown
from ssl_transfer.data.readers.registry import READERS


def check(source: str | os.PathLike, options: Mapping[str, Any]) -> dict[str, Any]:
    """The decisions of `ingest` about a source, from its headers.

    Pixels are read only where a decision depends on them: whether volumes without a modality are in HU, and the depth in use of
    files of 16 bits; standard error says so.

    Args:
        source: As for `ingest`.
        options: Options of `ingest` by name; those that are missing have their defaults.

    Returns:
        `kind` (`check`), `source`, `format`, `domain`, `decisions` (as in the card of the store), `refused` (file, kind, reason)
        and `warnings`.

    Raises:
        SourceError, LabelError, SplitError, UsageError: As `ingest` would.
    """
    chosen = Options.of(DEFAULTS, options)
    assert_exists(str(source))
    with opened(str(source), chosen) as (root, reader, expanded, warnings):
        plan = prepare(root, reader, expanded, source=str(source), warnings=warnings, measured=None)
    return {
        "kind": "check",
        "source": str(source),
        "format": next(name for name, kind in READERS.items() if isinstance(reader, kind)),
        "domain": str(plan.domain),
        "decisions": plan.decisions,
        "refused": [{"file": r.file, "kind": r.kind, "reason": shown(r.reason)} for r in plan.scan.refused],
        "warnings": [shown(warning) for warning in (*plan.warnings, *plan.split_warnings)],
    }
