"""Names from others: in figures, files and paths they are text and nothing else."""

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from support.tiny_study import STUDY, small, write_study

from ssl_transfer.errors import RecipeError
from ssl_transfer.run import Artifact
from ssl_transfer.study.design import load_study
from ssl_transfer.study.report.drawing import STYLE, inline_svg, svg_text
from ssl_transfer.study.report.section import Drawing

HOSTILE = r"$\frac$ <script>alert(1)</script> & {metric.__class__} %s"


def figure_of(text: str) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2, 1), layout="constrained")
        figure.text(0.1, 0.5, text)
    return figure


def test_a_name_in_a_figure_is_text_of_the_page():
    svg = inline_svg(svg_text(figure_of(HOSTILE)), HOSTILE)
    assert "<script>" not in svg
    assert svg.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; {metric.__class__} %s") >= 1 and r"$\frac$" in svg


def test_the_files_of_a_figure_lie_in_their_folder_whatever_its_metric_is_called(tmp_path):
    Drawing("answer_../../../x y", figure_of("x"), "caption").write(tmp_path / "figures")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["answer_.._.._.._x_y.png", "answer_.._.._.._x_y.svg"]


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", ".hidden"])
@pytest.mark.parametrize("section", ["tasks", "stores", "name"])
def test_names_that_are_parts_of_paths_have_no_separators(tmp_path, section, name):
    changes = (
        {"name": name}
        if section == "name"
        else {section: {**STUDY[section], name: next(iter(STUDY[section].values()))}}
    )
    with pytest.raises(RecipeError, match=rf"{section}: Found the name"):
        load_study(write_study(tmp_path, **{**small(), **changes}))


def test_the_default_folder_of_a_run_is_below_runs_whatever_the_recipe_is_called():
    artifact = Artifact.of("pretrain", {}, [], None, record="r.json", name="../../etc/x")
    assert artifact.folder == Path("runs") / f"-..-etc-x-{artifact.id[:8]}"
