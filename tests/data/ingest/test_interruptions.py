"""Ingests that are interrupted: what is kept, how they go on, and that nothing of them is left."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from ssl_transfer.data import image_files
from ssl_transfer.data.ingest import progress
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.errors import Interrupted, OutputError, UsageError
from ssl_transfer.writing import locked

COUNT = 60


@pytest.fixture
def source(tmp_path):
    """60 pictures, of which one is unreadable."""
    random = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / "source" / f"c{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (6, 8), np.uint8)).save(path)
    damaged = tmp_path / "source" / "c1" / "007.png"
    damaged.write_bytes(damaged.read_bytes()[:-25])
    return tmp_path / "source"


@pytest.fixture
def whole(source, tmp_path):
    """The store of an ingest that nothing interrupts."""
    return ingest(source, tmp_path / "whole", workers=1)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read."""
    names = []
    read = ImagesReader.read

    def counted(self, item):
        names.append(item.file)
        return read(self, item)

    monkeypatch.setattr(ImagesReader, "read", counted)
    return names


def stop_after(monkeypatch, images, error):
    """Let an ingest fail when it writes its n-th image, with a record after every item."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(progress, "SHARE", 0.0)
    append = image_files.ImageFiles.append

    def stopping(self, *arguments, **options):
        if len(self) == images:
            raise error
        append(self, *arguments, **options)

    monkeypatch.setattr(image_files.ImageFiles, "append", stopping)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("images", [1, 33, 58])
def test_an_interrupted_ingest_goes_on_and_gives_the_same_store(
    source, whole, reads, tmp_path, monkeypatch, images, compress
):
    out = tmp_path / "out" / "store"
    with monkeypatch.context() as patch:
        stop_after(patch, images, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(source, out, workers=1, compress=compress)
    assert not out.exists() and [path.name for path in out.parent.iterdir()] == [".store.partial"]
    reads.clear()
    store = ingest(source, out, workers=1, compress=compress)
    assert store.id == whole.id and store.verify() == []
    assert len(reads) <= COUNT - images + 1 and list(out.parent.iterdir()) == [out]
    assert store.card.refused == whole.card.refused and store.card.n_refused == 1


def test_an_ingest_of_other_inputs_does_not_use_what_was_kept(source, tmp_path, monkeypatch, reads):
    out = tmp_path / "out" / "store"
    with monkeypatch.context() as patch:
        stop_after(patch, 30, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(source, out, workers=1)
    reads.clear()
    assert ingest(source, out, workers=1, size=4).shape == (1, 4, 4) and len(reads) == COUNT


@pytest.mark.parametrize("writer", [None, "ssl_transfer 0.0.9, store schema 2"])
def test_an_ingest_that_another_release_began_begins_anew_and_says_so(
    source, whole, tmp_path, monkeypatch, reads, capsys, writer
):
    out = tmp_path / "out" / "store"
    with monkeypatch.context() as patch:
        stop_after(patch, 30, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(source, out, workers=1)
    record = out.parent / ".store.partial" / "progress.json"
    content = json.loads(record.read_text())
    content.pop("writer")
    record.write_text(json.dumps(content | ({"writer": writer} if writer else {})))
    reads.clear()
    assert ingest(source, out, workers=1).id == whole.id and len(reads) == COUNT
    expected = f"store: {writer or 'an older release of ssl_transfer'} began this ingest, but this is {progress.WRITER}"
    assert expected in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_ends_in_one_sentence_and_the_ingest_goes_on_when_there_is_room(
    source, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out" / "store"
    with monkeypatch.context() as patch:
        stop_after(patch, 40, OSError(28, "No space left on device"))
        with pytest.raises(
            OutputError, match=r"store: cannot be written: the disk is full\. .*4. of 60 .*the same command"
        ):
            ingest(source, out, workers=1)
    assert ingest(source, out, workers=1).id == whole.id


def test_a_store_that_does_not_fit_on_the_disk_is_refused_before_pixels_are_read(source, tmp_path, reads, monkeypatch):
    free = type("Usage", (), {"free": 20_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(OutputError, match=r"60 images take 39 kB, but only 20 kB are free.*--compress"):
        ingest(source, tmp_path / "out" / "store", workers=1)
    assert reads == [] and list(tmp_path.glob("out/*")) == []


@pytest.mark.parametrize("out", ["/dev/null", "/proc/store", "/dev/null/store"])
def test_a_path_that_cannot_be_written_is_one_sentence_before_anything_is_read(source, reads, out):
    with pytest.raises((OutputError, UsageError), match=rf"{out}: "):
        ingest(source, out, workers=1)
    assert reads == []


def test_a_second_ingest_into_the_same_folder_is_refused(source, tmp_path):
    out = tmp_path / "out" / "store"
    with locked(out), pytest.raises(OutputError, match="another process is writing it"):
        ingest(source, out, workers=1)


def slow(source: str, out: str) -> None:
    """An ingest in a process of its own that takes a second for 20 images and records every item."""
    progress.SECONDS_BETWEEN = progress.SHARE = 0.0
    append = image_files.ImageFiles.append

    def slowly(self, *arguments, **options):
        time.sleep(0.05)
        append(self, *arguments, **options)

    image_files.ImageFiles.append = slowly
    try:
        ingest(source, out, workers=1)
    except Interrupted as interruption:
        Path(out).with_suffix(".said").write_text(str(interruption))
        os._exit(143)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_ingest_goes_on(source, whole, tmp_path, reads, number):
    out = tmp_path / "out" / "store"
    process = multiprocessing.get_context("fork").Process(target=slow, args=(str(source), str(out)))
    process.start()
    record = out.parent / ".store.partial" / "progress.json"
    while not record.exists() or '"images": 0' in record.read_text():
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == (-9 if number == signal.SIGKILL else 143)
    if number == signal.SIGTERM:
        assert "of 60 files are done" in out.with_suffix(".said").read_text()
    assert ingest(source, out, workers=1).id == whole.id and 0 < len(reads) < COUNT


def test_a_terminated_ingest_leaves_no_worker(source, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=with_workers, args=(str(source), str(tmp_path / "s")))
    process.start()
    parent = psutil.Process(process.pid)
    while len(children := parent.children(recursive=True)) < 2:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode is not None
    assert psutil.wait_procs(children, timeout=5)[1] == []


def with_workers(source: str, out: str) -> None:
    """An ingest whose decoders hang, in two workers."""
    from support.reading import HangingReader

    from ssl_transfer.data.readers.registry import READERS

    READERS["images"] = HangingReader
    try:
        ingest(source, out, workers=2)
    except Interrupted:
        os._exit(143)
