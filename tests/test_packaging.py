"""The sdist and the wheel: what is in them, and that an installed wheel works without the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.command_line import ROOT, run

DEPENDENCIES = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    answer = run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    assert answer.status == 0, answer.stderr + answer.stdout
    return folder


def only(paths) -> Path:
    """The one path of an iterable."""
    (path,) = paths
    return path


def package_files() -> set[str]:
    """Every file of the package and every recipe, under the name that it has in the wheel."""
    package = [path for path in (ROOT / "ssl_transfer").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    recipes = {
        f"ssl_transfer/recipes/{path.relative_to(ROOT / 'recipes')}" for path in (ROOT / "recipes").rglob("*.yaml")
    }
    return recipes | {str(path.relative_to(ROOT)) for path in package}


@pytest.mark.parametrize("kind", [".py", ".pyi", ".js", ".css", ".jinja", ".yaml", "py.typed"])
def test_the_wheel_has_every_file_of_the_package(built, kind):
    wanted = {name for name in package_files() if name.endswith(kind)}
    assert wanted and wanted <= set(zipfile.ZipFile(only(built.glob("*.whl"))).namelist())


def test_the_wheel_has_nothing_but_the_package(built):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(only(built.glob("*.whl"))).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ssl_transfer"}


def test_the_sdist_has_package_recipes_and_licence(built):
    with tarfile.open(only(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml")}
    assert recipes | {"pyproject.toml", "README.md", "LICENSE", "ssl_transfer/py.typed"} <= names


def installed(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel, which sees the installed dependencies and not the checkout; its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(DEPENDENCIES))  # whose own .pth files are not followed
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)], check=True
    )
    return folder / "bin"


@pytest.mark.long
def test_an_installed_wheel_runs_the_quickstart_from_an_empty_folder(built, tmp_path):
    programs = installed(only(built.glob("*.whl")), tmp_path / "environment")
    (empty := tmp_path / "empty").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def answer(*command: str) -> str:
        return subprocess.run(
            command, cwd=empty, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
        ).stdout

    where = answer(str(programs / "python"), "-c", "import ssl_transfer; print(ssl_transfer.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path / "environment")
    answer(str(programs / "ssl-transfer"), "quickstart", "--scale", "tiny")
    assert (empty / "runs" / "quickstart" / "report.html").stat().st_size > 10_000
