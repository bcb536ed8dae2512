"""The README is true: its commands run as written, and what it names is there."""

import csv
import re
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.command_line import ROOT, run

README = (ROOT / "README.md").read_text()
PACKAGE = ROOT / "ssl_transfer"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A working directory with what a checkout has, and with the archive of somebody who reads the README."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("recipes", "launch", "pretrain.py"):
        (folder / name).symlink_to(ROOT / name)
    make_archive(folder)
    make_volumes(folder / "volumes")
    rng = np.random.default_rng(0)
    for number in range(24):
        place = folder / "pictures" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 32, 3), np.uint8)).save(place / f"{number}.png")
    arrays = {}
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(folder / "medmnist.npz", **arrays)
    return folder


def make_archive(folder: Path) -> None:
    """`archive`: DICOM series of eight patients; `labels.csv`: a label for each."""
    from ssl_transfer.data.readers.phantom.generate import expand

    source = Path(expand("phantom:ct,patients=8,slices=6,size=32", folder / "phantom")["source"])
    shutil.move(source, folder / "archive")
    shutil.rmtree(folder / "phantom")
    patients = sorted({path.name.partition("-")[0] for path in (folder / "archive").iterdir()})
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("patient", "label"), *((patient, "ab"[int(patient[1:]) % 2]) for patient in patients)]
        )


def make_volumes(folder: Path) -> None:
    """Two CT volumes with a label volume beside each."""
    folder.mkdir()
    for stem in "ab":
        hu = np.random.default_rng(ord(stem)).integers(-1000, 1000, (24, 20, 12)).astype(np.int16)
        labels = np.zeros(hu.shape, np.uint8)
        labels[4:12, 4:12], labels[6:8, 6:8] = 1, 2
        for name, values in ((stem, hu), (f"{stem}_seg", labels)):
            nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])).to_filename(folder / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def answers(checkout):
    """Every command's answer; they ran in the README's order, each where the one before had ended."""
    return {command: run(["bash", "-c", command], checkout) for command in COMMANDS}


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 12
    for verb in ("ingest", "inspect", "features", "evaluate linear_probe", "evaluate knn", "pretrain"):
        assert any(f"ssl-transfer {verb}" in command for command in COMMANDS)
    assert any(command.startswith("accelerate launch pretrain.py") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_as_it_is_written(command, answers):
    assert answers[command].status == 0, answers[command].stderr


def test_two_processes_are_two(answers, checkout):
    log = [path.read_text() for path in checkout.glob("runs/quickstart_byol-*/log.jsonl")]
    assert len(log) == 1
    assert '"world_size": 2' in log[0].splitlines()[0]


def test_what_the_commands_made_can_be_used_in_python(answers, checkout):
    (code,) = blocks("python")
    shown = "\nprint(images.shape, images.dtype, points.shape, len(store))"
    answer = run([sys.executable, "-c", code + shown], checkout)
    assert answer.status == 0, answer.stderr
    assert answer.stdout.split("\n")[0] == "(64, 1, 48, 48) int16 (1152, 2) 1152"


def test_plain_timm_loads_the_backbone_as_the_readme_says(answers, checkout):
    (call,) = re.findall(r"`(timm\.create_model\([^`]*\))`", README)
    answer = run([sys.executable, "-c", f"import timm\nprint({call}.num_features)"], checkout)
    assert answer.stdout == "256\n", answer.stderr


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"\b(?:recipes|launch|tests|notebooks|benchmarks|docs|ssl_transfer)/[\w./-]*", README))),
)
def test_a_path_that_the_readme_names_is_there(path):
    assert (ROOT / path.rstrip(".")).exists()


def test_the_recipes_of_the_table_are_there_and_none_is_missing():
    table = README.partition("| recipe | method | where |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+\.yaml)`", table)) == sorted(
        path.name for path in (ROOT / "recipes").glob("*.yaml")
    )


def test_the_launch_files_that_the_readme_names_are_there():
    sentence = re.search(r"`launch/accelerate/` has (.*?)\.", README, re.S)[1]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(
        path.stem for path in (ROOT / "launch/accelerate").glob("*.yaml")
    )


def test_the_rooms_of_the_architecture_are_there():
    table = README.partition("| layer | what is there |")[2].partition("\n\n")[0]
    rooms = {path.stem for path in PACKAGE.rglob("*")}
    assert {name.rstrip("/") for name in re.findall(r"`([\w/]+)`", table)} <= rooms


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README)) - {"it"}))
def test_a_make_target_that_the_readme_names_is_there(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
