"""What the channels of a backbone's input are: neighbouring slices of a volume, and windows in HU."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssl_transfer.errors import BackboneError, nearest

Window = tuple[float, float]  # HU that become 0 and 1 in unit intensity

# Width and level as on the consoles of radiologists (https://radiopaedia.org/articles/windowing-ct)
WINDOWS_HU: dict[str, Window] = {
    "soft_tissue": (-160.0, 240.0),  # 400, 40
    "lung": (-1350.0, 150.0),  # 1500, -600
    "bone": (-500.0, 1300.0),  # 1800, 400
    "mediastinum": (-125.0, 225.0),  # 350, 50
    "liver": (-45.0, 105.0),  # 150, 30
    "brain": (0.0, 80.0),  # 80, 40
}
STATED = re.compile(r",(context|windows)=([^,]*)")
LARGEST_CONTEXT = 99


@dataclass(frozen=True)
class InputChannels:
    """What the channels of a backbone's input are, beside the grey or the colours of an image.

    Slices come in their order, and the windows of each slice stand together: two windows of three slices are six channels.

    Attributes:
        context: Number of slices: an image, and as many neighbours in its volume on either side; odd. 1: the image alone.
        windows_hu: Several windows in HU, each of which makes a channel; none: the one of `Intensity`.
    """

    context: int = 1
    windows_hu: tuple[Window, ...] = ()

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.context * max(1, len(self.windows_hu))

    @property
    def are_stated(self) -> bool:
        """Whether channels have a meaning of their own; False: they are grey or colours."""
        return self != IMAGE

    @property
    def problem(self) -> str:
        """What is wrong with the values, in words; empty if nothing is."""
        if self.context % 2 == 0 or not 1 <= self.context <= LARGEST_CONTEXT:
            return f"context: found {self.context}, expected an odd number of slices up to {LARGEST_CONTEXT}, such as 3"
        if len(self.windows_hu) == 1:
            return "windows: found one window, expected two or more; a single one is views.window_hu"
        for low, high in self.windows_hu:
            if not -float("inf") < low < high < float("inf"):
                return f"windows: found {low:g} to {high:g} HU, expected a lower and an upper end"
        return ""

    @property
    def settings(self) -> str:
        """The settings of a recipe that state them."""
        windows = ",".join(
            f"[{low:g},{high:g}]" for low, high in self.windows_hu
        )  # without blanks: one word of a shell
        return f"data.context={self.context} data.windows={f'[{windows}]' if windows else 'null'}"

    def __str__(self) -> str:
        slices = f"{self.context} neighbouring slices" if self.context > 1 else ""
        windows = "windows of " + ", ".join(f"{low:g} to {high:g}" for low, high in self.windows_hu) + " HU"
        return ", each in ".join(filter(None, (slices, windows if self.windows_hu else ""))) or "grey or colours"


IMAGE = InputChannels()  # the grey or the colours of an image


def named_window(name: str) -> Window:
    """The ends of a window.

    Raises:
        ValueError: If no window has this name.
    """
    if name not in WINDOWS_HU:
        raise ValueError(f"found '{name}'.{nearest(name, WINDOWS_HU)}"[:-1])
    return WINDOWS_HU[name]


def stated_input(spec: str) -> tuple[str, InputChannels]:
    """A backbone's spec without `,context=N` and `,windows=NAME+NAME`, and what they state.

    A window without a name is `lower:upper`.

    Raises:
        BackboneError: If they state no channels.

    Example:
        >>> stated_input("imagenet:efficientnet_lite0,windows=lung+-160:240+bone")[1].windows_hu
        ((-1350.0, 150.0), (-160.0, 240.0), (-500.0, 1300.0))
        >>> stated_input("imagenet:efficientnet_lite0,context=3")
        ('imagenet:efficientnet_lite0', InputChannels(context=3, windows_hu=()))
    """
    stated = dict(STATED.findall(spec))
    context, windows = stated.get("context", "1"), stated.get("windows")
    if not context.isdecimal():
        raise BackboneError(f"{spec}: context: found {context}, expected an odd number of slices, such as 3.")
    try:
        ends = tuple(map(_stated_window, windows.split("+"))) if windows is not None else ()
    except ValueError as error:
        raise BackboneError(f"{spec}: windows: {error}.") from None
    channels = InputChannels(int(context), ends)
    if channels.problem:
        raise BackboneError(f"{spec}: {channels.problem}.")
    return STATED.sub("", spec), channels


def _stated_window(word: str) -> Window:
    """The ends of a name, or of `lower:upper`."""
    low, separator, high = word.partition(":")
    if not separator:
        return named_window(word)
    try:
        return float(low), float(high)
    except ValueError:
        raise ValueError(f"found {word}, expected lower:upper in HU, such as -160:240") from None
