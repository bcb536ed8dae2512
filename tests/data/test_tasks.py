"""Tasks: what a card may say, and that every shipped card is right from its archive to a result.

Archives are miniatures of the published ones: their folders, names, label files and mask values, with noise for images.
The commands of a card make the store from them, word for word.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ssl_transfer.__main__ import main
from ssl_transfer.arguments import parse
from ssl_transfer.data.readers.phantom.generate import write_ct
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.errors import RecipeError, SplitError, TaskError
from ssl_transfer.evaluation.stage import KINDS, evaluate, evaluate_recipe, evaluate_recipes
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.recipe import read_yaml, recipes_folder, validate

COUNT = 27  # cards in `recipes/tasks/`
CARDS = sorted((recipes_folder() / "tasks").resolve().glob("*.yaml"))
each_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)

FINDINGS = [
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
]
TISSUES = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
TUMOURS = ["glioma", "meningioma", "notumor", "pituitary"]
LESIONS = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
GRADES = ["mild", "moderate", "none", "proliferative", "severe"]
REGIONS = ["ABDOMEN", "EXTREMITY", "HEAD", "NECK", "PELVIS", "THORAX"]
LINES = ["A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3"]
KVASIR = [
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "esophagitis",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "polyps",
    "ulcerative-colitis",
]
BREAST = ["benign", "malignant", "normal"]
CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def draw(*names, mode="L"):
    """Write an image of noise to each name."""
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(name)


def volume(name, values, dtype=np.int16):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).choice(values, (16, 16, 2)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), name)


def write(name, *lines):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("\n".join(lines) + "\n")


def radnet():
    write_ct(Path("radnet"), patients=12, slices=6, size=32)
    Path("radnet/images").rename("archive")


def pack(name, classes):
    split = {"images": np.zeros((6, 8, 8), np.uint8), "labels": np.arange(6) % len(classes)}
    arrays = {f"{part}_{key}": value + 0 for part in ("train", "val", "test") for key, value in split.items()}
    np.savez(name, class_names=classes, **arrays)


def chestxray14():
    findings = ["No Finding" if n % 4 == 0 else f"{FINDINGS[n % 14]}|{FINDINGS[(n + 5) % 14]}" for n in range(60)]
    names = [f"{n // 2 + 1:08d}_{n % 2:03d}.png" for n in range(60)]
    draw(*(f"ChestX-ray14/images/{name}" for name in names[1:]))
    draw(f"ChestX-ray14/images/{names[0]}", mode="RGBA")  # some are
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage"
    rows = [
        f"{name},{found},{n % 2},{n // 2 + 1},58,M,PA,2682,2749,0.143,0.143,"
        for n, (name, found) in enumerate(zip(names, findings, strict=True))
    ]
    spacing = "[Width,Height],OriginalImagePixelSpacing[x,y],"
    write("ChestX-ray14/Data_Entry_2017.csv", head + spacing, *rows)
    write("ChestX-ray14/test_list.txt", *names[40:])


def chexpert():
    head = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}"
    for split, patients in (("train", range(1, 25)), ("valid", range(64541, 64547))):
        names = [f"{split}/patient{p:05d}/study{s}/view1_frontal.jpg" for p in patients for s in (1, 2)]
        draw(*(f"CheXpert-v1.0-small/{name}" for name in names))
        values = [",".join((three * 5)[:14]) for three in (["1.0", "", "-1.0"], ["", "1.0", "0.0"])]
        rows = [f"CheXpert-v1.0-small/{n},Female,68,Frontal,AP,{values[k % 2]}" for k, n in enumerate(names)]
        write(f"CheXpert-v1.0-small/{split}.csv", head, *rows)


def imagenet():
    draw(*(f"imagenet/train/n0144076{c}/n0144076{c}_{n}.JPEG" for c in range(3) for n in range(50)), mode="RGB")
    draw(*(f"imagenet/val/n0144076{c}/ILSVRC2012_val_{c}{n:07d}.JPEG" for c in range(3) for n in range(2)), mode="RGB")


def cxr_pneumonia():
    for split, first in (("train", 1), ("test", 4)):  # persons 4 to 6 are in both
        draw(*(f"chest_xray/{split}/PNEUMONIA/person{n}_virus_{n + 1}.jpeg" for n in range(first, first + 6)))
        draw(*(f"chest_xray/{split}/NORMAL/NORMAL2-IM-{n + 1000}-0001.jpeg" for n in range(first, first + 3)))
        draw(*(f"chest_xray/{split}/NORMAL/IM-0{n + 100}-0001-0002.jpeg" for n in range(first, first + 3)))


def busi():
    root = "Dataset_BUSI_with_GT"
    draw(*(f"{root}/{name}/{name} ({n}).png" for name in BREAST for n in range(1, 8)), mode="RGB")
    for name in BREAST:
        for n in range(1, 8):
            mask = np.zeros((20, 20), bool)
            mask[3:9] = name != "normal"
            Image.fromarray(mask).save(f"{root}/{name}/{name} ({n})_mask.png")
    Image.fromarray(mask.T | (np.arange(20) > 15)).save(f"{root}/benign/benign (4)_mask_1.png")


def mammogram_mias():
    draw(*(f"all-mias/mdb{n:03d}.pgm" for n in range(1, 37)))
    severity = {1: "CIRC B 535 425 197", 2: "ARCH M 300 200 10", 0: "NORM"}
    rows = [f"mdb{n:03d} G {severity[(n + 1) // 2 % 3]}" for n in range(1, 37)]
    write("all-mias/Info.txt", "1st column: reference number", *rows, "mdb001 G MISC M 100 100 9", "mdb003 F MISC B")


def lits():
    for n in range(8):
        folder = f"LiTS/Training Batch {1 + n // 4}"
        volume(f"{folder}/volume-{n}.nii", [-1000, 40, 60])
        volume(f"{folder}/segmentation-{n}.nii", [0, 1, 2], np.uint8)


def brats():
    for n in range(8):
        for sequence in ("flair", "t1", "t1ce", "t2"):
            volume(f"BraTS2021/BraTS2021_{n:05d}/BraTS2021_{n:05d}_{sequence}.nii.gz", range(1000))
        volume(f"BraTS2021/BraTS2021_{n:05d}/BraTS2021_{n:05d}_seg.nii.gz", [0, 1, 2, 4], np.uint8)


def msd_lung():
    for n in range(8):
        volume(f"Task06_Lung/imagesTr/lung_{n:03d}.nii.gz", [-1000, 40])
        volume(f"Task06_Lung/labelsTr/lung_{n:03d}.nii.gz", [0, 1], np.uint8)
        write(f"Task06_Lung/imagesTr/._lung_{n:03d}.nii.gz", "what macOS leaves")


def livecell():
    wells = [(line, well, n) for line in LINES for well in ("A7", "B7", "C7") for n in (1, 2)]
    names = [f"{line}_Phase_{well}_{n}_00d04h00m_{n}.tif" for line, well, n in wells]
    draw(*(f"LIVECell/images/livecell_{'test' if 'C7' in n else 'train_val'}_images/{n}" for n in names))


def brain_mri():
    draw(*(f"brain-tumor-mri-dataset/Training/{c}/Tr-{c[:2]}_{n:04d}.jpg" for c in TUMOURS for n in range(8)))
    draw(*(f"brain-tumor-mri-dataset/Testing/{c}/Te-{c[:2]}_{n:04d}.jpg" for c in TUMOURS for n in range(2)))


def histology_crc():
    draw(*(f"kather/NCT-CRC-HE-100K/{c}/{c}-AAEM{n}.tif" for c in TISSUES for n in range(10)), mode="RGB")
    draw(*(f"kather/CRC-VAL-HE-7K/{c}/{c}-TCGA-{n}.tif" for c in TISSUES for n in range(2)), mode="RGB")


def ham10000():
    rows = [f"HAM_{n // 2:07d},ISIC_{n:07d},{LESIONS[n // 2 % 7]},histo,60.0,male,back" for n in range(84)]
    write("HAM10000/HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", *rows)
    draw(*(f"HAM10000/HAM10000_images_part_{1 + n % 2}/ISIC_{n:07d}.jpg" for n in range(84)), mode="RGB")


def aptos():
    write("aptos2019/train.csv", "id_code,diagnosis", *(f"{n:012x},{n % 5}" for n in range(35)))
    draw(*(f"aptos2019/train_images/{n:012x}.png" for n in range(35)), mode="RGB")


def malaria():
    for name, patients in (
        ("Parasitized", ("C33P1", "C37BP2", "C68P29N_", "C70P31_", "C71P32", "C72P33N")),
        ("Uninfected", ("C1_", "C2_", "C3_", "C4_", "C118P79", "C119P79")),
    ):
        thin = [f"{patient}{'ThinF' if 'P' in patient else 'thinF'}" for patient in patients]
        draw(*(f"cell_images/{name}/{p}_IMG_2015_cell_{n}.png" for p in thin for n in range(2)), mode="RGB")


def wbc():
    draw(*(f"segmentation_WBC/Dataset 1/{n:03d}.bmp" for n in range(1, 10)), mode="RGB")
    for n in range(1, 10):
        mask = np.random.default_rng(n).choice(np.array([0, 128, 255], np.uint8), (20, 20))
        Image.fromarray(mask).save(f"segmentation_WBC/Dataset 1/{n:03d}.png")


ARCHIVES = {  # by the name of the store; a phantom needs none
    "radnet": radnet,
    "mednist_ct": lambda: pack("mednist_ct.npz", ["abdomen", "chest", "head"]),
    "cells": lambda: draw(*(f"cells/{c}/{n}.png" for c in ("HeLa", "MCF-7", "NCI-H1299") for n in range(7))),
    "kvasir": lambda: draw(*(f"kvasir-dataset-v2/{c}/{n}.jpg" for c in KVASIR for n in range(7)), mode="RGB"),
    **{
        make.__name__: make
        for make in (
            chestxray14,
            chexpert,
            imagenet,
            cxr_pneumonia,
            busi,
            mammogram_mias,
            lits,
            brats,
            msd_lung,
            livecell,
            brain_mri,
            histology_crc,
            ham10000,
            aptos,
            malaria,
            wbc,
        )
    },
}

EXPECTED = {  # classes of each task, and the patients of its store, where they are known
    "brain_mri": (TUMOURS, None),
    "brats": (["necrotic_core", "oedema", "enhancing_tumour"], 8),
    "busi": (BREAST, None),
    "busi_lesion": (["lesion"], None),
    "cell_lines": (["HeLa", "MCF-7", "NCI-H1299"], None),
    "chestxray14": (FINDINGS, 30),
    "chestxray8": ([FINDINGS[n] for n in (0, 1, 4, 8, 9, 10, 12, 13)], 30),
    "chexpert": (["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"], 30),
    "cxr_pneumonia": (["NORMAL", "PNEUMONIA"], 21),
    "dermoscopy_ham10000": (LESIONS, 42),
    "endoscopy_kvasir": (KVASIR, None),
    "fundus_aptos": (GRADES, None),
    "histology_crc": (TISSUES, None),
    "imagenet": (["n01440760", "n01440761", "n01440762"], None),
    "lits": (["liver", "tumour"], 8),
    "livecell": (LINES, 24),
    "malaria": (["Parasitized", "Uninfected"], 11),
    "mammogram_mias": (BREAST, 18),
    "mednist_region": (["abdomen", "chest", "head"], None),
    "msd_lung": (["tumour"], 8),
    "phantom_cells": (["carcinoma", "epithelial", "fibroblast", "lymphoid"], 36),
    "phantom_organs": (["liver", "lesion"], 36),
    "phantom_photographs": (None, 36),
    "phantom_region": (REGIONS, 36),
    "radnet_chestxray8": (sorted([*FINDINGS, "No Finding"]), 30),
    "radnet_region": (REGIONS, 12),
    "wbc": (["cytoplasm", "nucleus"], None),
}


def comment(path):
    """The lines above a card's first key."""
    return path.read_text().partition("\nstore:")[0].splitlines()


def commands(path):
    """What a card says to run: preparation in a shell ('' if none), and the words of `ssl-transfer ingest`."""
    lines = comment(path)
    first = next(n for n, line in enumerate(lines) if line.startswith("# First: "))
    prepare = "\n".join(line.removeprefix("# Prepare: ").removeprefix("#          ") for line in lines[2:first])
    return prepare, shlex.split(lines[first].removeprefix("# First: "))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def made(workspace, monkeypatch):
    """A function: card -> its task, the store being made by the card's commands from a miniature of its archive."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def make(path):
        prepare, (_, verb, source, *words) = commands(path)
        out = Path(words[words.index("--out") + 1])
        if not out.exists():
            if source.startswith("phantom:"):
                source += ",patients=36,slices=2,size=32"
            else:
                ARCHIVES[out.name]()
            subprocess.run(["bash", "-euc", prepare], check=True)
            words = ["32" if words[n - 1] == "--size" else word for n, word in enumerate(words)]
            assert main([verb, source.lstrip("/"), *words, "--workers", "1"]) == 0
        return Task.load(path)

    return make


def test_every_card_is_found():
    assert len(CARDS) == COUNT == len(EXPECTED)
    assert [path.stem for path in CARDS] == sorted(EXPECTED)


@each_card
def test_every_card_says_what_it_is_how_to_evaluate_it_and_how_its_store_is_made(path):
    lines, card = comment(path), validate(TaskCard, read_yaml(path), str(path))
    assert all(line.startswith("# ") for line in lines) and lines[0].endswith(".")
    assert re.fullmatch(rf"#   ssl-transfer evaluate \w+ BACKBONE {path.stem}( [\w.]+=\S+)*", lines[1])
    firsts = [line for line in lines if line.startswith("# First: ssl-transfer ingest ")]
    assert len(firsts) == 1 and firsts[0].endswith(f" --out {card.store}")


@each_card
def test_the_commands_of_every_card_are_what_the_command_line_reads(path):
    *_, protocol, _, name = (words := shlex.split(comment(path)[1][1:]))[:5]
    options = parse(words[1:])
    settings = [word for word in options.words if "=" in word] + options.overrides
    assert name == path.stem and list(evaluate_recipes(protocol, settings))
    for line in comment(path):
        for command in re.findall(r"ssl-transfer (ingest .*)", line):
            assert str(parse(shlex.split(command)).out) == validate(TaskCard, read_yaml(path), str(path)).store


@each_card
def test_every_card_runs_on_the_store_that_its_commands_make(path, made, tmp_path):
    task = made(path)
    classes, patients = EXPECTED[path.stem]
    assert task.classes == (classes or task.classes) and task.store.card.n_patients == patients
    assert str(task.domain) != "unknown" and task.kind in KINDS[shlex.split(comment(path)[1])[3]]
    protocol = "segment" if task.kind == "segmentation" else "knn"
    quick = ["train.steps=2", "train.batch_size=2", "train.workers=0"] if protocol == "segment" else []
    recipe, options = evaluate_recipe(protocol, ["resamples=5", *quick])
    backbone = load_backbone("scratch:test_resnet,size=32", in_channels=task.store.shape[0])
    result, _ = evaluate(protocol, backbone, task, recipe, options, tmp_path / "result", tmp_path / "features")
    assert 0 <= result.metrics["test"][task.card.metric] <= 1


def card_named(name):
    return next(path for path in CARDS if path.stem == name)


def test_an_uncertain_finding_of_chexpert_is_unknown_and_a_blank_one_absent(made):
    task = made(card_named("chexpert"))
    rows = task.store.rows
    assert set(rows["label"]) == {"Frontal"}  # and no name of a patient
    assert sorted(set(map(tuple, task.labels))) == [(-1, -1, 1, -1, 0), (0, 0, 0, 0, 1)]
    assert set(rows["split"][:48]) == {"train", "val"} and set(rows["split"][48:]) == {"test"}


def test_the_published_test_lists_are_kept(made):
    rows = made(card_named("chestxray14")).store.rows
    assert (rows["split"] == "test").tolist() == [False] * 40 + [True] * 20
    for name, folder in (("imagenet", "val"), ("brain_mri", "Testing"), ("histology_crc", "CRC-VAL-HE-7K")):
        rows = made(card_named(name)).store.rows
        assert ((rows["split"] == "test") == rows["file"].str.startswith(f"{folder}/")).all()


def test_several_masks_of_a_breast_are_united(made):
    task = made(card_named("busi_lesion"))
    at = int(np.flatnonzero(task.store.column("file") == "benign/benign (4).png")[0])
    one, four = task.store.masks([at - 1, at])
    assert 0 < one.sum() < four.sum() and task.classes == ["lesion"]


def test_a_mammogram_with_several_findings_counts_as_its_worst(made):
    rows = made(card_named("mammogram_mias")).store.rows
    found = dict(zip(rows["file"], rows["label"], strict=True))
    assert [found[f"mdb00{n}.png"] for n in (1, 2, 3, 5)] == ["malignant", "benign", "malignant", "normal"]


# What a card may say


@pytest.fixture
def opened(tmp_path):
    """A function: columns of rows (and masks) -> the task of a card on them; train, val and test take turns."""

    def open_task(card, masks=None, mask_classes=None, **columns):
        count = len(masks) if masks is not None else len(next(iter(columns.values())))
        folder = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        dtype = None if masks is None else np.uint8
        with StoreWriter(folder, (1, 2, 2), np.uint8, dtype) as writer:
            for n in range(count):
                row = {name: values[n] for name, values in columns.items()} | {"patient": f"p{n}"}
                writer.append(np.full((1, 2, 2), n, np.uint8), row, None if masks is None else np.uint8(masks[n]))
            writer.finish(
                np.resize(["train", "val", "test"], count),
                units="display",
                domain="ct",
                split_by="patient",
                mask_classes=mask_classes,
            )
        path = tmp_path / f"{folder.name}.yaml"
        path.write_text(f"store: {folder}\n{card}\n")
        return Task.load(path)

    return open_task


WORDS = ["Mass|Edema", "None", "Edema", None, "Mass", "Edema|Hernia"]


def test_a_column_of_words_gives_a_label_for_each_word_but_that_for_none(opened):
    task = opened("target: finding\nseparator: '|'\nnegative: None\nmetric: auroc", finding=WORDS)
    assert task.kind == "multilabel" and task.classes == ["Edema", "Hernia", "Mass"]
    assert task.labels.T.tolist() == [[1, 0, 1, -1, 0, 1], [0, 0, 0, -1, 0, 1], [1, 0, 0, -1, 1, 0]]
    assert task.rows("train").tolist() == [0] and task.rows("val").tolist() == [1, 4]  # row 3 is unknown


def test_labels_are_those_that_the_card_keeps_in_its_order(opened):
    task = opened("target: finding\nseparator: '|'\nlabels: [Mass, Edema]\nmetric: auroc", finding=WORDS)
    assert task.classes == ["Mass", "Edema"] and task.labels[5].tolist() == [0, 1]


def test_the_word_for_none_is_a_label_unless_the_card_says_what_it_is(opened):
    assert "None" in opened("target: finding\nseparator: '|'\nmetric: auroc", finding=WORDS).classes


def test_several_columns_are_labels_whose_odd_values_are_unknown(opened):
    task = opened(
        "target: [a, b]\nmetric: auroc", a=[1.0, 0.0, -1.0, None, 1.0, 0.0], b=["yes", "no", "True", "0", "perhaps", ""]
    )
    assert task.kind == "multilabel" and task.classes == ["a", "b"]
    assert task.labels.T.tolist() == [[1, 0, -1, -1, 1, 0], [1, 0, 1, 0, -1, -1]]


def test_a_column_of_classes_is_unknown_where_it_is_empty(opened):
    task = opened("target: grade\nmetric: accuracy", grade=[2, 1, None, 1, 2, 1])
    assert task.kind == "multiclass" and task.classes == ["1.0", "2.0"] and task.labels.tolist() == [1, 0, -1, 0, 1, 0]


MASKS = [[[0, 1], [2, 9]], [[0, 0], [0, 0]], [[1, 1], [0, 0]]]


def test_mask_classes_are_values_or_whatever_is_left(opened):
    task = opened("target: mask\nmetric: dice\nclasses: {organ: [1, 9], rest: any}", masks=MASKS)
    assert task.kind == "segmentation" and task.classes == ["organ", "rest"]
    assert task.store.masks([0, 1, 2]).tolist() == [[[0, 1], [2, 1]], [[0, 0], [0, 0]], [[1, 1], [0, 0]]]
    assert opened("target: mask\nmetric: dice", MASKS, {1: "organ", 2: "lesion"}).classes == ["organ", "lesion"]


def test_fractions_are_stratified_by_the_rarest_label_or_mask_class(opened):
    task = opened("target: finding\nseparator: '|'\nnegative: None\nmetric: auroc", finding=WORDS)
    assert task.strata.tolist() == [3, 0, 1, 0, 3, 2]  # 0 for none; Mass is rarer than Edema, Hernia rarest
    assert opened("target: mask\nmetric: dice\nclasses: {a: 1, b: 2}", masks=MASKS).strata.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("target: findin\nmetric: accuracy", r"\.yaml: target: .* has no column 'findin'\. Did you mean 'finding'\?"),
        ("target: [finding, b]\nmetric: auroc", r"\.yaml: target: .* has no column 'b'\. Known: "),
        ("target: finding\nmetric: acuracy", r"\.yaml: metric: found 'acuracy'\. Did you mean 'accuracy'\?"),
        ("target: finding\nmetric: dice", r"\.yaml: metric: found 'dice'\. Known: accuracy, auroc"),
        ("target: mask\nmetric: auroc", r"\.yaml: metric: found 'auroc'\. Known: dice, dice_present, hd95"),
        ("target: mask\nmetric: dice", r"target: .* has no masks\. Ingest again with --masks"),
        ("target: finding\nmetric: accuracy\nclasses: {a: 1}", r"`classes` are for `target: mask`, .* Leave them out"),
        (
            "target: [a, b]\nseparator: '|'\nmetric: auroc",
            r"`separator` is for a single column of words\. Leave it out",
        ),
        ("target: mask\nseparator: '|'\nmetric: dice", r"`separator` is for a single column of words\. Leave it out"),
        ("target: finding\nnegative: None\nmetric: auroc", r"with a `separator`\. Add it, such as '\|'"),
        ("target: finding\nlabels: [Mass]\nmetric: auroc", r"with a `separator`\. Add it, such as '\|'"),
        (
            "target: finding\nmetric: auroc\naveraging: micro",
            r"averaging: found 'micro'\. Expected 'macro' or 'weighted'",
        ),
        ("target: finding", r"\.yaml: metric is missing"),
        (
            "target: finding\nmetric: auroc\nmetrics: f1",
            r"metrics: TaskCard takes no such option\. Did you mean 'metric'\?",
        ),
    ],
)
def test_a_card_that_cannot_be_meant_is_refused_with_what_to_do(opened, card, message):
    with pytest.raises((TaskError, RecipeError), match=message):
        opened(card, finding=WORDS)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", r"masks of .* have no names\. Write them into the card"),
        ("classes: {a: [1, 2], b: 2}", r"classes: two of them have the value 2\. Each pixel has one class"),
        ("classes: {a: 0}", r"classes\.a: found 0\. Expected a whole number from 1 to 255"),
        ("classes: {a: 300}", r"classes\.a: found 300\. Expected a whole number from 1 to 255"),
        ("classes: {a: all}", r"classes\.a.*: found"),
    ],
)
def test_mask_classes_that_cannot_be_meant_are_refused(opened, classes, message):
    with pytest.raises((TaskError, RecipeError), match=message):
        opened(f"target: mask\nmetric: dice\n{classes}", masks=MASKS)


def test_columns_that_hold_nothing_to_predict_are_refused(opened):
    words = "target: finding\nseparator: '|'\nnegative: None\nmetric: auroc"
    with pytest.raises(TaskError, match=r"labels: no row of 'finding' has 'Mas'\. Did you mean 'Mass'\?"):
        _ = opened(f"{words}\nlabels: [Mas]", finding=WORDS).classes
    with pytest.raises(TaskError, match="column 'finding' names no label"):
        _ = opened(words, finding=["None"] * 3).classes
    with pytest.raises(TaskError, match=r"column 'finding' has 1 class\(es\); 2 are needed"):
        _ = opened("target: finding\nmetric: auroc", finding=["a", "a", None]).classes
    with pytest.raises(SplitError, match="no labelled image in the val split"):
        opened("target: finding\nmetric: auroc", finding=["a", None, "b"]).rows("val")
    with pytest.raises(TaskError, match=r"its target is the mask.* Evaluate it by segment"):
        _ = opened("target: mask\nmetric: dice\nclasses: {a: 1}", masks=MASKS).labels


def test_a_missing_card_is_answered_with_the_nearest_name():
    with pytest.raises(
        TaskError, match=r"chestxray15: neither a task card nor a name in .*Did you mean 'chestxray1?4?8?'"
    ):
        Task.load("chestxray15")
