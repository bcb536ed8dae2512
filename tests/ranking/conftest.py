"""Every test of this folder works in a folder of its own: features are kept under `runs/` of the working directory."""

import pytest
from support.rankings import THREE, cohort, ranked


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def task(workdir):
    """Three classes of twenty patients; some pixels tell the class, some do not."""
    return cohort(workdir / "task")


@pytest.fixture(scope="module")
def three_ranked(tmp_path_factory):
    """A ranking of three backbones that read noise, little, and the class; and its task."""
    folder = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        task = cohort(folder / "task")
        return task, ranked(task, THREE, folder / "out", resamples=40), folder / "out"
