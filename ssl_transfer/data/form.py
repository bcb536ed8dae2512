"""The form of a store: what new images have to become, so that a network sees them as it saw those of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.display import DISPLAY_RANGE, SCALED_RANGE
from ssl_transfer.records import Pixels


@dataclass(frozen=True, kw_only=True)
class StoreForm:
    """Size, channels and intensities of the images of a store, and how those were decided.

    Attributes:
        size: Height and width in pixels.
        channels: 1 or 3.
        dtype: Dtype in NumPy's notation (`<i2`).
        units: `hu`, `display`, `rgb`, `stored` or `scaled`, see `StoreCard`.
        value_range: The values that are 0 and 1 in unit intensity, see `StoreCard`.
        domain: Domain of the images.
        options: Options of ingest that shape images: `range`, `range_per`, `axis`, `modality`, `max_megapixels`; those that
            are missing had their defaults.
        depths: Depths in use of detectors whose files have the bits of a container: `depth`, `modality`, `manufacturer`,
            `photometric`, `in_use`.
        air: `clear`: CT images are read without the grey level of their air; None: as they are.
        spacing_mm: Median spacing of the pixels (rows, columns); None: unknown.
    """

    size: tuple[Pixels, Pixels]
    channels: int
    dtype: str
    units: str
    value_range: tuple[float, float]
    domain: str
    options: dict[str, Any] = field(default_factory=dict)
    depths: tuple[dict[str, Any], ...] = ()
    air: str | None = None
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, card: StoreCard, **more: Any) -> StoreForm:
        """The form of a store, by its card.

        Args:
            card: The card.
            **more: `air` and `spacing_mm`, which a card does not have.
        """
        decided, (height, width), (low, high) = card.decisions, card.size, card.value_range
        return cls(
            size=(height, width),
            channels=card.channels,
            dtype=card.dtype,
            units=card.units,
            value_range=(float(low), float(high)),
            domain=card.domain,
            options=dict(decided.get("options", {})),
            depths=tuple(decided.get("intensity", {}).get("depths", ())),
            **more,
        )

    @property
    def ends(self) -> tuple[float, float] | None:
        """The values in the store that the ends of an image's range become; None for HU, which have no range."""
        if self.units == "hu":
            return None
        return {"scaled": SCALED_RANGE, "stored": self.value_range}.get(self.units, DISPLAY_RANGE)
