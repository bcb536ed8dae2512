"""Colours of figures: stated once."""

import re

from support.command_line import ROOT

from ssl_transfer.palette import COLORS, GREY, INK, MANY_COLORS


def test_the_first_colours_of_many_are_those_of_few():
    assert MANY_COLORS[: len(COLORS)] == COLORS and len(set(MANY_COLORS)) == 12


def test_no_other_module_states_a_colour_of_the_palette():
    stated = re.compile("|".join((*MANY_COLORS, GREY, INK)), re.IGNORECASE)
    modules = {path.name for path in (ROOT / "ssl_transfer").rglob("*.py") if stated.search(path.read_text())}
    assert modules == {"palette.py"}
