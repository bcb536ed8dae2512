"""DICOM images of any modality and depth, as small files."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX, MR, US, PET = (
    f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("1.1", "4", "6.1", "128")
)  # storage classes: X-ray for presentation, MR, ultrasound, PET


def write_image(
    path: Path, pixels: np.ndarray, *, sop: str = DX, modality: str = "DX", bits: int = 12, **elements
) -> Path:
    """Write a grey image (H, W); other data elements by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    allocated = 8 if pixels.dtype == np.uint8 else 16
    defaults = {
        "SOPClassUID": sop,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": modality,
        "PatientID": path.stem,
        "StudyInstanceUID": generate_uid(entropy_srcs=[path.stem, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[path.stem, "series"]),
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": allocated,
        "BitsStored": min(bits, allocated),
        "HighBit": min(bits, allocated) - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.astype("<u2" if allocated == 16 else np.uint8).tobytes(),
    }
    for name, value in (defaults | elements).items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path
