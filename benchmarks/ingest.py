"""Speed of ingest against a plain pydicom loop over the same files, and its memory for each file, measured in one run.

    python benchmarks/ingest.py                             # some minutes, 4 GB of disk
    python benchmarks/ingest.py --slices 300 --rounds 1 --files 300,900     # a trial
    python benchmarks/ingest.py --files 10000,30000,100000  # memory, too: half an hour

The loop is what a researcher writes: `pydicom.dcmread`, `pixel_array`, rescale slope and intercept, int16, one array on the disk
and one table of ids and positions. It runs in one process. `ingest` runs on two cores and also sorts series, hashes ids and
pixels, draws splits, and checks every file. Rounds are interleaved; a ratio is that of the medians over rounds. Files: phantom CT
slices, uncompressed, JPEG-LS and JPEG 2000 (both lossless), read from the page cache. Memory: the largest resident size of the
process that ingests so many small DICOM files; bytes per file are the slope between the smallest and the largest number. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, generate_uid

from ssl_transfer.data.readers.phantom.generate import write_ct
from ssl_transfer.processes import worker_processes

CODECS = {"uncompressed": None, "jpeg_ls": JPEGLSLossless, "jpeg_2000": JPEG2000Lossless}
COMPRESSED_SHARE = 8  # fewer slices of the slow codecs
SMALL = 8  # px of the small files
CORES = 2


def main(arguments: list[str] | None = None) -> None:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=4000, help="uncompressed; of the others an eighth")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of a slice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=_numbers, default=(), metavar="N,N,…", help="small files of the memory test")
    parser.add_argument("--folder", type=Path, help="where to write the files")
    options = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "SSL_TRANSFER_CORES": str(CORES)}
    answer: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        answer |= speed(Path(folder), options)
        if options.files:
            answer |= memory(Path(folder), options.files)
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
    for name, codec in CODECS.items():
        count = options.slices if codec is None else max(50, options.slices // COMPRESSED_SHARE)
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
        dataset.PixelData = np.roll(pixels[which], number, (0, 1)).tobytes()
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
            hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
            pixels.write(np.clip(hu, -1024, 32767).astype(np.int16).tobytes())
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


def ingested(source: Path, out: Path) -> None:
    """Ingest into a new store."""
    from ssl_transfer.data.ingest.stage import ingest

    shutil.rmtree(out, ignore_errors=True)
    ingest(source, out, workers=CORES)


def _timed(function, *arguments) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def memory(folder: Path, counts: tuple[int, ...]) -> dict[str, float]:
    """Measure the memory of an ingest of each number of small files."""
    print(f"{'small files':<16}{'seconds':>10}{'files/s':>10}{'memory, MB':>12}")
    peaks = {}
    for count in counts:
        source = folder / f"small_{count}"
        write_small(source, count)
        seconds, peaks[count] = peak_memory(source, folder / f"store_{count}")
        print(f"{count:<16,}{seconds:>10.1f}{count / seconds:>10.0f}{peaks[count] / 2**20:>12.1f}")
        shutil.rmtree(source)
    few, many = min(counts), max(counts)
    slope = (peaks[many] - peaks[few]) / max(1, many - few)
    print(f"{slope:.0f} bytes for each file")
    return {"bytes_per_file": round(slope, 1), "peak_mb": round(peaks[many] / 2**20, 1)}


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


def peak_memory(source: Path, out: Path) -> tuple[float, int]:
    """Ingest in a process of its own; its seconds, and its largest resident size in bytes."""
    with worker_processes(1) as process:
        return process.submit(_measured, source, out).result()


def _measured(source: Path, out: Path) -> tuple[float, int]:
    seconds = _timed(ingested, source, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
