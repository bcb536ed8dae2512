"""The archive of somebody who reads the documentation, and the commands of all its pages, run in their order."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.command_line import ROOT
from support.documentation import COMMANDS, LONG_COMMANDS, perform
from support.radiographs import write_image


@pytest.fixture(scope="package")
def checkout(tmp_path_factory) -> Path:
    """A working directory with what a checkout has, and with files to ingest."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("recipes", "launch", "pretrain.py"):
        (folder / name).symlink_to(ROOT / name)
    make_archive(folder)
    make_volumes(folder / "volumes")
    make_biopsies(folder)
    make_breast(folder)
    make_checkpoint(make_folder(folder / "checkpoints") / "moco_ct.pth.tar")
    rng = np.random.default_rng(0)
    for number in range(24):
        class_folder = folder / "pictures" / ("cat", "dog")[number % 2]
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 32, 3), np.uint8)).save(class_folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 32), np.uint8)).save(make_folder(folder / "cells") / f"{number}.png")
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (40, 32))
        Image.fromarray(mask).save(make_folder(folder / "cell_masks") / f"{number}.png")
    arrays = {}
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(folder / "medmnist.npz", **arrays)
    for number, bits in enumerate((8, 10, 12, 14)):
        radiograph = rng.integers(0, 2**bits, (24, 20)).astype(np.uint16)
        window = {"WindowCenter": 2**bits / 2, "WindowWidth": 2**bits}
        write_image(folder / "radiographs" / f"p{number}.dcm", radiograph, bits=bits, **window)
    return folder


def make_archive(folder: Path) -> None:
    """`archive`: DICOM series of eight patients; `labels.csv`: a label for each."""
    from ssl_transfer.data.readers.phantom.generate import expand

    source = Path(expand("phantom:ct,patients=8,slices=6,size=32", folder / "phantom")["source"])
    shutil.move(source, folder / "archive")
    shutil.rmtree(folder / "phantom")
    patients = sorted({path.name.partition("-")[0] for path in (folder / "archive").iterdir()})
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("patient", "label"), *((patient, "ab"[int(patient[1:]) % 2]) for patient in patients)]
        )


def make_biopsies(folder: Path) -> None:
    """`biopsies`: pictures of eighty patients; `outcomes.csv`: findings, grade, age and survival of each."""
    rng, rows = np.random.default_rng(0), []
    for number in range(80):
        level = rng.random()
        name, days = f"b{number:02d}.png", round(float(rng.exponential(3000 * np.exp(-5 * level))), 1)
        pixels = 40 + 150 * level + 30 * rng.random((32, 32))
        Image.fromarray(pixels.astype(np.uint8)).save(make_folder(folder / "biopsies") / name)
        findings = [int(rng.random() < share) for share in (level, 0.4)]
        grade = ("low", "intermediate", "high")[int(3 * level)]
        rows.append(
            (name, f"b{number:02d}", *findings, grade, round(40 + 30 * level), min(days, 1000), int(days <= 1000))
        )
    header = ("file", "patient", "necrosis", "inflammation", "grade", "age", "days", "died")
    with open(folder / "outcomes.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def make_breast(folder: Path) -> None:
    """`breast`: pictures of twelve patients; `breast.csv`: the patient and the diagnosis of each picture."""
    rng, rows = np.random.default_rng(0), []
    for number in range(36):
        name, diagnosis = f"US{number:03d}.png", ("benign", "malignant", "normal")[number // 3 % 3]
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(make_folder(folder / "breast") / name)
        rows.append((name, f"P{number // 3:03d}", diagnosis))
    with open(folder / "breast.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "patient_id", "diagnosis"), *rows])


def make_checkpoint(path: Path) -> None:
    """A checkpoint of MoCo v2 with random weights: two encoders in DistributedDataParallel, and a queue."""
    import torch
    from torchvision.models import resnet18

    state = {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    for encoder in ("encoder_q", "encoder_k"):
        tensors = {**resnet18(num_classes=128).state_dict(), "fc.2.weight": torch.zeros(128, 128)}
        state |= {f"module.{encoder}.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state}, path)


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_volumes(folder: Path) -> None:
    """Two CT volumes with a label volume beside each."""
    folder.mkdir()
    for stem in "ab":
        hu = np.random.default_rng(ord(stem)).integers(-1000, 1000, (24, 20, 12)).astype(np.int16)
        labels = np.zeros(hu.shape, np.uint8)
        labels[4:12, 4:12], labels[6:8, 6:8] = 1, 2
        for name, values in ((stem, hu), (f"{stem}_seg", labels)):
            nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])).to_filename(folder / f"{name}.nii.gz")


@pytest.fixture(scope="package")
def answers(checkout):
    """The answer of every command but the long ones; a command starts where the one before it ended."""
    return {command: perform(command, checkout) for command in COMMANDS if command not in LONG_COMMANDS}


@pytest.fixture(scope="package")
def long_answers(checkout, answers):
    """The answers of the long commands, which start where the others ended."""
    return {command: perform(command, checkout) for command in LONG_COMMANDS}
