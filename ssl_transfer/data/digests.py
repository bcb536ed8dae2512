"""How an image is named by its content: in rows, in checksums of shards, and in passports."""

from __future__ import annotations

import hashlib

import numpy as np

FINGERPRINTS = (
    "fingerprints"  # shards of a store, and key of a row that has its fingerprint already; see `measures.fingerprint`
)


def pixel_digest(image: np.ndarray) -> str:
    """Name an image by its content: the first 32 hex digits of the SHA-256 of its shape, dtype and bytes.

    Processors have instructions for SHA-256: it takes half the time of BLAKE2b, which hashes everything else here.
    """
    digest = hashlib.sha256(f"{image.shape}{image.dtype.str}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]
