"""Paths and texts in artifacts name neither the user nor the machine."""

import os
import platform
from pathlib import Path

import pytest

from ssl_transfer.paths import portable, without_user


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "home" / "anna" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setattr(platform, "node", lambda: "ward7.example.org")
    return folder


@pytest.mark.parametrize(
    "path, text",
    [
        ("stores/ct", "stores/ct"),
        ("timm:resnet50", "timm:resnet50"),
        ("HERE/stores/ct", "stores/ct"),
        ("HERE", "."),
        ("HERE/../stores/ct", "../stores/ct"),
        ("/archive/ct", "/archive/ct"),
    ],
)
def test_a_path_leads_to_the_same_place_without_naming_the_user(project, path, text):
    path = path.replace("HERE", str(project))
    assert portable(path) == text and portable(Path(path)) == str(Path(text))
    if text != path and os.path.isabs(path):
        assert os.path.abspath(text) == os.path.normpath(path)


def test_a_text_names_neither_user_nor_machine(project):
    text = f'File "{project}/x.py" of anna@ward7.example.org: joanna and ward70 stay'
    assert without_user(text) == 'File "~/project/x.py" of USER@HOST: joanna and ward70 stay'


@pytest.mark.parametrize("name", ["root", "an", ""])
def test_names_that_many_machines_share_stay(monkeypatch, name):
    monkeypatch.setenv("USER", name)
    monkeypatch.setenv("LOGNAME", name)
    assert without_user("the root of an unknown user") == "the root of an unknown user"
