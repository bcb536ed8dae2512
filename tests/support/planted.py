"""Sources with planted persons, and a search for them in every file of an artifact, whatever it is packed in."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ssl_transfer.data.readers.phantom.generate import write_ct

PERSON = (
    "mustermann",
    "erdmuthe",
    "geheimrat",
    "planteduser",
    "plantedhost",
    "19700101",
    "1970-01-01",
    "01.01.1970",
    "mrn4711",
)
SLICE = (16, 16)
LONG_BASE64 = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")


def dicom(root: Path, patients: int = 6, slices: int = 4) -> Path:
    """CT series whose headers, folders and files name persons, and files that are refused."""
    random = np.random.default_rng(0)
    for patient in range(patients):
        for number in range(slices):
            folder = root / f"MUSTERMANN_ERDMUTHE{patient}_19700101" / "Dr. Geheimrat"
            folder.mkdir(parents=True, exist_ok=True)
            values = random.integers(0, 2000, SLICE).astype(np.uint16)
            _header(patient, number, values).save_as(folder / f"Mustermann.Erdmuthe-{number}", enforce_file_format=True)
    (root / "MUSTERMANN_damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"x" * 300)
    (root / "Geheimrat.txt").write_text("Erdmuthe")
    (root / "Mustermann.dcm").symlink_to("/home/planteduser/Erdmuthe.dcm")
    return root


def _header(patient: int, number: int, values: np.ndarray) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = pydicom.uid.CTImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{patient}.{number}"
    header.PatientID, header.PatientName, header.PatientBirthDate = (
        f"MRN4711-{patient}",
        "Mustermann^Erdmuthe",
        "19700101",
    )
    header.StudyInstanceUID, header.SeriesInstanceUID = f"1.2.3.{patient}", f"1.2.3.{patient}.1"
    header.ReferringPhysicianName = header.OperatorsName = "Geheimrat^Erdmuthe"
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = "19700101"
    header.StationName, header.AccessionNumber, header.ProtocolName = "PLANTEDHOST", "MRN4711", "Mustermann"
    header.StudyDescription = header.SeriesDescription = header.ImageComments = "Erdmuthe Mustermann, Dr. Geheimrat"
    header.ManufacturerModelName, header.ConvolutionKernel = "Dr. Geheimrat", "Mustermann^Erdmuthe"
    header.Modality, header.InstanceNumber, header.Manufacturer = "CT", number, "ACME"
    header.BodyPartExamined = ("CHEST", "HEAD")[patient % 2]
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.RescaleSlope, header.RescaleIntercept = [1, 1], 1, -1024
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.Rows, header.Columns = values.shape
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = values.tobytes()
    return header


def pictures(root: Path) -> tuple[Path, Path]:
    """Pictures in two classes and a CSV whose columns name persons; returns the folder and the CSV."""
    random = np.random.default_rng(0)
    lines = ["file,patient,label,patient_id,name,dob,x7,remark,birthday,x8"]
    for number in range(24):
        file = f"scans/Mustermann_{number // 2}_{number}.png"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, SLICE, dtype=np.uint8)).save(root / file)
        who = f"MRN4711-{number // 2}"
        free = f"Erdmuthe Mustermann {number // 2}: nodule"
        who_reads = ("Geheimrat", "Erdmuthe")[number % 2]
        lines.append(
            f"{file},{who},{'ab'[number // 2 % 2]},{who},Mustermann,1970-01-01,{free},Dr. Geheimrat,01.01.1970,{who_reads}"
        )
    (root / "scans" / "Erdmuthe.png").write_bytes(b"no picture")
    table = root.parent / "Mustermann.csv"
    table.write_text("\n".join(lines) + "\n")
    return root, table


def volumes(root: Path) -> Path:
    """NIfTI volumes whose files and headers name persons, and one that is damaged."""
    import nibabel

    root.mkdir(parents=True)
    for number in range(8):
        image = nibabel.Nifti1Image(
            np.random.default_rng(number).integers(0, 900, (*SLICE, 3)).astype(np.int16), np.eye(4)
        )
        image.header["descrip"], image.header["db_name"] = b"Erdmuthe Mustermann 1970-01-01", b"Geheimrat"
        nibabel.save(image, root / f"Mustermann_Erdmuthe_{number}.nii.gz")
    (root / "Geheimrat.nii.gz").write_bytes(gzip.compress(b"short"))
    return root


def archive(path: Path) -> Path:
    """An npz whose arrays name persons."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.array([f"MRN4711-{number // 4}" for number in range(32)])
    np.savez(
        path,
        images=np.random.default_rng(0).integers(0, 255, (32, *SLICE), dtype=np.uint8),
        labels=np.arange(32) % 2,
        groups=names,
        files=np.array([f"Mustermann/{number}.png" for number in range(32)]),
        mrn=names,
        reader=np.array(["Erdmuthe Geheimrat"] * 32),
        patient_name=np.array(["Mustermann"] * 32),
    )
    return path


def persons_in(folder: Path) -> list[str]:
    """Every planted word that a file below a folder contains, in its name or its content, and where."""
    found = []
    for path in sorted(folder.rglob("*")):
        texts = [str(path.relative_to(folder)).encode()]
        texts += _contents(path.name, path.read_bytes()) if path.is_file() else []
        for text in texts:
            lower = text.lower()
            found += [f"{path.relative_to(folder)}: {word}" for word in PERSON if _contains(lower, word)]
    return found


def _contains(text: bytes, word: str) -> bool:
    return word.encode() in text or word.encode("utf-16-le") in text


def _contents(name: str, content: bytes) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in them."""
    yield LONG_BASE64.sub(b"", content)  # letters that are not text have every short word by chance
    if name.endswith(".parquet"):
        table = pandas.read_parquet(io.BytesIO(content))
        yield table.to_csv().encode() + repr(table.attrs).encode()
    if name.endswith((".npy", ".npz")):
        try:
            yield repr(np.load(io.BytesIO(content), allow_pickle=False)).encode()
        except ValueError:  # a shard that is still being written
            return
    if name.endswith(".png"):
        with Image.open(io.BytesIO(content)) as image:
            yield repr(image.info).encode()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for inner in packed.namelist():
                yield from _contents(inner, packed.read(inner))
    if name.endswith((".html", ".json", ".svg")):
        for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", content):
            try:
                raw = base64.b64decode(text, validate=True)
            except ValueError:
                continue
            yield raw
            for window in (15, -15, 31):
                try:
                    yield zlib.decompress(raw, window)
                except zlib.error:
                    continue


def phantom(root: Path) -> Path:
    """A CT phantom, for what needs images that can be learnt from."""
    write_ct(root, patients=6, slices=6, size=16)
    return root / "images"
