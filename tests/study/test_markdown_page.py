"""A Markdown page is filled with tables, figures and texts of a report, and keeps what its author wrote."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
from support.pages import build, study

from ssl_transfer.errors import UsageError
from ssl_transfer.study.report.evidence import Evidence, Provenance
from ssl_transfer.study.report.markdown_page import _Value, fill_page

PROVENANCE = Provenance(
    title="Does it pay?", question="Is CT better?", commands=["ssl-transfer study report studies/ct"]
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder and evidence of a report of two arms."""
    frame = study({"in-domain CT": 0.2, "photographs": 0.0})
    folder = tmp_path_factory.mktemp("report")
    build(folder, frame)
    return folder, Evidence(
        frame=frame, primaries=[{"protocol": "linear_probe", "metric": "auroc"}], provenance=PROVENANCE
    )


@pytest.fixture
def filled(report, tmp_path):
    """Fill a page of a text, again and again."""
    folder, evidence = report

    def fill(text: str) -> str:
        page = tmp_path / "page.md"
        page.write_text(text)
        return fill_page(page, folder, evidence).read_text()

    return fill


TABLE = """Before.

<!-- table:
  name: results
  where: {protocol: knn, metric: auroc, fraction: 0.1}
  columns: {Arm: "{pretraining}", Labels: "{fraction}", n: "{n}", Mean: "{mean} ± {sd}"}
-->
<!-- end -->

After.
"""


def test_a_table_has_the_rows_and_columns_that_its_block_names(filled, report):
    text = filled(TABLE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    table = pd.read_csv(report[0] / "tables/results.csv").query(
        "protocol == 'knn' and metric == 'auroc' and fraction == 0.1"
    )
    assert rows[0] == "| Arm | Labels | n | Mean |"
    assert rows[2:] == [
        f"| {row.pretraining} | 10 % | {row.n} | {row.mean:.3f} ± {row.sd:.3f} |"
        for row in table.itertuples(index=False)
    ]
    assert text.startswith("Before.") and text.endswith("After.\n")


def test_filling_twice_changes_nothing(filled):
    once = filled(TABLE)
    assert filled(once) == once


def test_signs_are_shown_where_they_are_asked_for(filled):
    block = '<!-- table: {name: contrasts, columns: {"A − B": "{difference:+}", p: "{p_value}"}} -->\n<!-- end -->\n'
    cells = re.findall(r"^\| ([+−]0\.\d{3}) \| (\.\d{3}|< \.001|1) \|$", filled(block), re.M)
    assert cells


def test_counts_are_whole_numbers_in_a_column_with_gaps_too():
    shown = [f"{_Value(column, 29.0)}" for column in ("val_patients", "images", "n", "minutes")]
    assert shown == ["29", "29", "29", "29.0"]


def test_a_figure_is_copied_beside_the_page(filled, report, tmp_path):
    name = sorted(path.stem for path in (report[0] / "figures").glob("*.svg"))[0]
    assert f"![The figure](page/{name}.svg)" in filled(
        f"<!-- figure: {{name: {name}, caption: The figure}} -->\n<!-- end -->\n"
    )
    assert (tmp_path / "page" / f"{name}.svg").read_text() == (report[0] / "figures" / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: result -->\n<!-- end -->", "no tables/result.csv. Did you mean 'results'?"),
        (
            "<!-- table: {name: results, where: {metrik: auroc}} -->\n<!-- end -->",
            "no column 'metrik'. Did you mean 'metric'?",
        ),
        (
            "<!-- table: {name: results, columns: {M: '{meen}'}} -->\n<!-- end -->",
            "no column 'meen'. Did you mean 'mean'?",
        ),
        ("<!-- table: {name: results, rows: 3} -->\n<!-- end -->", "no option 'rows'"),
        ("<!-- figure: effects_auroq -->\n<!-- end -->", "no figures/effects_auroq.svg"),
        ("<!-- text: anser -->\n<!-- end -->", "Did you mean 'answer'?"),
        ("<!-- text: answer -->\n\nNo end.", "1 blocks begin"),
        ("<!-- table: {name: [ -->\n<!-- end -->", "Expected such as <!-- table: results -->"),
    ],
)
def test_a_wrong_block_is_refused_with_what_to_do(filled, text, message):
    with pytest.raises(UsageError) as error:
        filled(text)
    assert message in str(error.value)


def test_a_new_page_leaves_out_what_the_report_does_not_have(report, tmp_path):
    text = fill_page(tmp_path / "new.md", *report).read_text()
    assert "figure:" not in text and "table: flow" not in text and "# Does it pay?" in text


def test_a_page_that_does_not_exist_is_begun(report, tmp_path):
    folder, evidence = report
    (folder / "tables/flow.csv").write_text("task,fraction,train_images\nbody_region,0.1,9–14\n")
    shutil.copyfile(next((folder / "figures").glob("*.svg")), folder / "figures/answer_differences.svg")
    text = fill_page(tmp_path / "new/ct.md", folder, evidence).read_text()
    assert "# Does it pay?" in text and "Is CT better?" in text
    assert "| body region | 10 % | 9–14 |" in text
    results = text.partition("## Results")[2].partition("## Images")[0]
    assert (
        "where: {metric: [auroc" in results
        and "| AUROC |" in results
        and "| AUROC " not in results.replace("| AUROC |", "")
    )
    assert (tmp_path / "new/ct/answer_differences.svg").is_file()
