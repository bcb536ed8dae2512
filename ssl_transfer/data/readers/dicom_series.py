"""Units of DICOM images, decided for each series and then for the source.

An image is in HU if its header says so: a grey CT object of a CT SOP class, with a rescale slope and intercept (or a modality
lookup table), whose rescale type is HU or not stated. A series that disagrees with itself is repaired only where its other images
prove the value; otherwise the image is refused with the reason. A source in HU contains nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl_transfer.data.readers.dicom_coding import Rescale, Span, rescale_text
from ssl_transfer.data.readers.dicom_header import ImageFile
from ssl_transfer.data.readers.reader import Refusal
from ssl_transfer.domains import UNKNOWN

CT_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PARAMETRIC = {"CBF", "CBV", "MTT", "TTP", "TMAX", "PERMEABILITY", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"}  # of ImageType
WITNESSES = 2  # images of a series that have to agree to prove the rescale of another one
MAJORITY = 0.75  # share of a series that has to agree before a deviating image is refused
RARE = 0.25  # share of a source below which its images in HU, or the others, are set aside
NO_RESCALE = "states no rescale slope and intercept"


@dataclass(slots=True)
class Judged:
    """An image and what its series says about its units.

    Attributes:
        image: The image.
        not_hu: Why it is not in HU; None: it is.
        proved: Rescale that its series proves; None: its own is used.
        refused: Why it is not read, whatever the other series are; None: it can be read.
    """

    image: ImageFile
    not_hu: str | None
    proved: Rescale | None = None
    refused: str | None = None

    @property
    def group(self) -> str:
        """`hu`, `odd` (CT that is not in HU) or `other` (of another modality)."""
        if self.not_hu is None:
            return "hu"
        return "odd" if self.image.modality in ("CT", None) else "other"


def judge_series(members: Sequence[ImageFile]) -> list[Judged]:
    """Decide for each image of a series whether it is in HU, by its own header and that of the others."""
    judged = [Judged(image, why_not_hu(image), refused=_inconsistent(image)) for image in members]
    for group in _alike(judged).values():
        _complete_rescale(group)
        _refuse_deviating(group)
        _admit_odd_class(group)
    return judged


def why_not_hu(image: ImageFile) -> str | None:
    """Why an image is not in HU by its own header; None if it is."""
    coding = image.coding
    modality = image.modality or ("CT" if image.sop_class in CT_IMAGES else None)
    if modality != "CT":
        return f"its modality is {modality or 'not stated'}"
    if coding.kind != "grey":
        return "a colour image"
    if image.sop_class.startswith(SECONDARY_CAPTURE):
        return "a screen capture"
    if coding.rescale_type not in (None, "HU"):
        return f"its rescale type is {coding.rescale_type}"
    if coding.rescale_type is None and image.sop_class not in CT_IMAGES:
        return f"its SOP class is {_class_name(image.sop_class)}, not a CT image"
    parameter = next((kind for kind in image.image_type if kind in PARAMETRIC), None)
    if parameter:
        return f"ImageType names a parameter map ({parameter})"
    if coding.table:
        return None if coding.rescale_type == "HU" else "the units of its modality lookup table are not stated"
    return NO_RESCALE if None in coding.rescales else None


def _inconsistent(image: ImageFile) -> str | None:
    """Why the frames of an image have no common scale; None if they have one."""
    rescales = image.coding.rescales
    if None in rescales and len(rescales) > 1:
        return "some of its frames state rescale slope and intercept, and others do not"
    return None


def _alike(judged: Sequence[Judged]) -> dict[tuple, list[Judged]]:
    """Images of a series with the same coding of stored values: only these can stand in for each other."""
    groups: dict[tuple, list[Judged]] = defaultdict(list)
    for one in judged:
        coding = one.image.coding
        if coding.kind == "grey" and not coding.table and len(coding.rescales) == 1:
            key = (one.image.modality, coding.bits, coding.allocated, coding.signed, coding.photometric)
            groups[key].append(one)
    return groups


def _complete_rescale(group: list[Judged]) -> None:
    """Give images without rescale slope and intercept those of the others, if all others agree."""
    missing = [one for one in group if one.image.coding.rescales == (None,)]
    stated = Counter(one.image.coding.rescales[0] for one in group if one.image.coding.rescales[0])
    if not missing or not stated:
        return
    [(value, count)] = stated.most_common(1)
    proves = len(stated) == 1 and count >= WITNESSES and count >= len(missing)
    for one in missing:
        if proves:
            one.proved = value
            one.not_hu = None if one.not_hu == NO_RESCALE else one.not_hu
        else:
            pairs = ", ".join(f"{slope:g};{intercept:g}" for slope, intercept in list(stated)[:3] if slope is not None)
            one.refused = f"{NO_RESCALE}, and the other images of its series do not prove it ({pairs})"


def _refuse_deviating(group: list[Judged]) -> None:
    """Refuse CT images with another rescale than almost all images of their series that are coded alike."""
    stated = Counter(one.image.coding.rescales[0] for one in group if one.image.coding.rescales[0])
    if len(stated) < 2 or any(one.image.modality != "CT" for one in group):
        return
    value, count = stated.most_common(1)[0]
    if value is None or count <= WITNESSES or count < MAJORITY * sum(stated.values()):
        return
    for one in group:
        own = one.image.coding.rescales[0]
        if own and own != value:
            one.refused = (
                f"its rescale slope and intercept are {own[0]:g} and {own[1]:g}, but {value[0]:g} and {value[1]:g} in {count} "
                "images of its series that are coded alike"
            )


def _admit_odd_class(group: list[Judged]) -> None:
    """Admit an image without a SOP class, or with a private one, whose series is in HU with the same rescale and size."""
    in_hu = [one for one in group if one.not_hu is None and not one.refused]
    proofs = Counter((one.image.coding.rescales, one.image.item.size) for one in in_hu)
    for one in group:
        image = one.image
        is_odd = image.sop_class not in CT_IMAGES and not image.sop_class.startswith("1.2.840.10008.")
        key = (image.coding.rescales, image.item.size)
        if is_odd and one.not_hu and image.coding.rescale_type is None and proofs[key] >= WITNESSES:
            one.not_hu = None


class UnitPolicy:
    """What is set aside so that all grey images of a source have one unit, or none has.

    First all images are counted, then each is settled.

    Args:
        domain: The `--domain` option: with `ct…` only HU are kept, with another one all grey images as stored, with `unknown`
            also colour among grey. None: images of other modalities and images in HU exclude each other if one of them is rare
            (below a quarter).
    """

    def __init__(self, domain: str | None):
        self.domain = domain
        self.images: Counter[str] = Counter()  # by group
        self.deep: set[str | None] = set()  # modalities with grey images of more than 8 bits
        self.repaired: Counter[tuple] = Counter()  # files by series
        self.set_aside: Counter[str] = Counter()  # images by reason
        self.odd_ct: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()  # files in HU without a CT class
        self.without_air = 0  # images in HU whose headers allow no value below 0

    def count(self, judged: Iterable[Judged]) -> None:
        """Count the images of a series."""
        for one in judged:
            if one.refused:
                continue
            self.images[one.group] += one.image.item.n_images
            if one.image.coding.kind == "grey" and (one.image.coding.bits or 32) > 8:
                self.deep.add(one.image.modality)

    @property
    def in_hu(self) -> bool:
        """Whether the store is in HU."""
        if self.domain is not None:
            return self.domain.startswith("ct")
        return self.images["hu"] > 0 and (not self.images["other"] or self._is_rare("other"))

    def settle(self, one: Judged) -> Refusal | None:
        """Write the decision into the item of an image, or refuse it."""
        item = one.image.item
        reason = one.refused or self._excluded(one)
        if reason:
            if not one.refused:
                self.set_aside[reason] += item.n_images
            return Refusal(item.file, "filtered", reason, item.row)
        if one.proved:
            self.repaired[tuple(item.row[name] for name in ("patient", "study", "series"))] += 1
        if one.group == "odd":
            self.odd_ct[one.not_hu or ""] += item.n_images
        if self.in_hu and one.image.sop_class not in CT_IMAGES:
            self.classes["other"] += 1
        self.classes["unstated"] += self.in_hu and not one.image.states_class
        _record(one, in_hu=self.in_hu)
        if self.in_hu and item.depth is not None and item.depth[0] >= 0:
            self.without_air += item.n_images
        return None

    def warnings(self) -> list[str]:
        """What was decided, for the card."""
        notes = []
        if self.repaired:
            notes.append(
                f"{sum(self.repaired.values())} image file(s) of {len(self.repaired)} series state no rescale slope and "
                "intercept, and have those of all other images of their series (column rescale)"
            )
        if self.set_aside:
            notes.append(
                f"{sum(self.set_aside.values())} image(s) were set aside ({_listed(self.set_aside)}). --modality keeps one "
                "modality, --domain unknown keeps all images as stored"
            )
        if self.odd_ct:
            notes.append(f"CT images that are not in Hounsfield units are kept as stored: {_listed(self.odd_ct)}")
        if self.without_air:
            notes.append(
                f"{self.without_air} image(s) read as HU cannot have values below 0, by the bits, slope and intercept in their "
                "headers, although CT has air: they may be shifted or windowed. Look at them; --domain unknown keeps them as "
                "stored"
            )
        if any(self.classes.values()):
            notes.append(
                f"{self.classes['unstated']} file(s) without a SOP class and {self.classes['other']} of a SOP class other than "
                "CT are read as HU, because the file meta information, the rescale type or the series says so"
            )
        return notes

    def _excluded(self, one: Judged) -> str | None:
        """Why an image is not kept beside the others."""
        if self.in_hu:
            if one.group == "hu":
                return None
            if one.group == "odd" or self.domain is not None:
                return f"not in Hounsfield units, unlike other images of the source: {one.not_hu}"
            return f"{one.not_hu}, but most images of the source are CT in Hounsfield units"
        if self.domain is None and self.images["hu"]:
            if one.group == "odd":
                return f"not in Hounsfield units, unlike other images of the source: {one.not_hu}"
            if one.group == "hu" and self._is_rare("hu"):
                return "CT in Hounsfield units among other modalities"
        if self.domain != UNKNOWN and one.image.coding.kind != "grey" and one.image.modality in self.deep:
            return "a colour image among grey images of its modality"
        return None

    def _is_rare(self, group: str) -> bool:
        return self.images[group] < RARE * (self.images["hu"] + self.images["other"])


def _listed(counts: Counter[str]) -> str:
    return "; ".join(f"{count} × {reason}" for reason, count in counts.most_common(3))


def _record(one: Judged, *, in_hu: bool) -> None:
    """Write the decision into the item: dtype, range, and the columns `intensity` and `rescale`."""
    item, coding = one.image.item, one.image.coding
    item.row["intensity"] = "hu" if in_hu else None if coding.kind == "grey" else coding.kind
    own = coding.rescales[0] or one.proved
    item.row["rescale"] = "table" if coding.table else None if own is None else rescale_text(own)
    item.dtype = coding.dtype(hu=in_hu, rescale=one.proved)
    if one.proved:
        item.depth = coding.physical(one.proved)
    if coding.is_inverted and not in_hu:
        item.window = _inverted(item.window, item.depth)
        item.windows = item.windows and tuple(_inverted(window, item.depth) for window in item.windows)


def _inverted(window: Span | None, depth: Span | None) -> Span | None:
    """A window of values that are inverted about the range of their bits; None if either is unknown."""
    return None if window is None or depth is None else (sum(depth) - window[1], sum(depth) - window[0])


def _class_name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name if uid else "not stated"
