"""The documentation as a site: it builds without a warning, has a page for everything, and describes every option."""

import inspect
import os
import re
import sys

import pytest
from support.command_line import ENVIRONMENT, ROOT, run

from ssl_transfer import recipe
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.evaluation.registry import IMPLEMENTATIONS
from ssl_transfer.evaluation.strategies.registry import STRATEGIES
from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.training.optim import OPTIMIZERS

PAGE_OF = {  # of every function or class with options
    **{f"methods/{name}": method for name, method in METHODS.items()},
    **{f"strategies/{name}": strategy for name, strategy in STRATEGIES.items()},
    **{f"protocols/{name}": protocol for name, protocol in IMPLEMENTATIONS.items()},
    **{f"views#{name}": preset for name, preset in VIEWS.items()},
    **{f"optimizers#{name}": optimizer for name, optimizer in OPTIMIZERS.items()},
}
SECTIONS = [
    section
    for section in vars(recipe).values()
    if inspect.isclass(section) and issubclass(section, recipe.Section) and section.model_fields
]
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
OPTIONS = [
    *(
        (page, target, name)
        for page, target in PAGE_OF.items()
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind is KEYWORD_ONLY
    ),
    *(("recipes", section, name) for section in SECTIONS for name in section.model_fields),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    os.environ["NO_MKDOCS_2_WARNING"] = ENVIRONMENT["NO_MKDOCS_2_WARNING"] = "1"
    answer = run(command, ROOT)
    assert answer.status == 0, answer.stderr
    return folder


def text_of(page) -> str:
    """A page without tags."""
    return re.sub(r"<[^>]*>", "", page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGE_OF if "#" not in page] + [f"scores/{name}" for name in SCORES])
def test_there_is_a_page_of_each(page, site):
    assert (site / f"{page}.html").exists()


def test_nothing_is_fetched_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        fetched = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=[\"']?(https?://[^\"' >]*)", page.read_text())
        assert not fetched, page


def test_the_options_are_found():
    assert len(OPTIONS) > 150


@pytest.mark.parametrize(("page", "target", "name"), OPTIONS, ids=lambda value: getattr(value, "__name__", value))
def test_an_option_has_a_line_in_the_docstring(page, target, name):
    line = re.search(rf"^ +{name}: (\S.*)$", inspect.getdoc(target), re.M)
    assert line, f"{target.__name__}: no line of {name}"
    assert len(line[1]) > 12


@pytest.mark.parametrize("page", PAGE_OF)
def test_every_option_is_on_its_page(page, site):
    text = text_of(site / f"{page.partition('#')[0]}.html")
    for name, parameter in inspect.signature(PAGE_OF[page]).parameters.items():
        if parameter.kind is KEYWORD_ONLY:
            assert re.search(rf"\b{name}\b", text), f"{page}: {name}"


def test_every_key_of_a_recipe_is_on_its_page(site):
    text = "".join(text_of(site / f"{page}.html") for page in ("recipes", "protocols/finetune"))
    for section in SECTIONS:
        for name in section.model_fields:
            assert re.search(rf"\b{name}\b", text), f"{section.__name__}.{name}"


def test_every_word_of_the_glossary_has_a_meaning():
    rows = (ROOT / "docs/glossary.md").read_text().partition("|---|---|\n")[2].splitlines()
    words = [row.split("|")[1].strip() for row in rows]
    assert words == sorted(words, key=str.lower)
    assert all(row.split("|")[2].strip() for row in rows)
