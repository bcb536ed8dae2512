"""Two thousand mutated files of every kind that a reader takes: no crash, no hang, each is stored or listed."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from support.command_line import run

from ssl_transfer.data.store import ImageStore

MUTATIONS = 2000
PER_INGEST = 100  # files; more of them in one folder take more processes down together
LIMIT_SECONDS = 300  # of one ingest

DICOM = (  # that pydicom ships: uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000, palette, colour, several frames, float, RT
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
    "JPGExtended.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "rtdose.dcm",
    "image_dfl.dcm",
)


def dicom_files(folder: Path) -> list[bytes]:
    """Files of pydicom itself, those that this installation has."""
    found = []
    for name in DICOM:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = get_testdata_file(name, download=False)
        if path:
            found.append(Path(path).read_bytes())
    assert len(found) >= 8
    return found


def nifti_files(folder: Path) -> list[bytes]:
    """Volumes, plain and compressed."""
    draw, found = np.random.default_rng(0), []
    for number, kind in enumerate((np.int16, np.float32, np.uint8)):
        path = folder / f"{number}.nii"
        nibabel.save(nibabel.Nifti1Image(draw.integers(0, 200, (12, 12, 4)).astype(kind), np.eye(4)), path)
        found += [path.read_bytes(), gzip.compress(path.read_bytes())]
    return found


def picture_files(folder: Path) -> list[bytes]:
    """Pictures of every format that the reader takes."""
    draw, found = np.random.default_rng(0), []
    for suffix, shape in (
        ("png", (20, 24)),
        ("png", (20, 24, 3)),
        ("jpg", (20, 24, 3)),
        ("tif", (20, 24)),
        ("bmp", (20, 24)),
    ):
        path = folder / f"{len(found)}.{suffix}"
        Image.fromarray(draw.integers(0, 255, shape).astype(np.uint8)).save(path)
        found.append(path.read_bytes())
    return found


def suffix_of(content: bytes, kind: str) -> str:
    """The suffix that a file of a kind has in an archive."""
    if kind == "dicom":
        return ".dcm"
    if kind == "nifti":
        return ".nii.gz" if content[:2] == b"\x1f\x8b" else ".nii"
    signs = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp"}
    return next((suffix for sign, suffix in signs.items() if content.startswith(sign)), ".tif")


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def bits(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 3, 30))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def header(content: bytearray, draw: random.Random) -> None:
    for _ in range(8):
        content[draw.randrange(min(len(content), 1500))] = draw.randrange(256)


def number(content: bytearray, draw: random.Random) -> None:
    """An extreme number somewhere, such as in the place of a length or a size."""
    value = struct.pack("<I", draw.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1)))
    at = draw.randrange(max(1, min(len(content), 3000) - 4))
    content[at : at + 4] = value


def block(content: bytearray, draw: random.Random) -> None:
    at, size = draw.randrange(len(content)), draw.choice((4, 64, 1000))
    content[at : at + size] = draw.choice((bytes(size), b"\xff" * size, draw.randbytes(size), b""))


def twice(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content))
    content[at:at] = content[at : at + draw.choice((1, 16, 500))]


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (cut, bits, header, number, block, twice)
KINDS = {"dicom": dicom_files, "nifti": nifti_files, "images": picture_files}


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One or two changes of a file; a file is never longer than a few more bytes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2))):
        draw.choice(CHANGES)(changed, draw)
        if not changed:
            break
    return bytes(changed)


def write_archive(kind: str, folder: Path, seed: int, count: int) -> int:
    """Some whole files and `count` mutated ones; returns how many there are."""
    (scratch := folder / "scratch").mkdir(parents=True)
    (archive := folder / "archive" / "case").mkdir(parents=True)
    seeds, draw = KINDS[kind](scratch), random.Random(f"{kind} {seed}")
    for position, content in enumerate(seeds):
        (archive / f"whole{position:03d}{suffix_of(content, kind)}").write_bytes(content)
    for position in range(count):
        content = draw.choice(seeds)
        (archive / f"mutated{position:04d}{suffix_of(content, kind)}").write_bytes(mutated(content, draw))
    return len(seeds) + count


@pytest.mark.long
@pytest.mark.parametrize("seed", range(-(-MUTATIONS // PER_INGEST)))
def test_mutated_files_are_stored_or_listed(tmp_path, seed):
    kind = ("dicom", "nifti", "images")[seed % 3]
    files = write_archive(kind, tmp_path, seed, PER_INGEST)
    started = time.monotonic()
    words = [
        "ingest",
        "archive",
        "--out",
        "store",
        "--size",
        "16",
        "--max-refused",
        "1",
        "--format",
        kind,
        "--workers",
        "2",
    ]
    domain = [] if kind == "dicom" else ["--domain", "mr"]
    answer = run([sys.executable, "-m", "ssl_transfer", *words, *domain, "--json"], tmp_path, timeout=LIMIT_SECONDS)
    assert time.monotonic() - started < LIMIT_SECONDS
    assert "Traceback" not in answer.stderr, answer.stderr[-3000:]
    found = answer.json
    stored = {name.partition("#")[0] for name in ImageStore(tmp_path / "store").column("file")}
    listed = {entry["file"].partition("#")[0] for entry in found["refused"]}
    assert len(stored | listed) == files, f"{files} files, {len(stored)} stored, {len(listed)} listed"
    assert stored and not list(tmp_path.glob(".*partial*"))


def test_the_mutations_are_what_they_are_said_to_be(tmp_path):
    """Files differ from their seeds, and the same seed makes the same files."""
    for name in ("a", "b"):
        write_archive("images", tmp_path / name, 0, 20)
    contents = [[path.read_bytes() for path in sorted((tmp_path / name).rglob("mutated*"))] for name in ("a", "b")]
    wholes = {path.read_bytes() for path in (tmp_path / "a").rglob("whole*")}
    assert contents[0] == contents[1] and len(contents[0]) == 20
    assert sum(content not in wholes for content in contents[0]) >= 18
