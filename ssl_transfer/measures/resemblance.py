"""Resemblance: how the contrasts of an image correlate with the signs of known codes, and whether one known image stands out.

The code of a copy with noise has few signs in common with that of the image, since at most positions the noise is as large as
the contrast. Large contrasts survive: weighted by contrast, the signs of the image agree with a copy far more than those of any
other. How much others agree depends on the image: anatomy makes slices at one level alike. So a copy is recognised if no other
image comes near, as keypoints are (Lowe 2004, https://doi.org/10.1023/B:VISI.0000029664.99615.94).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_transfer.measures.alignment import turned
from ssl_transfer.measures.fingerprint import COARSE_BYTES, GRID, Content


class Outstanding(NamedTuple):
    """When the known image that an image resembles most is the same one: where it resembles no other.

    Attributes:
        fewest: Positions that must count in the known code.
        least, few: Resemblance of it, at least: `least`, and `few` divided by the positions that count.
        others: Resemblance of all others, at most; slices of one anatomy exceed it, and are not decided by this rule.
        compared: So many others are needed.
        same: Known codes are of one image if they agree at so large a share of the positions that count in either.
    """

    fewest: int
    least: float
    few: float
    others: float
    compared: int = 100
    same: float = 0.9

    def holds(self, contents: list[Content], likely: np.ndarray, reference: np.ndarray) -> bool:
        """Whether one of the likely images stands out, by one of some boxes of an image.

        Args:
            contents: Boxes of the image.
            likely: Signs of the known images that its codes agree with most (`signs_of`), (k, GRID²).
            reference: Signs of some of all known images, (m, GRID²).
        """
        if not len(likely) or len(reference) < self.compared:
            return False
        for content in contents:
            contrasts = content.contrasts()
            found = resemblances(contrasts, likely)
            best = int(found.argmax())
            counted = np.count_nonzero(likely[best])
            if counted < self.fewest or found[best] < self.least + self.few / counted:
                continue
            alike = [likely[found > self.others], reference[resemblances(contrasts, reference) > self.others]]
            if self._all_same(likely[best], np.concatenate(alike)):
                return True
        return False

    def _all_same(self, signs: np.ndarray, others: np.ndarray) -> bool:
        """Whether all of some known codes (k, GRID²) are of one image with another (GRID²,), in one of the orientations."""
        counted = np.maximum(np.count_nonzero(others, axis=1), np.count_nonzero(signs))
        return bool((others @ _orientations(signs) >= self.same * counted[:, None]).any(1).all())


def signs_of(codes: np.ndarray) -> np.ndarray:
    """Signs −1, 0, 1 of codes without marks (k, CODE_BYTES), of those that are not zero; float32 (k', GRID²)."""
    bits = np.unpackbits(codes[codes.any(1)][:, COARSE_BYTES:], axis=1).astype(np.float32)
    return bits[:, : GRID**2] - bits[:, GRID**2 :]


def resemblances(contrasts: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Correlation of contrasts with known signs where these count, in the best orientation: −1 to 1, float32 (k,).

    Args:
        contrasts: `fingerprint.Content.contrasts`, (GRID, GRID).
        signs: Of known codes, (k, GRID²).
    """
    oriented, counted = _orientations(contrasts.reshape(-1)), np.abs(signs)
    scale = np.sqrt(counted @ oriented**2 * counted.sum(1, keepdims=True))
    return (signs @ oriented / np.maximum(scale, 1e-9)).max(1)


def _orientations(values: np.ndarray) -> np.ndarray:
    """Values (GRID²,) in all orientations, (GRID², 8)."""
    return np.stack([square.reshape(-1) for square in turned(values.reshape(GRID, GRID))], axis=1)
