"""The house: who may import whom, what loads what, and how rooms are called. The contracts stand in pyproject.toml."""

import ast
import re
import sys
from pathlib import Path

import pytest
from importlinter import api
from support.command_line import ROOT, run

PACKAGE = ROOT / "ssl_transfer"
HEAVY = ("torch", "lightly", "timm", "monai", "pandas")
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
CONTRACTS = {
    contract["id"]: contract for contract in api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
}


def loaded(code: str, tmp_path) -> set[str]:
    """Names of the top-level packages that a fresh interpreter holds after running `code`."""
    script = f"import sys\n{code}\nprint('loaded:', *{{name.partition('.')[0] for name in sys.modules}})"
    answer = run([sys.executable, "-c", script], tmp_path)
    assert answer.status == 0, answer.stderr
    return set(answer.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("contract", ["layers", "acyclic", "artifacts", "recipes"])
def test_imports_keep_the_contract(contract):
    answer = run(["lint-imports", "--no-cache", "--contract", contract], ROOT)
    assert "1 kept, 0 broken" in answer.stdout, answer.stdout


def test_every_contract_of_the_project_is_checked_above():
    assert set(CONTRACTS) == {"layers", "acyclic", "artifacts", "recipes"}


def test_the_table_of_the_documentation_names_the_layers_in_their_order():
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.partition("| layer | what it contains |")[2].partition("\n\n")[0]
    layers = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert layers == re.findall(r"\w+", " ".join(CONTRACTS["layers"]["layers"]))


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    assert loaded("import ssl_transfer", tmp_path).isdisjoint((*HEAVY, "numpy"))


def test_the_package_knows_its_public_names_without_loading_them(tmp_path):
    code = "import ssl_transfer\nassert 'open_store' in dir(ssl_transfer) and not hasattr(ssl_transfer, 'opn_store')"
    assert loaded(code, tmp_path).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["pretrain", "--help"], ["evaluate", "--help"]], ids=" ".join
)
def test_help_loads_nothing_heavy(words, tmp_path):
    code = f"""
from ssl_transfer.cli import main
try:
    main({words})
except SystemExit as end:
    assert end.code == 0"""
    assert loaded(code, tmp_path).isdisjoint((*HEAVY, "numpy"))


@pytest.mark.parametrize(
    "module",
    [
        "data.ingest",
        "data.inspect",
        "data.tasks",
        "recipe",
        "result",
        "study.report",
        "study.statistics",
        "study.table",
    ],
)
def test_ingest_tasks_and_studies_never_load_torch(module, tmp_path):
    assert "torch" not in loaded(f"import ssl_transfer.{module}", tmp_path)


def test_a_whole_ingest_and_its_contact_sheet_never_load_torch(tmp_path):
    code = """
from ssl_transfer.cli import main
assert main(['ingest', 'phantom:ct,patients=2,slices=6,size=16', '--out', 'store', '--workers', '1']) == 0
assert main(['inspect', 'store', '--figure', 'sheet.png']) == 0"""
    assert loaded(code, tmp_path).isdisjoint(("torch", "lightly", "timm", "monai"))


def test_a_wrong_fraction_is_refused_before_torch_loads(tmp_path):
    words = ["evaluate", "knn", "scratch:resnet10t", "none", "fraction=[0.1,3]"]
    code = f"from ssl_transfer.cli import main\nassert main({words}) == 2"
    assert "torch" not in loaded(code, tmp_path)


def test_nothing_is_measured_or_ordered_by_a_clock_that_may_be_set():
    """Durations and time-outs are those of the monotonic clock; files are not compared by their dates."""
    wall = re.compile(r"\btime\.time(_ns)?\(|\bgetmtime\(|\.st_mtime\b|datetime\.now\([^)]*\) *-")
    assert not [str(module) for module in MODULES if wall.search((PACKAGE / module).read_text())]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_begins_with_a_docstring(module):
    assert ast.get_docstring(ast.parse((PACKAGE / module).read_text()))


def test_no_module_is_called_utils_or_the_like():
    assert len(MODULES) > 50
    names = {part.removesuffix(".py") for module in MODULES for part in module.parts}
    assert names.isdisjoint(
        {"util", "utils", "helpers", "helper", "common", "base", "manager", "wrapper", "misc", "core"}
    )


def test_the_top_level_holds_what_the_design_names_and_nothing_else():
    answer = run(["git", "ls-files"], ROOT)
    if answer.status:
        pytest.skip("no git checkout")
    tops = {line.partition("/")[0] for line in answer.stdout.splitlines() if not line.startswith(".")}
    assert tops <= {
        "pyproject.toml",
        "README.md",
        "ssl_transfer",
        "recipes",
        "launch",
        "tests",
        "notebooks",
        "pretrain.py",
        "Makefile",
        "benchmarks",
        "docs",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "mkdocs.yml",
    }


# The house: what a file may hold


def functions() -> dict[str, int]:
    """Every function of the package -> how many lines it has, without its docstring, which explains each of its options."""
    return {
        f"{module}:{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1 - docstring_lines(node)
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0


def test_no_function_has_more_than_80_lines():
    assert not {name: lines for name, lines in functions().items() if lines > 80}


def test_nine_of_ten_functions_have_25_lines_or_fewer():
    lengths = sorted(functions().values())
    assert len(lengths) > 1000 and lengths[len(lengths) * 9 // 10] <= 25


@pytest.mark.parametrize("folder", ["ssl_transfer", "tests"])
def test_no_file_has_more_than_450_lines(folder):
    lengths = {str(path): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert len(lengths) > 100
    assert not {path: lines for path, lines in lengths.items() if lines > 450}


def is_declaration(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement is a docstring, an import, or binds one of the names."""
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)} <= names
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("module", [module for module in MODULES if module.name == "__init__.py"], ids=str)
def test_a_package_s_init_holds_a_docstring_imports_and_all(module):
    body = ast.parse((PACKAGE / module).read_text()).body
    allowed = {"__all__"}
    if len(module.parts) == 1:  # the top level also has its version, and attaches its public names when they are used
        assert ast.unparse(body.pop()) == "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)"
        allowed |= {"__version__"}
    assert [ast.unparse(node) for node in body if not is_declaration(node, allowed)] == []


@pytest.mark.parametrize("word", ["fmt: skip", "fmt: off", "GIVEN"])
@pytest.mark.parametrize("folder", ["ssl_transfer", "tests", "benchmarks"])
def test_the_formatter_has_no_exceptions_and_option_names_are_not_listed_by_hand(folder, word):
    this = Path(__file__)
    assert not [
        path for path in (ROOT / folder).rglob("*.py") if path != this and re.search(rf"\b{word}\b", path.read_text())
    ]
