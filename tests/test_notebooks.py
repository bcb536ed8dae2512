"""The notebooks: kept clean, made of public names, and run from end to end on a tiny quickstart."""

import ast
import json
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbclient
import nbformat
import pandas as pd
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from support.command_line import ENVIRONMENT, ROOT, ssl_transfer

import ssl_transfer as st

SLOW = {"02_feature_space", "03_linear_probe_sweep", "05_your_own_ct_archive"}  # `make test-long` runs them
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {
    "01_quickstart": 3,
    "02_feature_space": 6,
    "03_linear_probe_sweep": 6,
    "04_compare_pretrainings": 7,
    "05_your_own_ct_archive": 4,
}
LIBRARIES = {"IPython", "matplotlib", "numpy", "pandas", "sklearn", "ssl_transfer"}


def sources(path: Path) -> list[str]:
    """The code cells of a notebook as Python, command lines (`!ssl-transfer …`) as calls."""
    cells = nbformat.read(path, as_version=4).cells
    return [TransformerManager().transform_cell(cell.source) for cell in cells if cell.cell_type == "code"]


@dataclass(frozen=True)
class Executed:
    """What a notebook showed, and which files it changed."""

    outputs: list
    changed: set[Path]

    @property
    def pictures(self) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.outputs)

    @property
    def words(self) -> str:
        return "\n".join(output["data"].get("text/markdown", "") for output in self.outputs if "data" in output)

    def stream(self, name: str) -> str:
        return "".join(output["text"] for output in self.outputs if output.get("name") == name)


@pytest.fixture(scope="module")
def workdir(tiny_quickstart, tmp_path_factory) -> Path:
    """Where somebody started `ssl-transfer quickstart --scale tiny --out quick`."""
    quick, answer = tiny_quickstart
    assert answer.status == 0, answer.stderr
    workdir = tmp_path_factory.mktemp("reader")
    shutil.copytree(quick, workdir / "quick")
    (workdir / "notebooks").mkdir()
    return workdir


@pytest.fixture(scope="module")
def executed(workdir):
    """Runs the notebook of a name, once, from `notebooks/`."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    @cache
    def execute(name: str) -> Executed:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        before = files()
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": workdir / "notebooks"}}
        ).execute(env={**ENVIRONMENT, "QUICKSTART": "quick"})
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        after = files()
        return Executed(outputs, {path for path in before | after if before.get(path) != after.get(path)})

    return execute


def test_there_is_a_notebook_for_every_question():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_defines_nothing(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in cells)
    nodes = {type(node) for source in sources(path) for node in ast.walk(ast.parse(source))}
    assert nodes.isdisjoint({ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_the_public_api_only(path):
    source = "\n".join(sources(path))
    assert not re.search(r"\bssl_transfer\.|from ssl_transfer", source)
    assert set(re.findall(r"\bst\.(\w+)", source)) <= set(st.__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_installed_packages_only(path):
    nodes = [node for source in sources(path) for node in ast.walk(ast.parse(source))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= LIBRARIES | sys.stdlib_module_names


def run_now_or_long(names) -> list:
    """Parameters, the slow ones marked."""
    return [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in names]


@pytest.mark.parametrize("name", run_now_or_long(PICTURES))
def test_a_notebook_runs_on_the_quickstart_with_its_figures_and_without_warnings(name, executed):
    shown = executed(name)
    assert shown.pictures == PICTURES[name]
    stderr = shown.stream("stderr")
    assert "warning" not in stderr.lower(), stderr  # on a new machine Matplotlib may say that it builds its font cache


def test_the_quickstart_notebook_states_every_primary_contrast(executed):
    assert executed("01_quickstart").words.count(" against ") == 2 * 6


@pytest.mark.long
def test_the_sweep_gives_the_results_of_the_command_line(executed, workdir):
    stated = re.search(
        r"`(runs/evaluate/\w+)/result.json`, with balanced accuracy ([\d.]+)", executed("03_linear_probe_sweep").words
    )
    result = json.loads((workdir / stated[1] / "result.json").read_text())
    assert f"{result['metrics']['test']['balanced_accuracy']:.6f}" == stated[2]
    answer = ssl_transfer(
        "evaluate",
        "linear_probe",
        st.open_study(workdir / "quick").backbone(result["backbone"]["name"], result["pretraining_seed"]),
        next((workdir / "quick").glob("tasks/*/phantom_region.yaml")),
        f"fraction={result['fraction']}",
        f"seed={result['seed']}",
        "--out",
        "again",
        "--features",
        "features_again",
        "--json",
        folder=workdir,
    ).json
    for name in ("run_id", "selected", "metrics", "intervals", "n"):
        assert answer[name] == result[name]
    predictions = [pd.read_parquet(workdir / folder / "predictions.parquet") for folder in (stated[1], "again")]
    pd.testing.assert_frame_equal(*predictions)


@pytest.mark.parametrize(
    "name", run_now_or_long(["02_feature_space", "03_linear_probe_sweep", "05_your_own_ct_archive"])
)
def test_a_notebook_writes_below_runs_only(name, executed, workdir):
    assert {path.relative_to(workdir).parts[0] for path in executed(name).changed} == {"runs"}


@pytest.mark.parametrize("name", run_now_or_long(["02_feature_space", "05_your_own_ct_archive"]))
def test_a_command_in_a_notebook_succeeds_and_the_explorer_exists(name, executed, workdir):
    shown = executed(name)
    assert "Error" not in shown.stream("stdout")
    assert shown.words.count("near-duplicates across splits") == 1
    assert (workdir / re.search(r"\[`(\S+)`\]\((\S+)\)", shown.words)[1]).is_file()  # the explorer


@pytest.mark.long
def test_the_feature_space_notebook_compares_a_backbone_before_and_after_fine_tuning(executed, workdir):
    folder = re.search(r"\[`(\S+)/explorer\.html`\]", executed("02_feature_space").words)[1]
    analysis = json.loads((workdir / folder / "analysis.json").read_text())
    before, after, *others = analysis["backbones"]
    assert before["id"] in after["parents"]
    assert [backbone["name"] for backbone in others] == ["cell lines", "photographs", "scratch"]


@pytest.mark.long
def test_an_archive_is_split_by_patient_and_its_refused_files_are_counted(executed):
    words = executed("05_your_own_ct_archive").words
    assert "0 of 18 patients are in more than one split" in words
    assert re.search(r"pydicom's test files\*\*: \d+ images of \d+ patients; set aside: \d+ not an image", words)


def test_the_comparison_notebook_writes_nothing(executed):
    assert executed("04_compare_pretrainings").changed == set()


def test_the_comparison_notebook_states_the_contrasts_of_the_table(executed, workdir):
    contrasts = pd.read_csv(workdir / "quick" / "tables" / "contrasts.csv")
    primary = contrasts[
        (contrasts["family"] == "secondary")
        & (contrasts["protocol"] == "linear_probe")
        & (contrasts["metric"] == "balanced_accuracy")
        & (contrasts["fraction"] == 0.3)
    ]
    words = executed("04_compare_pretrainings").words
    assert len(primary) == 6
    for row in primary.itertuples():
        assert (
            f"- **{row.a}** against **{row.b}**: {row.difference:+.3f} ({row.ci_low:+.3f} to {row.ci_high:+.3f};"
            in words
        )
    assert "corrected p-values differ by at most 0e+00" in words  # Holm by hand


def test_the_comparison_ends_in_a_latex_table_of_every_condition(executed):
    latex = executed("04_compare_pretrainings").stream("stdout")
    rows = re.findall(r"^.*\\pm.*\\\\$", latex, re.M)
    assert len(rows) == 2 + 2 + 1 + 1  # probe and kNN at two fractions, fine-tuning, segmentation
    assert all(row.count("&") == 5 and row.count(r"\pm") == 4 for row in rows)
