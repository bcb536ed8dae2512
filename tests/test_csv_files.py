"""CSV: what came from data is text in a spreadsheet, LaTeX and a page, never a formula, a command or a tag."""

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.csv_files import plain_cell, write_csv
from ssl_transfer.study.report.section import latex

HOSTILE = ["=HYPERLINK(A1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "%00=1", "|calc"]
HARMLESS = ["liver", "-1.5", "+3", "1e-5", "", "a=b", "−2"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_formula_is_written_as_text(tmp_path, text):
    write_csv(pd.DataFrame({"name": [text, "liver"], "value": [-1.0, 2.0]}), tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read["name"]) == [f"'{text}", "liver"] and list(read["value"]) == [-1.0, 2.0]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text):
    assert plain_cell(text) == text


def test_a_formula_in_a_heading_is_written_as_text(tmp_path):
    write_csv(pd.DataFrame({"=1+1": [1]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith("'=1+1")


@pytest.mark.parametrize("kind", ["string", "category", "object"])
def test_columns_of_every_kind_of_text_are_covered_and_missing_cells_stay_missing(tmp_path, kind):
    table = pd.DataFrame(
        {"name": pd.Series(["=1", None, "x"], dtype=kind), "seed": pd.Series([1, None, 3], dtype="Int64")}
    )
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "name,seed\n'=1,1\n,\nx,3\n"
    assert list(table["name"].dropna()) == ["=1", "x"]


def test_a_table_without_text_is_that_of_pandas(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3)), columns=list("abc"))
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False)


def test_a_name_in_latex_is_no_command():
    text = latex(pd.DataFrame({"Task": [r"\input{/etc/passwd} $x$ 5% a_b #1 & {}"]}))
    assert r"\input" not in text and r"\textbackslash input\{/etc/passwd\} \$x\$ 5\% a\_b \#1 \& \{\}" in text
