"""The pairing of mask files with images, and mask files that no option names.

`--masks` is a single file (for a single image or volume), a folder (whose files have the same relative path or the same stem as
the images), or a pattern such as `../masks/{parent}/{stem}_seg.png` with the fields {stem}, {parent}, {number} and glob
wildcards.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path

from ssl_transfer.data.readers.items import Items
from ssl_transfer.data.readers.reader import Item, Refusal, named_file, walk
from ssl_transfer.errors import SourceError
from ssl_transfer.texts import HashSet, Positions

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, ".gif")
FIELDS = ("stem", "parent", "number")
IMAGE_FOLDERS = re.compile(r"(images?|imgs?)(tr|ts)?", re.IGNORECASE)
MASK_FOLDERS = re.compile(
    r"(masks?|labels?|segmentations?|segs?|annotations?|gt|ground_?truths?)(tr|ts)?", re.IGNORECASE
)
MASK_WORDS = "(masks?|segs?|segmentations?|labels?|gt)"
MASK_ENDINGS = re.compile(rf"[_.-]{MASK_WORDS}([_-]?\d+)?$", re.IGNORECASE)
MASK_NAMES = re.compile(
    rf"({MASK_WORDS}[_-]?)(\d+)?", re.IGNORECASE
)  # of whole stems: `segmentation-3` beside `volume-3`
MOST_OPTIONS = 3  # that are named in warnings


def suffix(file: str) -> str:
    """The suffix of a file name in lower case; `.nii.gz` counts as one suffix."""
    name = file.rsplit("/", 1)[-1].lower()
    if name.endswith(".nii.gz"):
        return ".nii.gz"
    return "." + name.rsplit(".", 1)[1] if "." in name else ""


def stem(file: str) -> str:
    """The name of a file without folders and suffix.

    Example:
        >>> stem("train/case_07.nii.gz")
        'case_07'
    """
    name = file.rsplit("/", 1)[-1]
    ending = suffix(file)
    return name[: -len(ending)] if ending in (*MASK_SUFFIXES, ".dcm", ".ima") else name


def pair_masks(
    items: Sequence[Item], refused: list[Refusal], root: Path, masks: str | None
) -> tuple[Sequence[Item], list[Refusal]]:
    """Give every item its mask, and remove the mask files from both lists.

    Args:
        items: Images below `root`.
        refused: Files that were refused.
        root: The source: a folder or a file.
        masks: The `--masks` option; None: nothing is changed.

    Returns:
        The items that are images, each with its `mask`, and the refusals that are not masks.

    Raises:
        SourceError: If an image has no mask or several, or if the option names no file.
    """
    if masks is None:
        return items, refused
    find = _finder(root, masks)

    def candidates(item: Item) -> list[Path]:
        own = item.path.resolve()
        return [path for path in find(item.file) if path.resolve() != own]

    def resolved() -> Iterator[str]:
        for item in items:
            found = candidates(item)
            item.mask = found[0] if len(found) == 1 else None
            yield from (str(path.resolve()) for path in found)

    mask_files = HashSet(resolved())
    images = Items(item for item in items if str(item.path.resolve()) not in mask_files)
    for item in images:
        if item.mask is None:
            found = candidates(item)
            names = ", ".join(path.name for path in found[:3])
            what = f"{len(found)} masks ({names})" if found else "no mask"
            raise SourceError(
                f"--masks {masks}: {item.file} has {what}; every image needs exactly one. {_searched(root, masks, item)} "
                "Name them like the images, or use a pattern with {stem}, {parent} or {number}."
            )
    base = root.parent if root.is_file() else root
    return images, [r for r in refused if str((base / r.file).resolve()) not in mask_files]


def mask_files(root: Path, masks: str) -> Iterator[tuple[str, Path]]:
    """The files that `--masks` may name, wherever they are: pairs of a name and a path. None if there are none.

    Args:
        root: The source: a folder or a file.
        masks: The `--masks` option.

    Raises:
        SourceError: If a pattern has an unknown field.
    """
    if not _is_pattern(masks):
        option = _existing(root, masks)
        yield from walk(option) if option is not None else ()
        return
    find, previous = _finder(root, masks), ""
    for file, _ in walk(root):
        if (filled := _filled(masks, file)) != previous:  # files of a folder follow each other
            yield from ((filled, path) for path in find(file))
        previous = filled


def _is_pattern(masks: str) -> bool:
    return "{" in masks or any(character in masks for character in "*?[")


def _searched(root: Path, masks: str, item: Item) -> str:
    """Where the mask of an item was searched, as a sentence."""
    base = root.parent if root.is_file() else root
    if _is_pattern(masks):
        return f"Patterns are relative to the source {base}: searched for {base}/{_filled(masks, item.file)}."
    return f"Searched for the same path or name in {masks}."


def leave_out_masks(
    items: Sequence[Item], refused: list[Refusal], masks: str | None
) -> tuple[Sequence[Item], list[str]]:
    """Without `--masks`, set aside files that are masks by their names, and images beside them.

    These are files in a folder `masks`, `labelsTr`, … beside a folder `images`, `imagesTr`, … or beside images, and files such as
    `a_mask.png` beside `a.png`, `case_1_seg.nii.gz` beside `case_1_flair.nii.gz`, `segmentation-1.nii` beside `volume-1.nii`, or
    `segmentation.nii.gz` beside `imaging.nii.gz`.

    Args:
        items: Images of the source.
        refused: Files that were refused; masks are appended.
        masks: The `--masks` option; if it is given, nothing is changed.

    Returns:
        The items that are no masks, and warnings.
    """
    if masks is not None:
        return items, []
    parents: set[str] = set()
    beginnings = HashSet(_beginnings_of_masks(items, parents))
    if not parents and not len(beginnings) and not any(_is_named_mask(item.file) for item in items):
        return items, []
    names = (_without_suffix(item.file) for item in items)
    others = (name for name in names if not MASK_ENDINGS.search(name))
    images = HashSet(
        (name[:end], end == len(name)) for name in others for end in _ends(name) if name[:end] in beginnings
    )
    beside = HashSet(name for item in items if not _is_named_mask(item.file) for name in _names_beside(item.file))
    found: dict[str, tuple[int, str]] = {}  # option -> number of files, and the first one
    kept = Items()
    for item in items:
        option = _mask_option(item.file, parents, images, beside)
        if option is None:
            kept.append(item)
            continue
        count, first = found.get(option, (0, item.file))
        found[option] = count + 1, first
        reason = f"a mask by its name; to use it, ingest with --masks '{named_file(option)}'"
        refused.append(Refusal(item.file, "filtered", reason, dict(item.row)))
    return kept, _notes_on_masks(found)


def _notes_on_masks(found: dict[str, tuple[int, str]]) -> list[str]:
    """Warnings about masks that are left out, from option -> number of files, and the first one."""
    options = list(found.items())
    notes = [
        f"{count} file(s) such as {named_file(first)} are masks by their names and are left out. To use them, "
        f"ingest the images with --masks '{named_file(option)}'"
        for option, (count, first) in options[:MOST_OPTIONS]
    ]
    if more := options[MOST_OPTIONS:]:
        count = sum(count for _, (count, _) in more)
        notes.append(f"{count} more file(s) with {len(more)} other names are masks by their names and are left out")
    return notes


def _beginnings_of_masks(items: Iterable[Item], parents: set[str]) -> Iterator[str]:
    """Beginnings of the paths that end as those of masks do; adds the parents of folders of images."""
    for item in items:
        folders = item.file.split("/")[:-1]
        parents |= {"/".join(folders[:n]) for n in range(len(folders)) if IMAGE_FOLDERS.fullmatch(folders[n])}
        name = _without_suffix(item.file)
        if ending := MASK_ENDINGS.search(name):
            yield name[: ending.start()]


def _is_named_mask(file: str) -> bool:
    """Whether the whole name of a file, or a folder of it, is a word for masks."""
    folders = file.split("/")[:-1]
    return any(map(MASK_FOLDERS.fullmatch, folders)) or MASK_NAMES.fullmatch(stem(file)) is not None


def _names_beside(file: str) -> tuple[tuple[str, ...], ...]:
    """What a file proves to be beside it: an image in its folder, one with its last number, and one with its name."""
    folder, name = file.rpartition("/")[0], stem(file)
    numbers = re.findall(r"\d+", name)
    return (folder,), (folder, "number", numbers[-1] if numbers else ""), (folder, "name", name)


def _ends(name: str) -> list[int]:
    """Where a path ends, as a whole and before each `_`, `-` and `.` of its last part."""
    last = name.rfind("/") + 1
    return [len(name), *(match.start() for match in re.finditer(r"[_.-]", name) if match.start() > last)]


def _mask_option(file: str, parents: set[str], images: Container[tuple], beside: Container[tuple]) -> str | None:
    """The `--masks` option that names a mask; None for an image.

    Args:
        file: Path of the file.
        parents: Parents of folders of images.
        images: Beginnings of the names of images, and whether each is a whole name.
        beside: Of each image what `_names_beside` says.
    """
    *folders, name = file.split("/")
    for number, folder in enumerate(folders):
        if MASK_FOLDERS.fullmatch(folder):
            parent = "/".join(folders[:number])
            if parent in parents:
                return "/".join(folders[: number + 1])
            if (parent,) in beside:
                own = f"{{stem}}{suffix(file)}" if (parent, "name", stem(file)) in beside else name
                return "/".join(["{parent}"] * bool(parent) + folders[number:] + [own])
    prefix = "{parent}/" if folders else ""
    whole = MASK_NAMES.fullmatch(stem(file))
    if whole and ("/".join(folders), *(("number", whole[3]) if whole[3] else ())) in beside:
        return f"{prefix}{whole[1]}{'{number}' if whole[3] else ''}{suffix(file)}"
    path = _without_suffix(file)
    ending = MASK_ENDINGS.search(path)
    if ending is None:
        return None
    own = ((True, "{stem}"), (False, "*"))
    image = next((image for is_whole, image in own if (path[: ending.start()], is_whole) in images), None)
    return image and f"{prefix}{image}{ending[0]}{suffix(file)}"


def _existing(root: Path, masks: str) -> Path | None:
    """The file or folder that `--masks` names, relative to the working directory or else to the source; None without one."""
    base = root.parent if root.is_file() else root
    return next((path for path in (Path(masks), base / masks) if path.exists()), None)


def _finder(root: Path, masks: str) -> Callable[[str], list[Path]]:
    """A function that returns the candidate mask files of a file of the source."""
    base = root.parent if root.is_file() else root
    if _is_pattern(masks):
        unknown = set(re.findall(r"{(\w*)}", masks)) - set(FIELDS)
        if unknown:
            raise SourceError(
                f"--masks {masks}: no field is called {{{unknown.pop()}}}. Fields: {{stem}}, {{parent}}, {{number}}."
            )
        return lambda file: _expand(base, masks, file)
    option = _existing(root, masks)
    if option is None:
        raise SourceError(f"--masks {masks}: no such file or folder, neither here nor below {base}.")
    if option.is_file():
        return lambda file: [option]
    files = walk(option)
    numbers = array("q", (number for number, (file, _) in enumerate(files) if suffix(file) in MASK_SUFFIXES))
    by_path = Positions(_without_suffix(files[number][0]) for number in numbers)
    by_stem = Positions(stem(files[number][0]) for number in numbers)

    def find(file: str) -> list[Path]:
        same = by_path.of(_without_suffix(file)) or by_stem.of(stem(file))
        return [files[numbers[number]][1] for number in same]

    return find


def _without_suffix(file: str) -> str:
    folder = file.rpartition("/")[0]
    return f"{folder}/{stem(file)}"


def _filled(pattern: str, file: str) -> str:
    """A pattern with the fields of an image; characters of its name are not wildcards."""
    numbers = re.findall(r"\d+", stem(file))
    parent = file.rpartition("/")[0] or "."  # otherwise `{parent}/x` would be an absolute path
    values = {"stem": stem(file), "parent": parent, "number": numbers[-1] if numbers else ""}
    fields = {key: re.sub(r"([*?\[])", r"[\1]", value) for key, value in values.items()}
    return re.sub(r"{(\w+)}", lambda match: fields[match[1]], pattern)


def _expand(base: Path, pattern: str, file: str) -> list[Path]:
    """Files that match the pattern for an image; {number} is the last run of digits in its stem."""
    path_pattern = _filled(pattern, file)
    anchor = Path(Path(path_pattern).anchor) if Path(path_pattern).is_absolute() else base
    relative = str(Path(path_pattern).relative_to(anchor)) if Path(path_pattern).is_absolute() else path_pattern
    while relative.startswith("../"):
        anchor, relative = anchor.resolve().parent, relative[3:]
    return sorted(path for path in anchor.glob(relative.lstrip("/")) if path.is_file())


def read_mask_names(option: str | None) -> dict[int, str]:
    """Names of mask values: a JSON file `{"1": "spleen"}`, or `liver,lesion` for 1 and 2.

    Raises:
        SourceError: If the file cannot be read or its keys are not positive integers.
    """
    if option is None:
        return {}
    if not option.lower().endswith(".json"):
        return {value: name.strip() for value, name in enumerate(option.split(","), start=1)}
    try:
        names = json.loads(Path(option).read_text())
        return {int(value): str(name) for value, name in names.items() if int(value) != 0}
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(
            f'--mask-names {option}: {error}. Expected a JSON object such as {{"1": "liver"}}, or liver,lesion.'
        ) from None
