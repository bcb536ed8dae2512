"""Intensities: the conversion from the units of a store to the input of a backbone.

Images are first converted to *unit intensity*: 0 and 1 are the ends of a window (in HU for CT, 0–255 for displayed images and
photographs, the value range of the store for stored and scaled values). Values outside are clipped only at the end, so that views
can still move the window. The card of a backbone states its window, mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssl_transfer.channels import IMAGE, InputChannels, Window
from ssl_transfer.data.card import UNITS, StoreCard
from ssl_transfer.data.display import LUMINANCE, SCALED_RANGE, SOFT_TISSUE_HU
from ssl_transfer.data.images import Images, Positions
from ssl_transfer.errors import StoreError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Intensity:
    """The intensity normalisation of a backbone's input.

    Attributes:
        window_hu: HU that become 0 and 1 in unit intensity (stores in HU only); of several, the first.
        mean: Mean of each channel, which is subtracted from unit intensity.
        std: Standard deviation of each channel, by which the difference is divided.
    """

    window_hu: Window = SOFT_TISSUE_HU
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def normalise(self, unit: torch.Tensor) -> torch.Tensor:
        """Clip unit intensities (B, C, H, W) to [0, 1], subtract the mean, divide by the standard deviation."""
        from ssl_transfer.data.transfer import constant  # ingest does not load torch

        mean, std = (
            constant(tuple(values), unit.device, unit.dtype, channels=True) for values in (self.mean, self.std)
        )
        return (unit.clamp(0, 1) - mean) / std

    def for_channels(self, channels: int) -> Intensity:
        """This normalisation for another number of channels: averaged from colour to grey, repeated from grey to colour."""
        if channels == len(self.mean):
            return self
        mean, std = ((sum(values) / len(values),) * channels for values in (self.mean, self.std))
        return Intensity(self.window_hu, mean, std)


@dataclass(frozen=True)
class Scale:
    """Linear maps from a store's values to unit intensity, each of which makes a channel of every channel of the store.

    Attributes:
        low, high: Values that become 0 and 1.
        further: Those of further maps.
    """

    low: float
    high: float
    further: tuple[Window, ...] = ()

    @classmethod
    def of_store(cls, card: StoreCard, window_hu: Window, channels: InputChannels = IMAGE) -> Scale:
        """The scale of a store's card: the window for HU, 0–255 for displayed and colour images, else its value range.

        Args:
            card: The card.
            window_hu: The window.
            channels: With several windows, there is a map for each; for units other than HU they are alike.

        Raises:
            StoreError: If the store's units are unknown.
        """
        windows = channels.windows_hu or (window_hu,)
        if card.units in ("display", "rgb"):
            windows = [(0.0, 255.0)] * len(windows)
        elif card.units in ("stored", "scaled"):
            low, high = card.value_range
            windows = [(float(low), float(max(high, low + 1e-6)))] * len(windows)
        elif card.units != "hu":
            raise StoreError(f"store {card.id}: unknown units '{card.units}'; known: {', '.join(UNITS)}.")
        (low, high), *further = [(float(low), float(high)) for low, high in windows]
        return cls(low, high, tuple(further))

    @property
    def windows(self) -> tuple[Window, ...]:
        """The values that become 0 and 1, of each map."""
        return (self.low, self.high), *self.further

    def unit(self, images: torch.Tensor) -> torch.Tensor:
        """Map values (any shape) to float32 unit intensity, not clipped; K maps make (B, C · K, H, W) of (B, C, H, W)."""
        units = [
            images.float().sub(low).div_(high - low) for low, high in self.windows
        ]  # `float` may be the caller's own
        if len(units) == 1:
            return units[0]
        import torch  # ingest does not load it

        return torch.stack(units, 2).flatten(1, 2)


def physical_values(store: Images, positions: Positions) -> np.ndarray:
    """Images at `positions` in the values of their files: HU, counts, or whatever they state.

    In a store whose units are `scaled`, 0 and 10000 are the columns `range_low` and `range_high`: values come back to within
    1/20000 of their range from int16 (which ends at 3.3 times the range), and exactly but for rounding from float32.

    Returns:
        Shape (B, C, H, W); float32 for `scaled` stores, otherwise the dtype of the store.
    """
    images = store.read(positions)
    if store.units != "scaled":
        return images
    low, high = (
        np.asarray(store.column(name), np.float64)[positions][:, None, None, None]
        for name in ("range_low", "range_high")
    )
    return (low + images * ((high - low) / SCALED_RANGE[1])).astype(np.float32)


def match_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Convert images (B, C, H, W) to the channels of a backbone: grey is repeated, and colour is replaced by luminance."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    from ssl_transfer.data.transfer import constant

    weights = constant(LUMINANCE, images.device, channels=True)  # float32: integers would round them to 0
    return (images * weights).sum(1, keepdim=True).expand(-1, channels, -1, -1)
