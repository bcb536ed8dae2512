"""Phantoms: three generated domains, written as ordinary files that the readers read.

`phantom:ct` is a cohort of DICOM series with body regions and masks of liver and lesions; `phantom:cells` is fluorescence
microscopy of cell lines; `phantom:photographs` are crops of the photographs in the wheels of scikit-image and scikit-learn.
Neither an image archive nor a network is needed. Equal options give equal bytes.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ssl_transfer.errors import SourceError, nearest

if TYPE_CHECKING:
    from pydicom.uid import UID

PREFIX = "phantom:"
# Options of all phantoms. A "patient" is a group of a split: a patient (ct), a well (cells), or a tile of a photograph.
LIMITS = {"patients": (1, 9999), "slices": (1, 999), "size": (16, 1024), "seed": (0, 2**31 - 1)}


def expand(source: str, folder: Path) -> dict:
    """Generate the files of a phantom, and return how to ingest them.

    Args:
        source: `phantom:NAME[,key=value…]`: ct, cells or photographs; patients, slices (images of each patient), size
            (pixels), seed.
        folder: Folder of the files, missing or empty.

    Returns:
        Keyword arguments of `ingest`: `source`, `format` and `domain`, and if the phantom has them `masks`, `mask_names`,
        `labels` and `label_key`.

    Raises:
        SourceError: If the name or an option is unknown, or a value is not an integer in its range.

    Example:
        >>> expand("phantom:ct,patients=2,slices=6,size=16", "phantoms/ct")["format"]
        'dicom'
    """
    name, options = _parse(source)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return PHANTOMS[name](folder, **options)


def _parse(source: str) -> tuple[str, dict[str, int]]:
    """Split `phantom:NAME,key=value…` into its name and its options."""
    name, *pairs = source.removeprefix(PREFIX).split(",")
    if name not in PHANTOMS:
        raise SourceError(f"{source}: no phantom is called '{name}'.{nearest(name, PHANTOMS)}")
    options = {}
    for pair in pairs:
        key, _, value = (part.strip() for part in pair.partition("="))
        if key not in LIMITS:
            raise SourceError(f"{source}: a phantom takes no option '{key}'.{nearest(key, LIMITS)}")
        low, high = LIMITS[key]
        if not (value.isascii() and value.isdigit()) or not low <= int(value) <= high:
            raise SourceError(f"{source}: {key} is '{value}', expected an integer from {low} to {high}.")
        options[key] = int(value)
    return name, options


def write_ct(folder: Path, patients: int = 48, slices: int = 24, size: int = 48, seed: int = 0) -> dict:
    """Write a DICOM series and mask images for each region of each patient.

    A patient's slices are shared out evenly among the six regions; with fewer than six, regions take turns from
    patient to patient.
    """
    from ssl_transfer.data.readers.phantom.body import REGIONS, Patient
    from ssl_transfer.data.readers.phantom.canvas import MASK_NAMES
    from ssl_transfer.data.readers.phantom.ct import scan

    regions = list(REGIONS)
    for number in range(patients):
        patient = Patient(seed, number)
        for index, region in enumerate(regions):
            count = slices // len(regions) + ((index - number) % len(regions) < slices % len(regions))
            if count:
                series = scan(patient, region, count, size, np.random.default_rng([seed, number, index]))
                _write_series(folder, patient, region, index + 1, series, f"{seed}/{size}/{slices}/{number}")
    return {
        "source": str(folder / "images"),
        "format": "dicom",
        "masks": "../masks/{parent}/{stem}.png",
        "mask_names": ",".join(MASK_NAMES),
        "domain": "ct",
    }


def _write_series(folder: Path, patient, region: str, number: int, series, study: str) -> None:
    """Write one series as DICOM files, and its masks as PNG files of the same names."""
    name = f"P{patient.number:04d}-{number}-{region.lower()}"
    images, masks = folder / "images" / name, folder / "masks" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    dataset = _series_header(patient, region, number, series, study)
    for index, (hu, mask, z) in enumerate(zip(series.hu, series.mask, series.z_mm, strict=True)):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(f"{study}/{number}/{index}")
        dataset.InstanceNumber = index + 1
        corner = -series.spacing_mm * (hu.shape[1] - 1) / 2
        dataset.ImagePositionPatient = [round(corner, 4), round(corner, 4), float(z)]
        dataset.SliceLocation = float(z)
        dataset.PixelData = (hu.astype(np.int32) + 1024).astype("<u2").tobytes()
        dataset.save_as(images / f"{index + 1:04d}.dcm", enforce_file_format=True)
        Image.fromarray(mask).save(masks / f"{index + 1:04d}.png")


def _series_header(patient, region: str, number: int, series, study: str):
    """The DICOM dataset that the slices of a series share."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    rows, columns = series.hu.shape[1:]
    elements = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "StudyDate": "20240101",
        "Modality": "CT",
        "Manufacturer": "ssl_transfer phantom",
        "SeriesDescription": region.title(),
        "PatientName": f"Phantom^{patient.number:04d}",
        "PatientID": _subject("P", patient.seed, patient.number),
        "PatientSex": patient.sex,
        "PatientAge": f"{patient.age:03d}Y",
        "BodyPartExamined": region,
        "SliceThickness": series.thickness_mm,
        "KVP": 120,
        "PatientPosition": "HFS",
        "StudyInstanceUID": _uid(study),
        "SeriesInstanceUID": _uid(f"{study}/{number}"),
        "SeriesNumber": number,
        "FrameOfReferenceUID": _uid(f"{study}/frame"),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": [round(series.spacing_mm, 5)] * 2,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "WindowCenter": 40,
        "WindowWidth": 400,
    }
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _uid(name: str) -> UID:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["ssl_transfer phantom", name])


def write_cells(folder: Path, patients: int = 48, slices: int = 24, size: int = 48, seed: int = 0) -> dict:
    """Write the wells of a plate as 8-bit grey PNG files; a well holds one cell line."""
    from ssl_transfer.data.readers.phantom.cells import LINES, photograph_well

    names = list(LINES)
    rows = []
    for number in range(patients):
        line = names[number % len(names)]
        well, subject = f"W{number:04d}", _subject("W", seed, number)
        for index, image in enumerate(photograph_well(line, slices, size, np.random.default_rng([seed, number]))):
            rows.append((_save(folder, f"{well}/{index + 1:04d}.png", image), line, subject))
    return _labelled(folder, rows) | {"domain": "fluorescence/cell_line"}


def write_photographs(folder: Path, patients: int = 96, slices: int = 12, size: int = 48, seed: int = 0) -> dict:
    """Write crops of photographs as 8-bit RGB PNG files; crops of one group come from one tile of one picture."""
    from ssl_transfer.data.readers.phantom.photographs import crops, tiles

    rows = []
    for number, tile in enumerate(tiles(patients)):
        for index, image in enumerate(crops(tile, slices, size, np.random.default_rng([seed, number]))):
            rows.append((_save(folder, f"{tile.name}/{index + 1:04d}.png", image), tile.picture, tile.name))
    return _labelled(folder, rows) | {"domain": "photograph"}


def _subject(letter: str, seed: int, number: int) -> str:
    """Name of a patient or well: those of another seed are others, and have other names."""
    return f"{letter}{number:04d}" if seed == 0 else f"{letter}{seed}-{number:04d}"


def _save(folder: Path, name: str, image: np.ndarray) -> str:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return name


def _labelled(folder: Path, rows: list[tuple[str, str, str]]) -> dict:
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "patient"))
        writer.writerows(rows)
    return {
        "source": str(folder / "images"),
        "format": "images",
        "labels": str(folder / "labels.csv"),
        "label_key": "file",
    }


PHANTOMS = {"ct": write_ct, "cells": write_cells, "photographs": write_photographs}
