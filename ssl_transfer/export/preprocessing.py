"""How an image becomes the input of an exported backbone: `preprocessing.json`, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.display import DISPLAY_RANGE, STORED_PERCENTILES

SCHEMA = 1
GRID = (
    "images are not resampled to a spacing: the network sees pixels, at whatever spacing (mm) they have. Sizes and distances in "
    "the image mean what they meant in training only where the spacing is similar"
)
ORIENTATION = (
    "DICOM images as they are stored. NIfTI volumes: reoriented to canonical axes and cut into slices, anterior above, the "
    "patient's right on the left of an axial slice"
)


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the input of the backbone, in their order.

    Attributes:
        channels: Channels of the input. Grey images are repeated, colour images become their luminance.
        context: Number of slices that are channels: an image between its neighbours in the volume; 1: the image alone.
        size: Height and width of the input, in pixels.
        resize: How images are brought to this size.
        spacing: What is done about the spacing of pixels.
        orientation: Which way slices lie.
        intensity: Values that become 0 and 1, by the units of the image; of CT, in each window that is a channel of every slice.
        mean, std: Of each channel, of values between 0 and 1.
        pooling: How the last layer becomes a feature vector.
        features: Length of the feature vector.
        store: What is known of the images that the form of new images follows; None: nothing.
    """

    channels: int
    context: int
    size: tuple[int, int]
    resize: str
    spacing: str
    orientation: str
    intensity: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str
    features: int
    store: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, card: BackboneCard, pooling: str, size: int | None = None) -> Preprocessing:
        """The preprocessing of a backbone.

        Args:
            card: Its card.
            pooling: How its last layer is pooled.
            size: Height and width of the input; None: that of its pretraining.
        """
        size, intensity = size or card.image_size, card.intensity
        return cls(
            channels=card.in_channels,
            context=card.channels.context,
            size=(size, size),
            resize="bilinear, with antialiasing; aspect kept, the short side padded with 0 (the lower end of the window)",
            spacing=GRID,
            orientation=ORIENTATION,
            intensity={
                "hu": [list(window) for window in card.channels.windows_hu] or list(intensity.window_hu),
                "display": list(DISPLAY_RANGE),
                "other": f"VOI window or stored bits; MR, PET and floats: percentiles {STORED_PERCENTILES[0]:g} and "
                f"{STORED_PERCENTILES[1]:g} of the volume",
                "clip": [0, 1],
            },
            mean=intensity.mean,
            std=intensity.std,
            pooling=pooling,
            features=card.feature_dim,
        )

    @property
    def _slices(self) -> str:
        """Which slices are channels, in words."""
        if self.context == 1:
            return "the image"
        return f"{self.context} slices of the volume in their order, the image in the middle, the first and last one repeated"

    def to_json(self) -> dict[str, Any]:
        """The content of `preprocessing.json`."""
        return {"schema": SCHEMA, **asdict(self)}

    def as_markdown(self) -> str:
        """The steps in words, for people."""
        other, several = self.intensity["other"], isinstance(self.intensity["hu"][0], list)
        windows = self.intensity["hu"] if several else [self.intensity["hu"]]
        ends = ", ".join(f"{low:g} (0) to {high:g} (1)" for low, high in windows)
        channels = "grey images are repeated; colour images become their luminance if there is one channel"
        if several or self.context > 1:
            channels = f"{self._slices}, each in {len(windows)} window(s), which stand together; colour images become luminance"
        return f"""1. Intensity: CT in HU from {ends}; images as displayed from 0 to 255; others: {other}.
2. Clip to [0, 1]; resize to {self.size[0]} × {self.size[1]} pixels: {self.resize}.
3. {self.channels} channel(s): {channels}.
4. Subtract {_numbers(self.mean)} and divide by {_numbers(self.std)}.
5. Features: {self.features} numbers, pooling `{self.pooling}`.

Spacing: {self.spacing}. Orientation: {self.orientation}. The same as JSON: `preprocessing.json`.
"""


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
