"""Every DICOM file that pydicom ships, and generated ones of every coding, against GDCM/ITK as SimpleITK reads them.

ITK turns MONOCHROME1 as we do, but knows neither padding nor the order of frames. Where ITK and we rightly differ, the tables
below say why.
"""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from support.dicom_files import MR, RGB, SAMPLES, XRAY, make_dicom, save

from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.reader import Unreadable

sitk = pytest.importorskip("SimpleITK")
data_store = pytest.importorskip("data_store")


def ours(path):
    """Frames in the order of the file (frames, C, H, W), the item, and the scan; None if the file is refused."""
    source = DicomReader(path)
    scan = source.scan()
    if not scan.items:
        return None
    [item] = scan.items
    images = [image for image, _, _ in source.read(item)]
    order = [number for number, _ in item.plan or [(0, {})]]
    return np.stack([images[order.index(number)] for number in range(len(images))]), item, scan


def theirs(path):
    """Frames as ITK reads them, (frames, C, H, W)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    array = array[None] if array.ndim == 2 else array
    return np.moveaxis(array, -1, 1) if image.GetNumberOfComponentsPerPixel() > 1 else array[:, None]


def comparable(frames, item, scan):
    """What ITK's values are in our units."""
    if item.channels == 3:
        return frames.astype(int) >> (item.row["bits"] - 8)
    frames = frames.astype(float)
    return np.clip(np.rint(frames), -1024, None) if scan.units == "hu" else frames


FOLDERS = [SAMPLES, Path(data_store.__file__).parent / "data"]  # of pydicom and of the package pydicom-data
FILES = {
    path.relative_to(folder).as_posix(): path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".txt", ".json", ".icc", ".gz", ".dump")
}
MEGABYTE = 2**20  # larger samples take seconds each
RLE = "GDCM mixes the bytes of RLE colour of more than 8 bits; pydicom and the 8-bit file agree with us"
DIFFERENT = {  # file: why ITK and we rightly differ
    "SC_rgb_rle_16bit.dcm": RLE,
    "SC_rgb_rle_16bit_2frame.dcm": RLE,
    "SC_rgb_rle_32bit.dcm": RLE,
    "SC_rgb_rle_32bit_2frame.dcm": RLE,
    "eCT_Supplemental.dcm": "ITK ignores the supplemental palette, which colours a part of the image",
    "mlut_18.dcm": "ITK ignores the modality lookup table; the values are those of pydicom's apply_modality_lut",
}
DAMAGED = {"MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}


def test_the_samples_are_there():
    assert len(FILES) > 150


LARGE = [pytest.param(name, marks=pytest.mark.long) for name, path in FILES.items() if path.stat().st_size > MEGABYTE]


@pytest.mark.parametrize("name", [*LARGE, *(name for name, path in FILES.items() if path.stat().st_size <= MEGABYTE)])
def test_a_sample_has_the_values_that_itk_reads(name):
    try:
        found = ours(FILES[name])
    except Unreadable:
        assert name in DAMAGED
        return
    if found is None:
        pytest.skip("no image, or a localizer")
    mine, item, scan = found
    want = comparable(theirs(FILES[name]), item, scan)
    assert (mine.shape == want.shape and np.abs(mine - want).max() <= 1e-3) == (name not in DIFFERENT)


def test_a_modality_lookup_table_gives_what_pydicom_gives():
    dataset = pydicom.dcmread(FILES["mlut_18.dcm"])
    mine, _, _ = ours(FILES["mlut_18.dcm"])
    assert np.array_equal(mine[0, 0], apply_modality_lut(dataset.pixel_array, dataset))


def test_a_supplemental_palette_leaves_what_is_below_it_grey():
    mine, item, _ = ours(FILES["eCT_Supplemental.dcm"])
    dataset = pydicom.dcmread(FILES["eCT_Supplemental.dcm"])
    is_below = dataset.pixel_array < dataset.RedPaletteColorLookupTableDescriptor[1]
    is_grey = (mine == mine[:, :1]).all(1)
    assert item.row["intensity"] == "palette" and is_grey[is_below].all() and not is_grey[~is_below].all()


rng = np.random.default_rng(0)
WORDS = rng.integers(0, 4096, (32, 40)).astype(np.uint16)
SIGNED = rng.integers(-1500, 2500, (32, 40)).astype(np.int16)
KINDS = {
    "ct": (WORDS, {}),
    "signed ct": (SIGNED, {"PixelRepresentation": 1, "BitsStored": 16, "RescaleIntercept": 0}),
    "signed ct of 13 bits": (SIGNED, {"PixelRepresentation": 1, "BitsStored": 13, "RescaleIntercept": 24}),
    "fractional ct": (WORDS, {"RescaleSlope": 0.51, "RescaleIntercept": -700.7}),
    "mr": (WORDS * 15, MR | {"BitsStored": 16}),
    "rescaled mr": (WORDS, MR | {"RescaleSlope": 2.25, "RescaleIntercept": -3}),
    "x-ray": (WORDS, XRAY),
    "inverted x-ray": (WORDS, XRAY | {"PhotometricInterpretation": "MONOCHROME1"}),
    "x-ray of 8 bits": (WORDS >> 4, XRAY | {"BitsAllocated": 8, "BitsStored": 8}),
    "colour": (rng.integers(0, 256, (32, 40, 3)), XRAY | RGB | {"Modality": "US"}),
    "frames": (rng.integers(0, 4096, (3, 32, 40)), XRAY | {"Modality": "XA", "NumberOfFrames": 3}),
}
SYNTAXES = [None, JPEG2000Lossless, JPEGLSLossless, RLELossless]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=["plain", "jpeg2000", "jpegls", "rle"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_file_has_the_values_that_itk_reads(tmp_path, kind, syntax):
    pixels, elements = KINDS[kind]
    dataset = make_dicom(pixels, **elements)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    path = save(dataset, tmp_path / "a.dcm")
    mine, item, scan = ours(path)
    assert np.abs(mine - comparable(theirs(path), item, scan)).max() <= 1e-3


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_the_slices_of_a_volume_lie_as_itk_stacks_them(tmp_path, angle):
    axes = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    for number in rng.permutation(6).tolist():
        point = [round(float(mm), 5) for mm in [-10, 20, 30] + 2.5 * number * normal]
        pixels = rng.integers(0, 4096, (32, 40))
        elements = {"ImagePositionPatient": point, "ImageOrientationPatient": axes, "InstanceNumber": 6 - number}
        save(make_dicom(pixels, **elements), tmp_path / f"{rng.integers(10**6)}.dcm")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)
    source = DicomReader(tmp_path)
    items = source.scan().items
    mine = np.stack([frame[0] for item in items for frame, _, _ in source.read(item)])
    assert np.array_equal(mine, np.clip(sitk.GetArrayFromImage(image), -1024, None))
    row = items[0].row
    spacing = (row["spacing_col_mm"], row["spacing_row_mm"], row["spacing_slice_mm"])
    assert spacing == pytest.approx(image.GetSpacing(), abs=1e-4)
