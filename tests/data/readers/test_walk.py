"""Walking through a source: every entry is a file or is refused, whatever it is called and wherever links lead."""

import os
import socket
from pathlib import Path

import pytest

from ssl_transfer.data.ingest.opening import detect_format
from ssl_transfer.data.readers.reader import Files, printable, refused_entries, walk
from ssl_transfer.errors import SourceError


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def refused(files: Files) -> dict[str, str]:
    return {refusal.file: refusal.kind for refusal in files.refused}


def test_files_are_named_by_their_path_below_the_root_and_sorted(tmp_path):
    write(tmp_path / "b" / "2.png", tmp_path / "a.png", tmp_path / "b" / "1.png", tmp_path / ".hidden" / "x.png")
    files = walk(tmp_path)
    assert [name for name, _ in files] == [".hidden/x.png", "a.png", "b/1.png", "b/2.png"]
    assert [path for _, path in files] == [tmp_path / name for name, _ in files] and not files.refused
    assert len(files[1:3]) == 2 and files[1:3][0] == ("a.png", tmp_path / "a.png")
    assert [*walk(tmp_path / "a.png")] == [("a.png", tmp_path / "a.png")]


def test_a_name_that_is_not_utf_8_is_shown_with_escapes_and_can_be_opened(tmp_path):
    raw = os.fsencode(tmp_path) + b"/R\xe9my.png"
    with open(raw, "w") as file:
        file.write("x")
    [(name, path)] = walk(tmp_path)
    assert name == "R\\xe9my.png" and path.read_text() == "x"
    name.encode()  # can be printed and stored


@pytest.mark.parametrize(
    "name, text",
    [("Zoë.png", "Zoë.png"), ("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("a\u2028b", "a\\u2028b"), ("画像", "画像")],
)
def test_control_characters_in_names_are_escaped_and_letters_are_not(name, text):
    assert printable(name) == text


def test_dangling_and_annexed_links_are_unreadable_and_say_what_to_do(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "annexed.nii.gz").symlink_to("../.git/annex/objects/qF/8V/MD5E-s18--439b/MD5E-s18--439b.nii.gz")
    (tmp_path / "round.png").symlink_to("round.png")
    files = walk(tmp_path)
    assert not len(files) and set(refused(files).values()) == {"unreadable"}
    assert "git annex get" in files.refused[0].reason and "439b" not in files.refused[0].reason
    assert any("git-annex" in warning for warning in refused_entries(files))
    with pytest.raises(SourceError, match=r"Not read \(3\):\n  annexed.nii.gz: its content is not here"):
        detect_format(tmp_path)


def test_linked_files_and_linked_folders_are_read(tmp_path):
    write(tmp_path / "elsewhere" / "p1" / "1.png", tmp_path / "elsewhere" / "2.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "patient9").symlink_to("../elsewhere/p1")
    (tmp_path / "in" / "two.png").symlink_to("../elsewhere/2.png")
    files = walk(tmp_path / "in")
    assert [name for name, _ in files] == ["patient9/1.png", "two.png"] and not files.refused


def test_links_that_lead_back_end_and_a_folder_is_read_once(tmp_path):
    write(tmp_path / "p1" / "1.png")
    (tmp_path / "p1" / "up").symlink_to("..")
    (tmp_path / "p1" / "self").symlink_to(".")
    (tmp_path / "again").symlink_to("p1")
    (tmp_path / "outside").symlink_to(tmp_path.parent)
    files = walk(tmp_path)
    assert [name for name, _ in files] == ["p1/1.png"]
    assert refused(files) == dict.fromkeys(["again", "outside", "p1/self", "p1/up"], "duplicate")
    assert "p1" in next(refusal.reason for refusal in files.refused if refusal.file == "again")


def test_two_linked_folders_that_lead_to_each_other_end(tmp_path):
    write(tmp_path / "x" / "1.png", tmp_path / "y" / "2.png")
    (tmp_path / "x" / "y").symlink_to("../y")
    (tmp_path / "y" / "x").symlink_to("../x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").symlink_to("../x")
    files = walk(tmp_path / "in")
    assert [name for name, _ in files] == ["x/1.png", "x/y/2.png"] and refused(files) == {"x/y/x": "duplicate"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_folder_is_named(tmp_path):
    write(tmp_path / "locked" / "1.png", tmp_path / "2.png")
    (tmp_path / "locked").chmod(0)
    files = walk(tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert [name for name, _ in files] == ["2.png"] and refused(files) == {"locked": "unreadable"}


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "patient7" / "1.png", tmp_path / "2.png")
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("patient7"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    files = walk(tmp_path)
    assert [name for name, _ in files] == ["2.png"] and refused(files) == {"patient7": "unreadable"}
    assert refused_entries(files)[0].count("Permission denied") == 0 and "patient7" in refused_entries(files)[0]


def test_transfers_that_are_not_finished_are_unreadable(tmp_path):
    names = ["1.dcm.part", "2.dcm.crdownload", "3.tmp", "4.nii.gz.filepart", ".5.dcm.Xy12Zq", "6.dcm.partial"]
    write(*(tmp_path / name for name in (*names, "7.dcm")))
    files = walk(tmp_path)
    assert [name for name, _ in files] == ["7.dcm"] and refused(files) == dict.fromkeys(names, "unreadable")
    assert "6 entries were not read" in refused_entries(files)[0] and "not finished" in refused_entries(files)[0]


def test_what_is_no_file_is_listed_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.getcwd()
        os.chdir(tmp_path)
        server.bind("socket.png")
        os.chdir(folder)
        (tmp_path / "link.png").symlink_to("pipe.png")
        files = walk(tmp_path)
    assert not len(files) and refused(files) == dict.fromkeys(["link.png", "pipe.png", "socket.png"], "not_an_image")
    assert not len(walk(tmp_path / "pipe.png"))


def test_thousands_of_nested_folders_end_in_a_refusal(tmp_path):
    write(tmp_path / "a.png")
    folder = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(folder)
    files = walk(tmp_path)
    assert [name for name, _ in files] == ["a.png"]
    [refusal] = files.refused
    assert refusal.kind == "unreadable" and "name too long" in refusal.reason.lower()
    _remove(tmp_path / "d")


def _remove(folder: Path) -> None:
    """Remove a chain of folders that is too deep for a path."""
    here = os.getcwd()
    os.chdir(folder)
    depth = 0
    while os.path.isdir("d"):
        os.chdir("d")
        depth += 1
    for _ in range(depth):
        os.chdir("..")
        os.rmdir("d")
    os.chdir(here)
