"""Speed of ingest against a plain pydicom loop over the same files, and its memory for each file, measured in one run.

    python benchmarks/ingest.py                             # some minutes, 4 GB of disk
    python benchmarks/ingest.py --slices 300 --rounds 1 --files 300,900     # a trial
    python benchmarks/ingest.py --only-memory --files 10000,30000,100000    # memory
    python benchmarks/ingest.py --only-steps                # some seconds: the time of each step for one slice

The loop is what a researcher writes: `pydicom.dcmread`, `pixel_array`, rescale slope and intercept, int16, one array on the disk
and one table of ids and positions. It runs in one process. `ingest` runs on two cores and also sorts series, hashes ids and
pixels, draws splits, and checks every file. Rounds are interleaved; a ratio is that of the medians over rounds. Files: phantom CT
slices, uncompressed, JPEG-LS and JPEG 2000 (both lossless), read from the page cache. Each run begins when what earlier ones
wrote is on the disk. JPEG 2000 is measured twice: few slices, of which the start of the workers is a part, and many. Memory:
the largest resident size of the process that ingests so many small files of each kind (DICOM, pictures, pictures with masks and a
label table, NIfTI); bytes per file are the slope between the smallest and the largest number. Steps: time of each step of ingest
and of the loop for one uncompressed slice on one core. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, generate_uid

from ssl_transfer.data.digests import pixel_digest
from ssl_transfer.data.image_files import ImageFiles
from ssl_transfer.data.ingest.decoding import Decoding
from ssl_transfer.data.ingest.fit import choose_fit
from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.dicom_header import classify, read_header
from ssl_transfer.data.readers.phantom.generate import write_ct
from ssl_transfer.data.readers.workers import freed_memory_kept
from ssl_transfer.measures.fingerprint import fingerprint
from ssl_transfer.messages import mapped, new_memory, receive, send
from ssl_transfer.processes import worker_processes

MEASURED = {  # name -> codec, and the share of --slices that is written: fewer of the slow codecs
    "uncompressed": (None, 1),
    "jpeg_ls": (JPEGLSLossless, 2),
    "jpeg_2000": (JPEG2000Lossless, 8),
    "jpeg_2000_many": (JPEG2000Lossless, 2),
}
SMALL = 8  # px of the small DICOM files
KINDS = ("dicom", "pictures", "masked", "nifti")  # of small files; masked: pictures with masks and a label table
CORES = 2


def main(arguments: list[str] | None = None) -> None:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--slices",
        type=int,
        default=4000,
        help="uncompressed; of JPEG-LS half of them, of JPEG 2000 an eighth and half",
    )
    parser.add_argument("--size", type=int, default=512, help="rows and columns of a slice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=_numbers, default=(), metavar="N,N,…", help="small files of the memory test")
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=KINDS, help=f"of these: {','.join(KINDS)}"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--only-memory", action="store_true", help="without the measurement of speed")
    only.add_argument("--only-steps", action="store_true", help="the time of each step, and nothing else")
    parser.add_argument("--folder", type=Path, help="where to write the files")
    options = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "SSL_TRANSFER_CORES": str(CORES)}
    answer: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.only_steps:
            answer |= steps(Path(folder), options.size)
        elif not options.only_memory:
            answer |= speed(Path(folder), options)
        if options.files:
            answer |= memory(Path(folder), options.files, options.kinds)
    print(json.dumps(answer))


def speed(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure slices per second, print a table, return the ratios."""
    print(
        f"{os.cpu_count()} cores, {CORES} used; slices of {options.size} px; slices per second, median of {options.rounds}:"
    )
    print(f"{'':<16}{'slices':>8}{'pydicom loop':>14}{'ingest':>10}{'ratio':>8}")
    ratios = {}
    write_archive(folder / "first", 8, 64, None)
    ingested(folder / "first", folder / "store")  # imports everything
    for name, (codec, share) in MEASURED.items():
        count = max(50, options.slices // share)
        archive = folder / name
        files = write_archive(archive, count, options.size, codec)
        seconds: dict[str, list[float]] = {"loop": [], "ingest": []}
        for path in files:  # into the page cache
            path.read_bytes()
        for _ in range(options.rounds):
            seconds["loop"].append(_timed(plain_loop, files, folder / "loop"))
            seconds["ingest"].append(_timed(ingested, archive, folder / "store"))
        loop, ours = (count / statistics.median(seconds[key]) for key in ("loop", "ingest"))
        ratios[f"{name}_over_loop"] = round(ours / loop, 3)
        print(f"{name:<16}{count:>8,}{loop:>14,.0f}{ours:>10,.0f}{ours / loop:>8.2f}")
        shutil.rmtree(archive)
    return ratios


def steps(folder: Path, size: int, files: int = 48, runs: int = 9) -> dict[str, float]:
    """Measure the milliseconds that each step takes for an uncompressed slice: shortest of some runs, mean over files."""
    reader = DicomReader(folder / "archive")
    paths = write_archive(folder / "archive", files, size, None)
    items = list(reader.scan().items)
    fit = choose_fit(items, "hu", None, None, None)
    images = [image for item in items for image, _, _ in reader.read(item)]
    given = [Decoding(reader, fit)(item) for item in items]
    there, here = multiprocessing.Pipe()
    shared = mapped(new_memory())

    def header(path: Path) -> None:
        classify(path.name, path, read_header(path), broken=False)

    def message(written: Any) -> None:
        send(there, written, shared)
        receive(here, shared)

    (folder / "shards").mkdir()
    with freed_memory_kept():
        stored = ImageFiles(folder / "shards", folder / "rows", images[0].shape, images[0].dtype, None, False)
        measured = {
            "header": _shortest(header, paths, runs),
            "pixels to HU": _shortest(lambda item: list(reader.read(item)), items, runs),
            "digest": _shortest(pixel_digest, images, runs),
            "fingerprint": _shortest(fingerprint, images, runs),
            "message": _shortest(message, given, runs),
            "write": _shortest(lambda one: stored.append(one[0][0], {"file": "a"}, None, one[0][3]), given, runs),
            "loop: header": _shortest(pydicom.dcmread, paths, runs),
            "loop: to HU": _shortest(lambda path: in_hu(pydicom.dcmread(path)), paths, runs),
        }
    for name, milliseconds in measured.items():
        print(f"{name:<16}{milliseconds:>8.3f} ms")
    return {name: round(milliseconds, 3) for name, milliseconds in measured.items()}


def _shortest(step: Callable[[Any], Any], inputs: Sequence[Any], runs: int) -> float:
    """Milliseconds of a step: the shortest of some runs for each input, mean over inputs."""
    seconds = [[_elapsed(step, one) for one in inputs] for _ in range(runs)]
    return 1000 * statistics.mean(map(min, zip(*seconds, strict=True)))


def _elapsed(step: Callable[[Any], Any], one: Any) -> float:
    began = time.perf_counter()
    step(one)
    return time.perf_counter() - began


def write_archive(folder: Path, count: int, size: int, codec: str | None) -> list[Path]:
    """Write phantom CT series of so many slices in total; a few of the slices are drawn, and shifted to be different."""
    drawn = folder.parent / f"drawn_{size}"
    if not drawn.exists():
        write_ct(drawn, patients=1, slices=8, size=size)
    templates = [pydicom.dcmread(path) for path in sorted(drawn.rglob("*.dcm"))]
    pixels = [template.pixel_array for template in templates]
    folder.mkdir()
    files = []
    for number in range(count):
        which = number % len(templates)
        dataset = copy.deepcopy(templates[which])
        series, position = divmod(number, 200)
        shifted = np.roll(pixels[which], number, (0, 1))
        shifted[0, :2] = number % 2048, number // 2048
        dataset.PixelData = shifted.tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        dataset.PatientID, dataset.StudyInstanceUID = f"P{series:05d}", f"1.2.3.{series}"
        dataset.SeriesInstanceUID, dataset.InstanceNumber = f"1.2.3.{series}.1", position + 1
        dataset.ImagePositionPatient = [0, 0, float(position)]
        if codec is not None:
            dataset.compress(codec, generate_instance_uid=False)
        files.append(folder / f"{number:06d}.dcm")
        dataset.save_as(files[-1])
    return files


def plain_loop(files: list[Path], out: Path) -> None:
    """Read files as a script does: pixels in HU into one array on the disk, ids and positions into a table."""
    rows = []
    with open(out, "wb") as pixels:
        for path in files:
            dataset = pydicom.dcmread(path)
            pixels.write(in_hu(dataset).tobytes())
            rows.append(
                {
                    "patient": dataset.PatientID,
                    "series": dataset.SeriesInstanceUID,
                    "slice": int(dataset.InstanceNumber),
                    "z_mm": float(dataset.ImagePositionPatient[2]),
                    "spacing_mm": float(dataset.PixelSpacing[0]),
                }
            )
    pandas.DataFrame(rows).sort_values(["patient", "series", "z_mm"]).to_parquet(f"{out}.parquet")


def in_hu(dataset: pydicom.Dataset) -> np.ndarray:
    """Pixels in HU, int16, as a script computes them."""
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    return np.clip(hu, -1024, 32767).astype(np.int16)


def ingested(source: Path, out: Path, given: Mapping[str, Any] = {}) -> None:
    """Ingest into a new store, with the given options."""
    from ssl_transfer.data.ingest.stage import ingest

    shutil.rmtree(out, ignore_errors=True)
    ingest(source, out, workers=CORES, **given)


def _timed(function, *arguments) -> float:
    os.sync()
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def memory(folder: Path, counts: tuple[int, ...], kinds: Sequence[str] = KINDS) -> dict[str, float]:
    """Measure the memory of an ingest of each number of small files, for each kind of them."""
    print(f"{'small files':<12}{'files':>10}{'seconds':>10}{'files/s':>10}{'memory, MB':>12}")
    answer = {}
    for kind in kinds:
        peaks = {}
        for count in counts:
            source = folder / f"{kind}_{count}"
            source.mkdir()
            given = WRITERS[kind](source, count)
            seconds, peaks[count] = peak_memory(source / "files", folder / f"store_{kind}_{count}", given)
            print(
                f"{kind:<12}{count:>10,}{seconds:>10.1f}{count / seconds:>10.0f}{peaks[count] / 2**20:>12.1f}",
                flush=True,
            )
            shutil.rmtree(source)
        few, many = min(counts), max(counts)
        slope = (peaks[many] - peaks[few]) / max(1, many - few)
        print(f"{kind}: {slope:.0f} bytes for each file")
        answer |= {f"{kind}_bytes_per_file": round(slope, 1), f"{kind}_peak_mb": round(peaks[many] / 2**20, 1)}
    return answer


def write_dicom(folder: Path, count: int) -> dict[str, Any]:
    """CT files, 50 in a series."""
    write_small(folder / "files", count)
    return {}


def write_pictures(folder: Path, count: int) -> dict[str, Any]:
    """PNG files of a patient each, in two folders."""
    for number in range(count):
        _write_png(folder / f"files/{'ab'[number % 2]}/P{number:07d}_1.png", number)
    return {"patient_from": "{patient}_*"}


def write_masked(folder: Path, count: int) -> dict[str, Any]:
    """PNG files with a mask and a row of a label table each."""
    with open(folder / "labels.csv", "w") as table:
        table.write("file,patient,label,age\n")
        for number in range(count):
            _write_png(folder / f"files/{number // 1000:04d}/{number:07d}.png", number)
            _write_png(folder / f"masks/{number // 1000:04d}/{number:07d}.png", number, mask=True)
            table.write(
                f"{number // 1000:04d}/{number:07d}.png,P{number // 2:07d},{'ill' if number % 3 else 'well'},{number % 90}\n"
            )
    return {"masks": folder / "masks", "labels": folder / "labels.csv"}


def write_nifti(folder: Path, count: int) -> dict[str, Any]:
    """NIfTI volumes of two slices, uncompressed, of a patient each."""
    import nibabel

    (folder / "files").mkdir()
    template = nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)).to_bytes()
    for number in range(count):
        values = np.full(32, number % 3000, np.int16)
        values[:2] = number % 251, number // 251 % 251
        (folder / f"files/case_{number:07d}.nii").write_bytes(template[:-64] + values.tobytes())
    return {}


def _write_png(path: Path, number: int, *, mask: bool = False) -> None:
    """A grey PNG file of 8 x 8 pixels, different for each number; or a mask of 0 and 1."""
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
    if not mask:
        values = values * 100
        values.flat[:4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
    scanlines = zlib.compress(b"".join(b"\0" + line.tobytes() for line in values), 1)
    header = (8).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", scanlines) + _chunk(b"IEND", b""))


def _chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


WRITERS = {"dicom": write_dicom, "pictures": write_pictures, "masked": write_masked, "nifti": write_nifti}


def write_small(folder: Path, count: int) -> None:
    """Write CT files of 8 x 8 pixels, 50 in a series, by editing the bytes of one."""
    template = small_file(folder.parent)
    for number in range(count):
        series, position = divmod(number, 50)
        content = template.replace(b"1.2.3.1000000000", b"1.2.3.1%09d" % number)  # SOPInstanceUID
        content = content.replace(b"9.8.7.10000000", b"9.8.7.1%07d" % series).replace(
            b"P00000000", b"P%08d" % (series // 2)
        )
        content = content.replace(b"0\\0\\0000", b"0\\0\\%04d" % position)
        content = content[:-8] + number.to_bytes(8, "little")
        path = folder / f"{series:06d}" / f"{position:03d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def small_file(folder: Path) -> bytes:
    """The bytes of a CT file of 8 x 8 pixels whose ids have a fixed length."""
    if not (folder / "template").exists():
        write_ct(folder / "template", patients=1, slices=1, size=SMALL)
    dataset = pydicom.dcmread(next((folder / "template").rglob("*.dcm")))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1000000000"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "9.8.7.10000000", "9.8.7.10000000"
    dataset.PatientID = "P00000000"
    dataset.save_as(folder / "template.dcm")
    content = (folder / "template.dcm").read_bytes()
    element = b"\x20\x00\x32\x00DS"
    start = content.index(element)
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    return content[: start + 6] + (8).to_bytes(2, "little") + b"0\\0\\0000" + content[start + 8 + length :]


def peak_memory(source: Path, out: Path, given: Mapping[str, Any]) -> tuple[float, int]:
    """Ingest in a process of its own; its seconds, and its largest resident size in bytes."""
    with worker_processes(1) as process:
        return process.submit(_measured, source, out, given).result()


def _measured(source: Path, out: Path, given: Mapping[str, Any]) -> tuple[float, int]:
    seconds = _timed(ingested, source, out, given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
