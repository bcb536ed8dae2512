"""DICOM files that pydicom writes, as small as the claim of a test allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ssl_transfer.data.readers.dicom import DicomReader

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
MR = {"SOPClassUID": MRImageStorage, "Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
XRAY = {
    "SOPClassUID": DX,
    "Modality": "DX",
    "RescaleSlope": None,
    "RescaleIntercept": None,
    "ImagePositionPatient": None,
    "ImageOrientationPatient": None,
}
RGB = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
}


def make_dicom(stored: np.ndarray, **elements) -> FileDataset:
    """An array (H, W) or (frames, H, W) as a CT image; `elements` win over the defaults, None removes one."""
    elements = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "Modality": "CT",
        "PatientID": "patient-1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "BodyPartExamined": "CHEST",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelSpacing": [0.5, 0.75],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
    } | elements
    if elements["SamplesPerPixel"] == 3:
        elements["Rows"], elements["Columns"] = stored.shape[-3:-1]
    elements.setdefault("HighBit", None if elements["BitsStored"] is None else elements["BitsStored"] - 1)
    kind = "i" if elements["PixelRepresentation"] else "u"
    words = stored.astype(f"<{kind}{max(elements['BitsAllocated'], 8) // 8}") if stored.dtype.kind != "f" else stored
    elements.setdefault("PixelData", words.tobytes())
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements["SOPClassUID"] or CTImageStorage
    meta.MediaStorageSOPInstanceUID = elements["SOPInstanceUID"]
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in elements.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def write_dicom(path: Path, stored: np.ndarray, **elements) -> Path:
    """Write what `make_dicom` makes."""
    return save(make_dicom(stored, **elements), path)


def save(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format="SOPClassUID" in dataset)
    return path


def item(**elements) -> Dataset:
    """An item of a sequence; a dictionary becomes a sequence of one item."""
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, [item(**value)] if isinstance(value, dict) else value)
    return made


def read(source: DicomReader | Path):
    """(images, rows, scan) of all items, in the order of the store."""
    source = source if isinstance(source, DicomReader) else DicomReader(source)
    scan = source.scan()
    read = [(image, item.row | own) for item in scan.items for image, own, _ in source.read(item)]
    return [image for image, _ in read], [row for _, row in read], scan
