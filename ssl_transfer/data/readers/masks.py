"""Masks of a source: how their values are coded, decided once for all of its files, and the reading of mask images.

A mask file may have class ids (0, 1, 2), display values (0, 255; 0, 128, 255), palette indices, or grey edges from smoothing or
JPEG compression. One file alone does not tell: where a tissue is missing, 0, 128, 255 looks like 0, 255. So all masks are read
before the first image is stored, and what follows from their values holds for the whole source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.items import Selected
from ssl_transfer.data.readers.limits import MAX_MEGAPIXELS
from ssl_transfer.data.readers.mask_files import Colour, MaskContent, content_of, image_values, is_native, no_content
from ssl_transfer.data.readers.matching import pair_masks, read_mask_names, suffix
from ssl_transfer.data.readers.reader import Item, Refusal, Unreadable, named_file
from ssl_transfer.data.readers.workers import ordered
from ssl_transfer.errors import SourceError, UsageError
from ssl_transfer.texts import hashes

TOLERANCE = 1e-3  # class ids that were stored as floats or with a slope are this close to a whole number
HIGHEST_ID = 65535
WHITE = (255, 65535)  # a value that means 1 if the masks have no other
FEWEST_EDGE_VALUES = 3  # values between 0 and white, from which on they may come from smoothed edges
SHOWN = 8  # values in a message


@dataclass(frozen=True)
class Coding:
    """What the values of mask files mean.

    Attributes:
        recode: Stored value of the file values that are not kept as they are.
        ignore: File values whose pixels are ignored.
        ignored_as: Stored value of ignored pixels; None without `ignore`.
        threshold: File values from here on are class 1, others background; None: values are class ids.
        dtype: Dtype of the stored masks.
    """

    recode: Mapping[int, int] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    ignored_as: int | None = None
    threshold: float | None = None
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))

    def apply(self, values: np.ndarray, name: str) -> np.ndarray:
        """Convert the values of a mask file to those of the store.

        Args:
            values: Numbers, any shape.
            name: Name of the file, for messages.

        Returns:
            Unsigned integers of the same shape.

        Raises:
            Unreadable: If a value is not a class id.
        """
        ignored = np.isin(values, self.ignore) if self.ignore else None
        above = None if self.threshold is None else values >= self.threshold
        mask = self._ids(values, ignored, name) if above is None else above.astype(self.dtype)
        if ignored is not None:
            mask[ignored] = self.ignored_as
        return mask

    def _ids(self, values: np.ndarray, ignored: np.ndarray | None, name: str) -> np.ndarray:
        whole = whole_numbers(values, name)
        if ignored is not None:
            whole = np.where(ignored, 0, whole)
        if whole.size and (whole.min() < 0 or whole.max() > HIGHEST_ID):
            outside = Counter(whole[(whole < 0) | (whole > HIGHEST_ID)].ravel().tolist())
            raise Unreadable(
                f"its mask {name} has values that are no class ids (0 to {HIGHEST_ID}): {listed(outside)}. If these pixels "
                f"are to be ignored, add --mask-ignore={','.join(map(str, sorted(outside)[:3]))}"
            )
        recoded = whole.astype(np.uint16)
        for value, stored in self.recode.items():
            recoded[whole == value] = stored
        if recoded.size and recoded.max() > np.iinfo(self.dtype).max:
            raise Unreadable(f"its mask {name} has the value {recoded.max()}, which no other mask of the source has")
        return recoded.astype(self.dtype)


def whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Mask values as integers; floats are rounded if they are within 0.001 of a whole number.

    Raises:
        Unreadable: If others are not, or if they are no numbers.
    """
    if values.dtype.kind in "bui":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise Unreadable(f"its mask {name} holds {values.dtype}; expected numbers")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise Unreadable(f"its mask {name} has {count:,} values that are NaN or infinite; expected class ids")
    whole = np.rint(values)
    fractional = np.abs(values - whole) > TOLERANCE
    if fractional.any():
        found = Counter(np.round(values[fractional].astype(float), 4).ravel().tolist())
        raise Unreadable(
            f"its mask {name} has values that are not whole numbers: {listed(found)}. If it holds probabilities or smoothed "
            "edges, choose from which value on a pixel belongs to the class: --mask-threshold 0.5"
        )
    return whole.astype(np.int64)


def listed(values: Mapping[Any, int]) -> str:
    """The most frequent values with their numbers of pixels: `0 (812 px), 255 (88 px), 3 others`."""
    shown = sorted(sorted(values, key=values.__getitem__, reverse=True)[:SHOWN])
    text = ", ".join(f"{value:g} ({values[value]:,} px)" for value in shown)
    return text + (f", and {len(values) - len(shown)} other values" if len(values) > len(shown) else "")


class Masks:
    """The mask options of a reader, and what they and the values of all masks decide.

    Args:
        option: The `--masks` option; None: no masks.
        names: The `--mask-names` option.
        ignore: The `--mask-ignore` option, such as `255` or `255,-1`.
        threshold: The `--mask-threshold` option.
        max_megapixels: The `--max-megapixels` option.
        workers: Number of processes that read masks.

    Attributes:
        names: Name of each mask value.
        coding: The coding; that of class ids before `pair` or `decide`.
        notes: What was decided, for the card and the user.
    """

    def __init__(
        self,
        option: str | None = None,
        *,
        names: str | None = None,
        ignore: str | None = None,
        threshold: float | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        workers: int | None = None,
    ):
        self.option, self.max_megapixels, self.workers = option, max_megapixels, workers
        self.names = read_mask_names(names)
        self.in_order = bool(names) and not str(names).lower().endswith(".json")  # names without values
        if threshold is not None and not np.isfinite(threshold):
            raise UsageError(f"--mask-threshold {threshold}: expected a number, such as 128 or 0.5.")
        self.coding = Coding(ignore=_values(ignore), threshold=threshold)
        self.dtype: np.dtype | None = None
        self.notes: list[str] = []

    def pair(self, items: Sequence[Item], refused: list[Refusal], root: Path) -> tuple[Sequence[Item], list[Refusal]]:
        """Give every item its mask (see `matching.pair_masks`), read all masks, and decide on their coding."""
        items, refused = pair_masks(items, refused, root, self.option)
        if self.option is not None and len(items):
            _, firsts = np.unique(hashes(str(item.mask) for item in items), return_index=True)
            paths = Selected(items, np.sort(firsts), lambda item: item.mask)
            read = partial(content_of, max_megapixels=self.max_megapixels)
            contents = ordered(read, paths, "reading masks", self.workers, fail=no_content, native=is_native)
            where, what = f"--masks {self.option}: {len(paths)} file(s): ", f"masks, {len(paths)} file(s): "
            found = self._together(zip(paths, contents, strict=True), where, what)
            lossy = sum(suffix(path.name) in (".jpg", ".jpeg") for path in paths)
            self.decide(found.counts, where, what, lossy=lossy > 0, apart=found.apart)
        return items, refused

    def _together(self, files: Iterable[tuple[Path, MaskContent]], where: str, what: str) -> _Found:
        """What all files contain.

        Raises:
            SourceError: If a colour has one index in the palette of a file and another in that of another file.
        """
        found, palettes, n_white_is_zero = _Found(), _Palettes(where, what), 0
        for path, content in files:
            found.add(content)
            palettes.add(path, content)
            n_white_is_zero += content.white_is_zero
        self.notes += palettes.notes
        if n_white_is_zero:
            self.notes.append(
                f"{what}{n_white_is_zero} TIFF file(s) say that 0 is white. Their values are read as they are stored, as "
                "tifffile and ImageJ write masks, and not as they are shown. If classes and background come out exchanged, save "
                "them with black as 0"
            )
        return found

    def decide(
        self,
        counts: Mapping[float, int],
        where: str,
        what: str = "masks: ",
        *,
        lossy: bool = False,
        apart: bool = False,
    ) -> None:
        """Decide on the coding of all masks.

        Args:
            counts: How many pixels have each value, over all masks that can be read.
            where: Start of errors.
            what: Start of notes, which the card keeps: without paths.
            lossy: Whether some are JPEG files.
            apart: Whether no file has both 1 and 255.

        Raises:
            SourceError: If values have no name while others have one, or come from smoothed edges or JPEG compression.
        """
        coding = self.coding
        present: Counter[int] = Counter()
        for value, count in counts.items():
            if abs(value - round(value)) <= TOLERANCE and round(value) not in coding.ignore:
                present[round(value)] += count
        values = [value for value in sorted(present) if 0 < value <= HIGHEST_ID]
        self._note_ignored(counts, what)
        if coding.threshold is not None:
            self._check_one_class(where)
            share = sum(count for value, count in counts.items() if value >= coding.threshold) / max(
                1, sum(counts.values())
            )
            self.notes.append(f"{what}values from {coding.threshold:g} on are class 1 ({share:.1%} of the pixels)")
            values = [1]
        elif values and set(values) <= set(WHITE) - set(self.names) and (len(values) == 1 or len(self.names) < 2):
            coding = replace(coding, recode=dict.fromkeys(values, 1))
            named = "0 and {0} only: {0} is" if len(values) == 1 else "0, {0} and {1} only: {0} and {1} are"
            self.notes.append(f"{what}values {named.format(*values)} read as class 1")
            values = [1]
        else:
            self._name_in_order(values, what)
            unnamed = [value for value in values if value not in self.names]
            if unnamed:
                self._refuse_edges(present, where, lossy)
            if unnamed and self.names:
                raise SourceError(self._unnamed(unnamed, present, where))
            self._suspect_ignore(values, what, apart)
        highest = max([*values, *self.names, 0])
        is_small = highest < 256 - bool(coding.ignore)
        self.dtype = np.dtype(np.uint8 if is_small else np.uint16)
        ignored_as = (255 if is_small else HIGHEST_ID) if coding.ignore else None
        self.coding = replace(coding, dtype=self.dtype, ignored_as=ignored_as)

    def read_image(self, path: Path) -> np.ndarray:
        """Read a mask image, shape (H, W), upright, in the values of the store.

        Raises:
            Unreadable: If it cannot be read, or is no mask.
        """
        try:
            return self.coding.apply(image_values(path, self.max_megapixels), named_file(path.name))
        except Unreadable as error:
            message = str(error)
            raise Unreadable(
                message if message.startswith("its mask") else f"its mask {named_file(path.name)} {message}"
            ) from None

    def _note_ignored(self, counts: Mapping[float, int], what: str) -> None:
        for value in self.coding.ignore:
            pixels, total = counts.get(value, 0), max(1, sum(counts.values()))
            self.notes.append(f"{what}pixels of value {value} are ignored ({pixels / total:.1%} of all)")

    def _check_one_class(self, where: str) -> None:
        if self.names and set(self.names) != {1}:
            names = ", ".join(self.names.values())
            raise SourceError(
                f"{where}--mask-threshold makes one class of value 1, but --mask-names names {names}. Give one."
            )

    def _name_in_order(self, values: Sequence[int], what: str) -> None:
        """Give names without values to the values in ascending order, where there are as many."""
        if self.in_order and values and len(values) == len(self.names) and set(values) != set(self.names):
            self.names = dict(zip(values, self.names.values(), strict=True))
            named = ", ".join(f"{value} {name}" for value, name in self.names.items())
            self.notes.append(f"{what}names are given to the values in ascending order: {named}")

    def _refuse_edges(self, present: Mapping[int, int], where: str, lossy: bool) -> None:
        highest = max(present)
        between = sum(count for value, count in present.items() if 0 < value < 0.9 * highest)
        white = sum(count for value, count in present.items() if value >= 0.9 * highest)
        is_white = 200 <= highest <= 255 or highest == HIGHEST_ID
        if (is_white and len(present) > FEWEST_EDGE_VALUES + 1 and between < white) or (lossy and len(present) > 2):
            kind = "JPEG compression" if lossy else "smoothed edges"
            raise SourceError(
                f"{where}{len(present)} values, as {kind} leaves them and not class ids: {listed(present)}. Choose from which "
                f"value on a pixel belongs to the class, such as --mask-threshold {(highest + 1) // 2}; or, if these are "
                "classes, name every value in a JSON file for --mask-names."
            )

    def _unnamed(self, unnamed: Sequence[int], present: Mapping[int, int], where: str) -> str:
        counts = {value: present[value] for value in unnamed}
        named = ", ".join(f"{value} {name}" for value, name in self.names.items())
        text = (
            f"{where}{len(counts)} values have no name: {listed(counts)}; named are {named}. Name every value in a JSON file "
            f'such as {{"1": "liver"}} for --mask-names, or leave pixels out: --mask-ignore={",".join(map(str, unnamed[:3]))}'
        )
        if len(unnamed) > SHOWN:
            text += ". If each object has its own value, leave --mask-names out; in the task card, classes: {NAME: any}"
        return text + "."

    def _suspect_ignore(self, values: Sequence[int], what: str, apart: bool) -> None:
        others = [value for value in values if value != 255]
        if 255 not in values or 255 in self.names or others != list(range(1, len(others) + 1)) or not others:
            return
        note = f"{what}value 255 beside {', '.join(map(str, [0, *others][:5]))} is read as a class. "
        if apart and others == [1]:
            note += "No file has both 1 and 255: if both mean the same, ingest with --mask-threshold 1. "
        self.notes.append(f"{note}If these pixels are to be ignored, as in Pascal VOC, ingest with --mask-ignore 255")


@dataclass
class _Found:
    """The values of all mask files, and whether no file has both 1 and 255."""

    counts: Counter[float] = field(default_factory=Counter)
    apart: bool = True

    def add(self, content: MaskContent) -> None:
        self.counts.update(content.counts)
        self.apart = self.apart and not {1, 255} <= set(content.counts)


class _Palettes:
    """Compares the palettes of mask files: class ids are their indices, so that a colour has to have one index in all files.

    Args:
        where: Start of errors.
        what: Start of notes.

    Attributes:
        notes: A warning if an index has two colours, of which neither has another index.
    """

    def __init__(self, where: str, what: str):
        self.where, self.what = where, what
        self.notes: list[str] = []
        self._known: dict[int, tuple[Colour, str]] = {}  # index in use -> its colour, and the first file that has it

    def add(self, path: Path, content: MaskContent) -> None:
        """Compare the palette of a file with those before.

        Raises:
            SourceError: If its colours have other indices than before.
        """
        for index, colour in content.colours.items():
            before, file = self._known.setdefault(index, (colour, path.name))
            if before == colour:
                continue
            others = f"index {index} is {_shown(before)} in {{}} and {_shown(colour)} in {{}}"
            if before in content.colours.values() or any(colour == known for known, _ in self._known.values()):
                raise SourceError(
                    f"{self.where}palettes differ in the order of their colours: {others.format(file, path.name)}. Palettes are "
                    "read by index: save all masks with one palette, or as grey values."
                )
            examples = others.format(named_file(file), named_file(path.name))
            self.notes = self.notes or [f"{self.what}palettes differ, and are read by index: {examples}"]


def _shown(colour: Colour) -> str:
    return f"({', '.join(map(str, colour))})"


def _values(option: str | None) -> tuple[int, ...]:
    """Whole numbers of a text such as `255,-1`."""
    if option is None:
        return ()
    try:
        return tuple(int(part) for part in str(option).split(","))
    except ValueError:
        raise UsageError(f"--mask-ignore {option}: expected whole numbers, such as 255 or 255,-1.") from None
