"""Wrong input: exit status 2, one message that says where, what was found and what to do, and nothing left behind."""

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.command_line import ENVIRONMENT, ROOT, ssl_transfer

from ssl_transfer.data.ingest.pseudonyms import file_pseudonym

INGEST = "ingest pictures --out out"
PRETRAIN = "pretrain tiny.yaml --out out"
EVALUATE = "evaluate knn scratch:resnet10t"

# Name -> command, and what the message must say. Every command runs in a folder with the inputs below.
CASES = {
    "unknown verb": ("ingst pictures", r"UsageError: ssl-transfer: .*invalid choice: 'ingst' .*'ingest'"),
    "no verb": ("", r"UsageError: .*required: VERB"),
    "unknown option": ("inspect store --jsn", r"UsageError: .*--jsn"),
    "a number that is none": (f"{INGEST} --size big", r"UsageError: ssl-transfer ingest: .*--size.*'big'.*--help"),
    "unknown format": (f"{INGEST} --format dicm", r"UsageError: --format dicm: no such format\. Did you mean 'dicom'"),
    "unknown protocol": ("evaluate svm a b", r"UsageError: .*'svm' .*linear_probe"),
    "unknown phantom": ("ingest phantom:cq --out out", r"SourceError: phantom:cq: .*Known: cells, ct, photographs"),
    "unknown phantom option": (
        "ingest phantom:ct,patient=3 --out out",
        r"SourceError: .*'patient'\. Did you mean 'patients'",
    ),
    "missing source": ("ingest archive --out out", r"SourceError: archive: no such file or folder"),
    "source without an image": ("ingest nothing --out out", r"SourceError: nothing: found no image file"),
    "an image of zero bytes alone": (
        "ingest zero --out out",
        r"SourceError: zero: 1 of 1 .*\n +x\.png: the file is empty",
    ),
    "splits above 1": (f"{INGEST} --split 0.5,0.5,0.5", r"UsageError: --split 0.5,0.5,0.5: .*sum to 1"),
    "splits that are no numbers": (f"{INGEST} --split nan,0,1", r"UsageError: --split nan,0,1: .*sum to 1"),
    "two splits": (f"{INGEST} --split 0.8,0.2", r"UsageError: --split 0.8,0.2: expected three shares"),
    "size zero": (f"{INGEST} --size 0", r"UsageError: --size 0: "),
    "more refused than there are": (f"{INGEST} --max-refused 3", r"UsageError: --max-refused 3"),
    "unknown domain": (f"{INGEST} --domain xrey", r"RecipeError: domain 'xrey': .*Did you mean 'xray'"),
    "a label CSV with unknown patients": (
        "ingest phantom:ct,patients=2,slices=6,size=16 --labels unknown.csv --label-key patient --out out",
        r"LabelError: unknown\.csv line 3: patient 'NOBODY' is not in the source",
    ),
    "missing label CSV": (f"{INGEST} --labels none.csv", r"LabelError: none\.csv: cannot be read \(No such file"),
    "label key without labels": (f"{INGEST} --label-key file", r"UsageError: --label-key file: there is no --labels"),
    "missing masks": (f"{INGEST} --masks mask.png", r"SourceError: --masks mask\.png: no such file"),
    "ingest into other files": ("ingest pictures --out recipes", r"UsageError: recipes: already holds other files"),
    "ingest into a file": ("ingest pictures --out tiny.yaml", r"UsageError: --out tiny\.yaml: this is a file"),
    "ingest into a store of other inputs": (
        "ingest pictures --out store",
        r"UsageError: store: already holds a store of inputs",
    ),
    "inspect nothing": ("inspect nowhere", r"StoreError: nowhere: there is no such store\. .*ssl-transfer ingest"),
    "inspect a path that is no store": ("inspect pictures", r"StoreError: pictures: this is no .*ssl-transfer ingest"),
    "contact sheet of a path that is no store": (
        "inspect pictures --figure a.png",
        r"UsageError: pictures: --figure draws",
    ),
    "a column of a contact sheet without one": (
        "inspect store --by patient",
        r"UsageError: store: --by and --window are",
    ),
    "a window whose ends are swapped": (
        "inspect store --figure a.png --window 80,0",
        r"UsageError: --window 80,0: expected .*a lower and an upper end",
    ),
    "missing recipe": (
        "pretrain tinny.yaml --out out",
        r"RecipeError: tinny\.yaml: neither a recipe .*Did you mean 'tiny",
    ),
    "unknown recipe key": (
        f"{PRETRAIN} train.epoch=3",
        r"RecipeError: tiny\.yaml: train\.epoch: .*Did you mean 'epochs'",
    ),
    "an override that is none": (f"{PRETRAIN} epochs", r"UsageError: .*epochs"),
    "missing store": (
        f"{PRETRAIN} data.store=stores/none",
        r"StoreError: stores/none: there is no such store\. Make it with: ssl-transfer ingest .* --out stores/none",
    ),
    "pretrain on a path that is no store": (
        f"{PRETRAIN} data.store=pictures",
        r"StoreError: pictures: this is no image store",
    ),
    "features of a path that is no store": (
        "features scratch:resnet10t pictures --out out",
        r"StoreError: pictures: this is no image store",
    ),
    "unknown task": (
        f"{EVALUATE} phantom_regio --out out",
        r"TaskError: phantom_regio: .*Did you mean 'phantom_region'",
    ),
    "unknown metric": (
        f"{EVALUATE} metric.yaml --out out",
        r"TaskError: metric\.yaml: metric: .*Did you mean 'accuracy'",
    ),
    "unknown target": (f"{EVALUATE} target.yaml --out out", r"TaskError: target\.yaml: target: .*Did you mean 'label'"),
    "features of several backbones": (
        "evaluate knn scratch:resnet10t scratch:resnet18 phantom_region --features out",
        r"UsageError: --features: .*several",
    ),
    "unknown study": ("study plan benchmrk", r"RecipeError: benchmrk: .*Did you mean 'benchmark'"),
    "report of a study that was not planned": (
        "study report benchmark",
        r"UsageError: studies/benchmark.*: no plan of a study",
    ),
    "settings for a planned study": ("study run pictures a=1", r"UsageError: pictures: settings override a YAML"),
    "jobs at once of a plan": ("study plan quickstart_tiny --jobs 2", r"UsageError: study plan: --jobs is for run"),
    "no job at once": (
        "study run quickstart_tiny --jobs 0",
        r"--jobs: found '0', expected a whole number of at least 1",
    ),
    "study without a study": ("study run", r"UsageError: study run: expected a study's YAML, or its folder"),
    "quickstart among other files": ("quickstart --out pictures", r"UsageError: pictures: already holds other files"),
    "unknown scale": ("quickstart --scale huge --out out", r"UsageError: .*'huge' .*'full', 'tiny'"),
    "unknown method option": (
        f"{PRETRAIN} method.temprature=1",
        r"RecipeError: tiny\.yaml: method\.temprature: SimCLR .*'temperature'",
    ),
    "unknown architecture": (
        f"{PRETRAIN} backbone.name=resnet10x",
        r"BackboneError: .*'resnet10x'\. Did you mean 'resnet10t'",
    ),
    "batch larger than the data": (
        f"{PRETRAIN} train.batch_size=37",
        r"RecipeError: .*train\.batch_size: 37 .*36 training images.* at most",
    ),
    "pretrain into other files": (
        "pretrain tiny.yaml --out pictures",
        r"UsageError: pictures: already holds other files",
    ),
    "features of a folder that is no backbone": (
        "features pictures store --out out",
        r"BackboneError: pictures: this is no backbone .*ssl-transfer pretrain",
    ),
    "unknown setting of evaluate": (
        f"{EVALUATE} region.yaml fracton=0.1 --out out",
        r"RecipeError: evaluate knn: no .*'fracton'\. Did you mean 'fraction'",
    ),
    "a fraction above 1": (
        f"{EVALUATE} region.yaml fraction=2 --out out",
        r"RecipeError: evaluate knn: fraction: found '2'",
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, ct_store, tiny_recipe) -> Path:
    """What the commands above are given."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "store").symlink_to(ct_store.path)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "tiny.yaml").write_text(tiny_recipe.read_text())
    for name, target, metric in [
        ("region", "label", "auroc"),
        ("metric", "label", "acuracy"),
        ("target", "lable", "auroc"),
    ]:
        (folder / f"{name}.yaml").write_text(f"store: store\ntarget: {target}\nmetric: {metric}\n")
    (folder / "unknown.csv").write_text("patient,label\nP0000,a\nNOBODY,b\n")
    (folder / "nothing").mkdir()
    (folder / "zero").mkdir()
    (folder / "zero" / "x.png").touch()
    draw_pictures(folder / "pictures", 40)
    return folder


def draw_pictures(folder: Path, count: int) -> None:
    """Grey noise, 16 px, in two class folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(place / f"{number}.png")


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def answers(inputs, tmp_path_factory):
    """Every case's answer, and what it left behind; they run two at a time."""

    def answer(name):
        folder = tmp_path_factory.mktemp("case")
        for path in inputs.iterdir():
            (folder / path.name).symlink_to(path)
        before = contents(folder) | contents(inputs)
        return SimpleNamespace(
            said=ssl_transfer(*CASES[name][0].split(), folder=folder),
            left=(contents(folder) | contents(inputs)) - before,
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(answer, CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_ends_with_status_2_and_one_message(name, answers):
    said = answers[name].said
    assert said.status == 2, said.stderr
    assert said.stdout == ""
    assert "Traceback" not in said.stderr
    messages = re.findall(r"^\w+Error: .*", said.stderr, re.M)
    assert len(messages) == 1
    assert re.search(CASES[name][1], said.stderr)


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_leaves_nothing_behind(name, answers):
    assert answers[name].left == set()


def test_an_image_of_zero_bytes_among_good_ones_is_listed(tmp_path):
    draw_pictures(tmp_path / "pictures", 40)
    (tmp_path / "pictures" / "a" / "zero.png").touch()
    answer = ssl_transfer("ingest", "pictures", "--out", "store", "--json", folder=tmp_path).json
    assert (answer["n_images"], answer["n_refused"]) == (40, 1)
    assert answer["refused"] == [{"file": "a/zero.png", "kind": "unreadable", "reason": answer["refused"][0]["reason"]}]
    assert "empty" in answer["refused"][0]["reason"]
    [later] = ssl_transfer("inspect", "store", "--json", folder=tmp_path).json["refused"]
    assert later == answer["refused"][0] | {"file": file_pseudonym("a/zero.png")}  # the store has no names


def test_a_killed_ingest_leaves_no_store_and_the_next_ingest_succeeds(tmp_path):
    draw_pictures(tmp_path / "pictures", 1500)
    words = [sys.executable, "-m", "ssl_transfer", "ingest", "pictures", "--out", "store", "--workers", "1"]
    process = subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob(".store*")) or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (tmp_path / "store").exists()
    assert ssl_transfer(*words[3:], "--json", folder=tmp_path).json["n_images"] == 1500


@pytest.mark.long
def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path, tiny_recipe):
    words = ["pretrain", tiny_recipe, "train.epochs=1000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ssl_transfer", *map(str, words)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: len(list(tmp_path.glob("run/checkpoints/*.pt"))) == 2 or process.poll() is not None)
    process.terminate()
    assert process.wait() == 143
    checkpoints = list(tmp_path.glob("run/checkpoints/*.pt"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    answer = ssl_transfer(*words, folder=tmp_path)
    assert answer.status == 2
    assert re.search(
        r"^RunError: run/checkpoints: all 2 checkpoint\(s\) are damaged, .*--resume never", answer.stderr, re.M
    )
    assert not (tmp_path / "run" / "backbone").exists()
    assert ssl_transfer("inspect", "run", "--json", folder=tmp_path).json["done"] is False


def until(happened, seconds: float = 100) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)
