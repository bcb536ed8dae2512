"""The registry of readers, by the name that `--format` takes. A new reader is one file and one line here."""

from __future__ import annotations

import inspect

from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.data.readers.nifti import NiftiReader
from ssl_transfer.data.readers.npz import NpzReader
from ssl_transfer.data.readers.reader import Reader

READERS: dict[str, type[Reader]] = {
    "dicom": DicomReader,
    "nifti": NiftiReader,
    "images": ImagesReader,
    "npz": NpzReader,
}


def reader_options(name: str) -> tuple[str, ...]:
    """The options of `ingest` that a reader takes: the keyword-only parameters of its constructor."""
    parameters = inspect.signature(READERS[name]).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
