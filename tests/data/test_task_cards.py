"""Every shipped task card is right from its archive to a result: its commands make the store, word for word."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.archives import ARCHIVES, BREAST, FINDINGS, GRADES, KVASIR, LESIONS, LINES, REGIONS, TISSUES, TUMOURS

from ssl_transfer.cli import main
from ssl_transfer.cli.parser import parse
from ssl_transfer.cli.verbs import VERBS
from ssl_transfer.data.ingest.lookup import file_names
from ssl_transfer.data.ingest.pseudonyms import file_pseudonym
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.evaluation.settings import evaluate_recipes
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import parse_overrides, read_yaml, recipes_folder, validate

COUNT = 27  # cards in `recipes/tasks/`

CARDS = sorted((recipes_folder() / "tasks").resolve().glob("*.yaml"))

each_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)

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
    options = parse(words[1:], VERBS)
    settings = [word for word in options.words if "=" in word] + options.overrides
    assert name == path.stem and list(evaluate_recipes(protocol, settings))
    for line in comment(path):
        for command in re.findall(r"ssl-transfer (ingest .*)", line):
            assert str(parse(shlex.split(command), VERBS).out) == validate(TaskCard, read_yaml(path), str(path)).store


@each_card
def test_every_card_runs_on_the_store_that_its_commands_make(path, made, tmp_path):
    task = made(path)
    classes, patients = EXPECTED[path.stem]
    assert task.classes == (classes or task.classes) and task.store.card.n_patients == patients
    assert str(task.domain) != "unknown" and task.kind in PROTOCOLS[shlex.split(comment(path)[1])[3]].task_kinds
    protocol = "segment" if task.kind == "segmentation" else "knn"
    quick = ["train.steps=2", "train.batch_size=2", "train.workers=0"] if protocol == "segment" else []
    backbone = load_backbone("scratch:test_resnet,size=32", in_channels=task.store.shape[0])
    settings = parse_overrides(["resamples=5", *quick])
    result = evaluate(protocol, backbone, task, tmp_path / "result", tmp_path / "features", **settings)
    assert -1 <= result.metrics["test"][task.card.metric] <= 1  # kappa by chance is about 0


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
        files = rows["file"].map(file_names(made(card_named(name)).store, commands(card_named(name))[1][2].lstrip("/")))
        assert ((rows["split"] == "test") == files.str.startswith(f"{folder}/")).all()


def test_several_masks_of_a_breast_are_united(made):
    task = made(card_named("busi_lesion"))
    at = int(np.flatnonzero(task.store.column("file") == file_pseudonym("benign/benign (4).png"))[0])
    one, four = task.store.masks([at - 1, at])
    assert 0 < one.sum() < four.sum() and task.classes == ["lesion"]


def test_a_mammogram_with_several_findings_counts_as_its_worst(made):
    rows = made(card_named("mammogram_mias")).store.rows
    found = dict(zip(rows["file"], rows["label"], strict=True))
    assert [found[file_pseudonym(f"mdb00{n}.png")] for n in (1, 2, 3, 5)] == [
        "malignant",
        "benign",
        "malignant",
        "normal",
    ]
