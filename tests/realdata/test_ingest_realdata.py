"""Real images: the packs that SSL_TRANSFER_REALDATA names, and the samples that pydicom ships."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.inspect import contact_sheet
from ssl_transfer.errors import SourceError

ROOT = os.environ.get("SSL_TRANSFER_REALDATA")
pytestmark = [pytest.mark.realdata, pytest.mark.skipif(ROOT is None, reason="SSL_TRANSFER_REALDATA is not set")]
DATA = Path(ROOT or ".")


def test_the_ct_images_of_mednist_are_ingested_with_their_classes(tmp_path):
    store = ingest(DATA / "mednist_ct" / "mednist_ct.npz", tmp_path / "s", domain="ct")
    assert len(store) == 12000 and store.shape == (1, 64, 64) and store.units == "display"
    assert store.card.labels == {"AbdomenCT": 5000, "ChestCT": 3000, "HeadCT": 4000}
    assert store.card.n_patients is None
    assert contact_sheet(store, tmp_path / "sheet.png").stat().st_size > 10_000


def test_cxr_pneumonia_keeps_its_patients_apart(tmp_path):
    store = ingest(DATA / "cxr_pneumonia" / "cxr_pneumonia.npz", tmp_path / "s", domain="xray")
    assert len(store) == 4950 and store.card.n_patients == 2647
    assert (store.rows.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.parametrize(
    "axis, above, below, left, right",
    [
        ("axial", "urinary_bladder", "sacrum", "liver", "spleen"),
        ("coronal", "liver", "urinary_bladder", "hip_right", "hip_left"),
        ("sagittal", "liver", "urinary_bladder", "urinary_bladder", "sacrum"),
    ],
)
def test_organs_of_a_ct_volume_lie_where_radiology_shows_them(tmp_path, axis, above, below, left, right):
    pack = DATA / "ct_totalseg_example"
    masks, names = pack / "example_seg_fast_force_split.nii.gz", pack / "label_names.json"
    store = ingest(pack / "example_ct.nii.gz", tmp_path / "s", masks=masks, mask_names=str(names), axis=axis)
    assert store.units == "hu" and store.card.n_patients == 1 and list(store.card.splits) == ["train"]
    assert store.card.masks.classes == json.loads(names.read_text())
    everywhere = np.arange(len(store))
    labels, hu = store.masks(everywhere), store.read(everywhere)[:, 0]
    values = {name: int(value) for value, name in store.card.masks.classes.items()}

    def centre(name):
        return np.argwhere(labels == values[name]).mean(0)

    assert centre(above)[1] < centre(below)[1] and centre(left)[2] < centre(right)[2]
    assert 0 < np.median(hu[labels == values["liver"]]) < 200 < np.percentile(hu[labels == values["hip_left"]], 90)


def test_a_real_mask_without_its_affine_is_refused_and_read_by_shape(tmp_path):
    import nibabel

    pack = DATA / "ct_totalseg_example"
    image, options = pack / "example_ct.nii.gz", {"mask_names": str(pack / "label_names.json")}
    mask = nibabel.load(pack / "example_seg_fast_force_split.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(mask.dataobj), np.eye(4)), tmp_path / "lost.nii.gz")
    with pytest.raises(SourceError, match="identity affine"):
        ingest(image, tmp_path / "s", masks=tmp_path / "lost.nii.gz", **options)
    by_shape = ingest(image, tmp_path / "shape", masks=tmp_path / "lost.nii.gz", mask_grid="shape", **options)
    by_affine = ingest(image, tmp_path / "affine", masks=pack / "example_seg_fast_force_split.nii.gz", **options)
    everywhere = np.arange(len(by_shape))
    assert np.array_equal(by_shape.masks(everywhere), by_affine.masks(everywhere))


def test_a_real_ct_cropped_to_soft_tissue_stays_with_the_others_in_hu(tmp_path):
    import nibabel

    whole = nibabel.load(DATA / "ct_totalseg_example" / "example_ct.nii.gz")
    voxels = np.asarray(whole.dataobj)
    (tmp_path / "in").mkdir()
    nibabel.save(whole, tmp_path / "in" / "whole.nii.gz")
    soft = voxels.copy()
    soft[(voxels < -150) | (voxels > 250)] = 40
    nibabel.save(nibabel.Nifti1Image(soft, whole.affine), tmp_path / "in" / "soft.nii.gz")
    store = ingest(tmp_path / "in", tmp_path / "s")
    assert store.units == "hu" and len(store) == 2 * voxels.shape[2]
    assert "without air of their own" in " ".join(store.card.warnings)


def test_a_thorax_in_hu_with_named_masks(tmp_path):
    store = ingest(DATA / "ct_totalseg_thorax" / "ct_totalseg_thorax.npz", tmp_path / "s")
    assert len(store) == 164 and store.units == "hu" and store.card.masks.classes["1"] == "aorta"
    assert store.read(np.arange(164)).min() >= -1024


@pytest.mark.parametrize("pack", sorted(path.parent.name for path in DATA.glob("*/*.npz")) if ROOT else [])
def test_every_pack_can_be_ingested(tmp_path, pack):
    store = ingest(DATA / pack / f"{pack}.npz", tmp_path / "s")
    assert len(store) > 100 and store.card.n_refused == 0
