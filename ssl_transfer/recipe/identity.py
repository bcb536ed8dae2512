"""The hash that ids are made of."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(identity: Any) -> str:
    """Hash of a JSON-like value: 16 hex digits, independent of key order."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
