"""The examples in the docstrings of the package do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import ssl_transfer


def package_modules() -> list[str]:
    """Every module of the package but those that run when they are imported."""
    found = [module.name for module in pkgutil.walk_packages(ssl_transfer.__path__, "ssl_transfer.")]
    return ["ssl_transfer", *(name for name in found if not name.endswith("__main__"))]


def examples() -> list[doctest.DocTest]:
    """The docstrings of the package that have an example, each with the names of its module."""
    modules, finder = map(importlib.import_module, package_modules()), doctest.DocTestFinder(exclude_empty=True)
    return [test for module in modules for test in finder.find(module) if test.examples]


EXAMPLES = examples()


def test_the_examples_of_the_package_are_found():
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("ssl_transfer."))
def test_the_examples_of_docstrings_run(example, ct_store, tmp_path, monkeypatch):
    """In a folder that holds a store, `stores/ct`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "ct").symlink_to(ct_store.path)
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("ssl_transfer."))
def test_no_example_is_skipped(example):
    assert not any(one.options.get(doctest.SKIP) for one in example.examples)
