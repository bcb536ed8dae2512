"""A shortcut that is planted into the pixels is found at the end of the way: DICOM files, ingest, pretraining, features, test.

Of ill patients, some phantom CT slices have a nodule. One of two scanners leaves stripes in its images. Planted: most ill
patients are from that scanner. Controls: the scanner has nothing to do with the illness, or it has but leaves no stripes.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml

from ssl_transfer.analysis.shortcuts import shortcut_tests
from ssl_transfer.cli import main
from ssl_transfer.data.readers.phantom.generate import expand
from ssl_transfer.data.store import ImageStore
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]
PATIENTS, SLICES, SIZE = 96, 4, 48
PLANTED = {"associated": 0.85, "stripes": 150, "nodule": 300}  # share of the patients, HU, HU
CONTROLS = ({"associated": 0.5, "stripes": 150, "nodule": 600}, {"associated": 0.85, "stripes": 0, "nodule": 600})
SEEDS = range(5)
RECIPE = {
    "data": {"views": {"name": "ct", "window_hu": [-1000, 1000]}, "size": SIZE},
    "backbone": {"name": "resnet10t", "in_channels": 1, "options": {"channels": [16, 32, 64, 128], "stem_width": 16}},
    "method": {"name": "simclr", "hidden_dim": 128, "projection_dim": 32},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "train": {"epochs": 8, "warmup_epochs": 1, "batch_size": 64, "precision": "fp32", "workers": 0},
    "tracker": "none",
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """The folder of DICOM files of a phantom, a patient per series."""
    folder = tmp_path_factory.mktemp("phantom")
    expand(f"phantom:ct,patients={PATIENTS},slices={SLICES},size={SIZE}", folder)
    return folder / "images"


def store_of(phantom, folder, seed, associated, stripes, nodule):
    """Ingest the phantom as patients of two scanners; `associated` is the share whose scanner goes with their illness."""
    draw = np.random.default_rng(seed)
    ill = draw.permutation(np.arange(PATIENTS) % 2)
    scanner = np.where(draw.random(PATIENTS) < associated, ill, 1 - ill)
    lines = {}
    for path in sorted(phantom.rglob("*.dcm")):
        dataset, number = pydicom.dcmread(path), int(path.parent.name[1:5])
        pixels = dataset.pixel_array.astype(np.float64)
        if ill[number] and draw.random() < 0.8:
            top, left = draw.integers(SIZE // 4, SIZE // 2, 2)
            pixels[top : top + 10, left : left + 10] += nodule
        pixels += scanner[number] * stripes * np.where(np.arange(SIZE) % 4 < 2, 1, -1)
        dataset.PixelData = np.clip(pixels, 0, 4095).astype("<u2").tobytes()
        dataset.ManufacturerModelName = ("Alpha", "Beta")[scanner[number]]
        target = folder / "files" / path.relative_to(phantom)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target, enforce_file_format=True)
        lines[dataset.PatientID] = ("well", "ill")[ill[number]]
    table = folder / "labels.csv"
    table.write_text("patient,label\n" + "".join(f"{patient},{label}\n" for patient, label in lines.items()))
    words = ["ingest", folder / "files", "--labels", table, "--label-key", "patient", "--out", folder / "store"]
    assert main([*map(str, words), "--workers", "1"]) == 0
    shutil.rmtree(folder / "files")
    return folder / "store"


@pytest.fixture(scope="module")
def pretrained(phantom, tmp_path_factory):
    """A backbone that was briefly pretrained on a store with a planted shortcut, and that store."""
    folder = tmp_path_factory.mktemp("pretrained")
    store = store_of(phantom, folder, 100, **PLANTED)
    content = {**RECIPE, "data": {**RECIPE["data"], "store": str(store)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["pretrain", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run/backbone", store


def shortcut_in(phantom, backbone, folder, seed, **planted):
    """The shortcut test of the scanner on a store."""
    store = ImageStore(store_of(phantom, folder, seed, **planted))
    features = extract_features(load_backbone(backbone), store, folder / "features").values
    columns = pd.DataFrame({name: store.column(name) for name in ("label", "scanner_model", "patient")})
    patients = columns["patient"].to_numpy(str)
    [row] = shortcut_tests(features, columns["label"], columns[["scanner_model"]], patients, seed).to_dict("records")
    return row


def test_5_planted_shortcuts_are_found_through_images(phantom, pretrained, tmp_path):
    found = [shortcut_in(phantom, pretrained[0], tmp_path / str(seed), seed, **PLANTED) for seed in SEEDS]
    assert [row["shortcut"] for row in found] == [True] * 5
    assert all(row["explained"] > 0.1 and row["after"] < row["before"] for row in found)


def test_0_of_5_controls_are_found_through_images(phantom, pretrained, tmp_path):
    found = [
        shortcut_in(phantom, pretrained[0], tmp_path / str(seed), seed, **CONTROLS[seed % len(CONTROLS)])
        for seed in SEEDS
    ]
    assert [row["shortcut"] for row in found] == [False] * 5
    assert np.mean([row["before"] for row in found]) > 0.6  # and yet the target is predicted


def test_the_command_reports_the_planted_shortcut(pretrained, tmp_path, capsys):
    backbone, store = pretrained
    words = [
        "analyze",
        backbone,
        "--store",
        store,
        "target=label",
        "nuisances=[scanner_model]",
        "--json",
        "--out",
        tmp_path / "a",
    ]
    assert main([*map(str, words)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["backbones"][0]["shortcuts"]["scanner_model"]["shortcut"] is True
    (text,) = [finding["text"] for finding in answer["findings"] if finding["title"] == "Shortcuts"]
    assert "scanner model explains" in text and "of the score of label" in text
