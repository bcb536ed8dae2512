"""Values of NIfTI volumes: HU by the peak of air, what is not finite, 4-D files, label volumes, damaged files."""

import gzip
import struct
from functools import partial

import nibabel
import numpy as np
import pandas
import pytest
import yaml

from ssl_transfer.data.ingest import stage
from ssl_transfer.data.intensity import physical_values
from ssl_transfer.data.readers.hounsfield import hu_evidence
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SourceError
from ssl_transfer.evaluation.segment import cases_of

ingest = partial(stage.ingest, keep_paths=True)

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
SHAPE = (16, 16, 5)
NOISE = np.random.default_rng(0)


def save(path, array, affine=AFFINE, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def ct():
    """A body of soft tissue in air."""
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[3:13, 3:13] = NOISE.integers(-120, 250, (10, 10, 5))
    return voxels


def cropped():
    return NOISE.integers(-120, 250, SHAPE).astype(np.int16)


def mr(low=0, high=900):
    return NOISE.integers(low, high, SHAPE).astype(np.int16)


def said(store):
    return " ".join(store.card.warnings)


def reasons(store):
    return {refusal["file"]: (refusal["kind"], refusal["reason"]) for refusal in store.refused}


# HU


KINDS = {
    "ct": (ct(), "ct"),
    "resampled ct": (ct() + 0.4, "ct"),
    "padded ct": (np.where(ct() == -1000, -2000, ct()), "fits"),
    "ct in padding": (np.concatenate([ct().ravel(), np.full(3000, -3024)]), "ct"),
    "cropped ct": (cropped(), "fits"),
    "cropped ct with a voxel of air": (np.append(cropped(), -1000), "ct"),
    "mr": (mr(), "other"),
    "mr below -500": (mr(-700, 900), "fits"),
    "differences": (NOISE.normal(0, 300, 20000), "other"),
    "wide differences": (NOISE.normal(0, 500, 20000), "other"),
    "wider differences": (NOISE.normal(0, 900, 20000), "other"),
    "phase": (NOISE.integers(-4096, 4096, 20000), "other"),
    "z-scores": (NOISE.normal(0, 1, 20000), "other"),
    "zeros": (np.zeros(100), "other"),
    "nan": (np.full(100, np.nan), "other"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_hu_are_known_by_their_peak_of_air(kind):
    values, verdict = KINDS[kind]
    assert hu_evidence(values).verdict == verdict


def test_normalised_values_are_no_hu_whatever_the_domain(tmp_path):
    save(tmp_path / "in/unit.nii.gz", NOISE.random(SHAPE).astype(np.float32))
    save(tmp_path / "in/ct.nii.gz", ct().astype(np.float32))
    store = ingest(tmp_path / "in", tmp_path / "s", domain="ct", max_refused=1)
    [(name, (kind, reason))] = reasons(store).items()
    assert (name, kind) == (
        "unit.nii.gz",
        "unreadable",
    ) and "are no HU, but normalised. Ingest it without --domain ct" in reason
    assert len(store) == 5 and store.read([0]).min() == -1000


def test_volumes_of_8_bits_that_are_read_as_hu_are_counted(tmp_path):
    save(tmp_path / "in/windowed.nii.gz", mr(0, 255).astype(np.uint8))
    save(tmp_path / "in/ct.nii.gz", ct())
    assert "although no value of 1 file(s) with 8 bits is below 0" in said(
        ingest(tmp_path / "in", tmp_path / "s", domain="ct")
    )
    assert "below 0" not in said(ingest(tmp_path / "in", tmp_path / "mr", domain="mr"))


def test_a_sidecar_decides():
    assert hu_evidence(ct(), "MR").verdict == "other" and hu_evidence(mr(), "CT").verdict == "ct"


def test_an_mr_below_minus_500_is_not_clipped_and_named(tmp_path):
    voxels = mr(-1500, 900)
    save(tmp_path / "in/mr.nii.gz", voxels)
    store = ingest(tmp_path / "in", tmp_path / "s")
    assert store.units == "stored" and store.read(np.arange(5)).min() == voxels.min()
    assert "mr.nii.gz; --domain ct overrides" in said(store)


def test_one_cropped_ct_does_not_take_the_others_out_of_hu(tmp_path):
    for number in range(3):
        save(tmp_path / f"in/full{number}.nii.gz", ct())
    voxels = cropped()
    save(tmp_path / "in/cropped.nii.gz", voxels)
    store = ingest(tmp_path / "in", tmp_path / "s")
    assert store.units == "hu" and len(store) == 20 and set(store.column("intensity")) == {"hu"}
    assert store.read(np.arange(5)).max() == voxels.max()  # the first file
    assert "without air of their own: " in said(store)


@pytest.mark.parametrize("n_ct, n_mr, units, aside", [(3, 1, "hu", "mr0.nii"), (1, 3, "scaled", "ct0.nii")])
def test_the_rarer_kind_is_set_aside_unless_the_domain_is_stated(tmp_path, n_ct, n_mr, units, aside):
    for number in range(n_ct):
        save(tmp_path / f"in/ct{number}.nii", ct())
    for number in range(n_mr):
        save(tmp_path / f"in/mr{number}.nii", mr())
    store = ingest(tmp_path / "in", tmp_path / "s")
    assert store.units == units and store.card.n_patients == 3 and reasons(store)[aside][0] == "filtered"
    assert "1 volume(s) set aside" in said(store) and "--domain" in said(store)
    everything = ingest(tmp_path / "in", tmp_path / "all", domain="ct" if units == "hu" else "mr")
    assert everything.units == units and everything.card.n_patients == 4


# What is not finite


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 3.4e38, -3.4e38])
def test_one_volume_with_values_that_are_not_finite_does_not_change_the_others(tmp_path, bad):
    for number in range(4):
        save(tmp_path / f"in/g{number}.nii", NOISE.normal(size=SHAPE).astype(np.float32))
    broken = NOISE.normal(size=SHAPE).astype(np.float32)
    broken[3] = bad
    save(tmp_path / "in/z.nii", broken)
    store = ingest(tmp_path / "in", tmp_path / "s", domain="mr")
    assert np.isfinite(store.read(np.arange(25))).all() and store.card.value_range[1] < 10_001
    assert f"{16 * 5} values of 1 file(s) were NaN, infinite or padding" in said(store) and "z.nii" in said(store)
    of_file = store.rows.groupby("file")["non_finite"].sum()
    assert of_file["z.nii"] == 80 and of_file["g0.nii"] == 0


def test_a_volume_of_nothing_but_nan_is_refused(tmp_path):
    save(tmp_path / "in/a.nii", np.full(SHAPE, np.nan, np.float32))
    save(tmp_path / "in/b.nii", mr())
    assert (
        "none of its values is finite" in reasons(ingest(tmp_path / "in", tmp_path / "s", max_refused=0.5))["a.nii"][1]
    )


# 4-D


def test_volumes_of_a_file_are_cases_of_one_patient(tmp_path):
    organ = np.zeros(SHAPE, np.uint8)
    organ[4:10, 4:10, 1:4] = 1
    for number in range(6):
        phases = np.stack([mr(0, 100) + np.int16(200) * organ + np.int16(phase) for phase in range(3)], -1)
        save(tmp_path / f"in/c{number}.nii.gz", phases)
        save(tmp_path / f"masks/c{number}.nii.gz", organ)
    store = ingest(tmp_path / "in", tmp_path / "s", masks=tmp_path / "masks", mask_names="organ")
    assert store.card.n_patients == 6 and (store.rows.groupby("patient")["split"].nunique() == 1).all()
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"store": str(store.path), "target": "mask", "metric": "dice"}))
    cases = list(cases_of(Task.load(tmp_path / "t.yaml"), np.arange(len(store))))
    assert len(cases) == 18 and {len(rows) for _, rows, _ in cases} == {5}
    assert {spacing for *_, spacing in cases} == {(4.0, 1.0, 1.0)}
    for _, rows, _ in cases:
        assert len(set(store.column("volume")[rows])) == 1 and np.array_equal(store.column("slice")[rows], range(5))


def test_four_dimensions_of_a_mask_are_those_of_its_volumes(tmp_path):
    phases = np.stack([mr(), mr()], -1)
    save(tmp_path / "in/a.nii", phases)
    save(tmp_path / "m/a.nii", (phases > 500).astype(np.uint8))
    store = ingest(tmp_path / "in", tmp_path / "s", masks=tmp_path / "m")
    everywhere = np.arange(10)
    assert np.array_equal(physical_values(store, everywhere)[:, 0] > 500.5, store.masks(everywhere) == 1)
    save(tmp_path / "m/a.nii", np.zeros((*SHAPE, 3), np.uint8))
    with pytest.raises(SourceError, match="has 3 volumes; expected one"):
        ingest(tmp_path / "in", tmp_path / "t", masks=tmp_path / "m")


# Label volumes


def labels(tmp_path, array, **header):
    for number in range(4):
        save(tmp_path / f"in/c{number}.nii.gz", mr(0, 99))
        save(tmp_path / f"m/c{number}.nii.gz", array, **header)
    return {"source": tmp_path / "in", "out": tmp_path / "s", "masks": tmp_path / "m"}


BLOCK = np.zeros(SHAPE, np.float32)
BLOCK[3:6, 3:6] = 1


@pytest.mark.parametrize(
    "array",
    [BLOCK, BLOCK * 0.9999999, BLOCK * 0.99999, BLOCK.astype(np.float64) + 1e-17, BLOCK - 4e-4],
    ids=["float", "almost", "scaled", "1e-17", "below 0"],
)
def test_labels_within_a_thousandth_of_whole_numbers_are_rounded(tmp_path, array):
    store = ingest(**labels(tmp_path, array), mask_names="x")
    assert np.unique(store.masks(np.arange(20))).tolist() == [0, 1] and store.card.masks.dtype == "|u1"


def test_labels_with_a_slope_are_rounded(tmp_path):
    options = labels(tmp_path, BLOCK)
    for path in options["masks"].iterdir():
        image = nibabel.Nifti1Image(BLOCK * 3, AFFINE)
        image.set_data_dtype(np.uint8)  # stored with scl_slope 3/255
        nibabel.save(image, path)
    assert np.unique(ingest(**options, mask_names="x,y,z").masks(np.arange(20))).tolist() == [0, 3]


@pytest.mark.parametrize(
    "array, message",
    [
        (BLOCK * 0.4, r"not whole numbers: 0.4 \(45 px\).*--mask-threshold 0.5"),
        (BLOCK - 1, r"no class ids \(0 to 65535\): -1 \(1,235 px\).*--mask-ignore=-1"),
        (BLOCK * 70000, "70000"),
        (BLOCK * np.nan, "NaN or infinite"),
    ],
)
def test_other_labels_are_refused_with_their_values(tmp_path, array, message):
    with pytest.raises(SourceError, match=message):
        ingest(**labels(tmp_path, array))


def test_probabilities_have_a_threshold_and_minus_1_can_be_ignored(tmp_path):
    soft = ingest(**labels(tmp_path / "soft", BLOCK * 0.4), mask_threshold=0.3)
    ignoring = ingest(**labels(tmp_path / "ignore", BLOCK - (BLOCK == 0)), mask_ignore="-1")
    assert soft.masks(np.arange(20)).sum() == 4 * 45
    assert np.unique(ignoring.masks(np.arange(20))).tolist() == [1, 255] and ignoring.card.masks.ignore == 255


def test_label_volumes_that_no_option_names_are_left_out_aloud(tmp_path):
    for number in range(3):
        for folder, array in (("imagesTr", mr()), ("labelsTr", (mr() > 500).astype(np.uint8))):
            save(tmp_path / f"msd/{folder}/c{number}.nii.gz", array)
        for name, array in (("t1", mr()), ("flair", mr()), ("seg", (mr() > 500).astype(np.uint8))):
            save(tmp_path / f"brats/c{number}/c{number}_{name}.nii.gz", array)
    msd, brats = (ingest(tmp_path / name, tmp_path / f"{name}_store") for name in ("msd", "brats"))
    assert len(msd) == 15 and "--masks 'labelsTr'" in said(msd)
    assert len(brats) == 30 and "c0/c0_seg.nii.gz" in said(brats)


@pytest.mark.parametrize(
    "image, masks, option",
    [
        ("case_{}/imaging.nii", ["case_{}/segmentation.nii"], "{parent}/segmentation.nii"),
        ("volume-{}.nii", ["segmentation-{}.nii"], "segmentation-{number}.nii"),
        (
            "s{}/ct.nii",
            ["s{}/segmentations/liver.nii", "s{}/segmentations/spleen.nii"],
            "{parent}/segmentations/liver.nii",
        ),
        ("{}/t1.nii", ["{}/masks/t1.nii"], "{parent}/masks/{stem}.nii"),
        ("{0}/{0}_t1.nii", ["{0}/{0}_seg.nii"], "{parent}/*_seg.nii"),
    ],
    ids=["KiTS", "LiTS", "TotalSegmentator", "folder", "BraTS"],
)
def test_label_volumes_beside_their_volumes_are_left_out_and_paired_by_the_option_that_is_named(
    tmp_path, image, masks, option
):
    for number in (1, 2, 10):
        save(tmp_path / "in" / image.format(number), mr())
        for mask in masks:
            save(tmp_path / "in" / mask.format(number), (mr() > 500).astype(np.uint8))
    without = ingest(tmp_path / "in", tmp_path / "without", domain="mr")
    assert len(without) == 3 * 5 and without.card.n_patients == 3 and f"--masks '{option}'" in said(without)
    paired = ingest(tmp_path / "in", tmp_path / "paired", domain="mr", masks=option) if len(masks) == 1 else without
    assert len(paired) == 3 * 5 and (paired is without or paired.masks(np.arange(15)).any())


def test_classes_that_are_named_like_masks_stay(tmp_path):
    for name in ("label_1", "label_2", "gt/a", "gt/b", "mask/c"):
        save(tmp_path / f"in/{name}.nii", mr())
    assert len(ingest(tmp_path / "in", tmp_path / "s", domain="mr")) == 5 * 5


# Damaged and foreign files


def damaged(tmp_path, change):
    for number in range(4):
        save(tmp_path / f"in/g{number}.nii", NOISE.normal(size=SHAPE).astype(np.float32))
    path = tmp_path / "in/g0.nii"
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return reasons(ingest(tmp_path / "in", tmp_path / "s", domain="mr", max_refused=0.5))["g0.nii"]


def test_a_side_of_0_is_listed(tmp_path):
    kind, reason = damaged(
        tmp_path, lambda c: c.__setitem__(slice(40, 56), struct.pack("<8h", 3, 0, 16, 5, 1, 1, 1, 1))
    )
    assert kind == "unreadable" and "no voxels" in reason


def test_a_header_that_promises_more_than_the_file_holds_is_listed_before_memory_is_asked_for(tmp_path):
    kind, reason = damaged(
        tmp_path, lambda c: c.__setitem__(slice(40, 56), struct.pack("<8h", 4, 32000, 32000, 32000, 32000, 1, 1, 1))
    )
    assert kind == "unreadable" and "its header promises 4,194,304,000,000,000,352 bytes" in reason


def test_an_affine_that_is_zero_is_listed(tmp_path):
    kind, reason = damaged(tmp_path, lambda c: c.__setitem__(slice(280, 328), bytes(48)))
    assert kind == "unreadable" and "affine" in reason


def test_a_gzip_file_whose_checksum_is_wrong_is_listed(tmp_path):
    for number in range(4):
        save(tmp_path / f"in/g{number}.nii.gz", ct())
    path = tmp_path / "in/g2.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 255  # the checksum of gzip: all voxels are whole
    path.write_bytes(content)
    kind, reason = reasons(ingest(tmp_path / "in", tmp_path / "s", max_refused=0.5))["g2.nii.gz"]
    assert kind == "unreadable" and "CRC" in reason


def test_a_decompression_bomb_is_listed_before_it_is_decompressed(tmp_path, monkeypatch):
    save(tmp_path / "in/a.nii", mr())
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, 1024))
    header.set_data_dtype(np.int16)
    with gzip.open(tmp_path / "in/bomb.nii.gz", "wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.write(bytes(2**20))
    kind, reason = reasons(ingest(tmp_path / "in", tmp_path / "s", domain="mr", max_refused=0.5))["bomb.nii.gz"]
    assert kind == "unreadable" and "decompression bomb" in reason


def test_cifti_colours_and_vectors_are_named(tmp_path):
    save(tmp_path / "in/a.nii", mr())
    save(tmp_path / "in/rgb.nii", np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    save(tmp_path / "in/vectors.nii", np.zeros((*SHAPE, 1, 3), np.float32))
    series = nibabel.cifti2.SeriesAxis(0, 1, 4)
    scalars = nibabel.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2), bool), affine=np.eye(4), name="thalamus_left")
    nibabel.save(nibabel.Cifti2Image(np.zeros((4, 8), np.float32), (series, scalars)), tmp_path / "in/x.dtseries.nii")
    found = reasons(ingest(tmp_path / "in", tmp_path / "s", domain="mr"))
    assert {kind for kind, _ in found.values()} == {"not_an_image"}
    assert "CIFTI" in found["x.dtseries.nii"][1] and "wb_command" in found["x.dtseries.nii"][1]
    assert "not a single number" in found["rgb.nii"][1] and "vectors" in found["vectors.nii"][1]


def test_values_are_those_of_nibabel_in_every_type(tmp_path):
    for number, dtype in enumerate((np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64)):
        for slope in (1, 0.5):
            voxels = NOISE.integers(0, 120, SHAPE).astype(dtype)
            path = save(tmp_path / f"{number}{slope}.nii.gz", voxels)
            content = bytearray(gzip.decompress(path.read_bytes()))
            content[112:120] = struct.pack("<ff", slope, 0 if slope == 1 else 3)
            path.write_bytes(gzip.compress(bytes(content)))
            store = ingest(path, tmp_path / f"s{number}{slope}", domain="mr")
            expected = np.asarray(nibabel.load(path).dataobj)[::-1, ::-1].transpose(2, 1, 0)
            assert np.array_equal(store.read(np.arange(5))[:, 0], expected), (dtype, slope)
            assert pandas.isna(store.column("rescale")[0]) if slope == 1 else store.column("rescale")[0] == "0.5;3"
