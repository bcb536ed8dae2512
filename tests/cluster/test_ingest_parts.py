"""The rule of the Snakefile for an archive in parts: every part once, then one merge, and nothing when the store is there."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.command_line import ENVIRONMENT, ROOT

from ssl_transfer.data.store import ImageStore

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Snakemake 9 needs Python 3.11")


def snakemake(folder, *words) -> str:
    command = ["snakemake", "-s", str(ROOT / "launch/Snakefile"), "--cores", "2", *words, "--config"]
    config = ["source=archive", "store=stores/s", "parts=3", "cpus=1", "options=--size 4"]
    done = subprocess.run(
        [*command, *config], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def place(tmp_path):
    (tmp_path / "archive").mkdir()
    for number in range(9):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / "archive" / f"{number}.png")
    return tmp_path


def test_a_dry_run_lists_the_parts_and_the_merge(place):
    said = snakemake(place, "-n")
    assert "ingest_part" in said and "ingest_merge" in said and "--part 3/3" in snakemake(place, "-n", "-p")


@pytest.mark.long
def test_the_rule_makes_the_store_and_does_nothing_again(place):
    snakemake(place)
    assert len(ImageStore(place / "stores/s")) == 9
    assert "ingest_" not in snakemake(place, "-n", "-p")
