"""The report claims what the verdicts allow, stands on its own, and works in a browser."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
from support.pages import browse, build, study

from ssl_transfer.console import duration
from ssl_transfer.errors import UsageError
from ssl_transfer.study.report import drawing, figures
from ssl_transfer.study.report.evidence import Attachment
from ssl_transfer.study.report.guidance import advice
from ssl_transfer.study.report.wording import number, p_value, powers
from ssl_transfer.study.statistics import CONTRAST_COLUMNS
from ssl_transfer.study.table import SCRATCH


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    frame = study({"in-domain CT": 0.2, "photographs": 0.1, SCRATCH: 0.0})
    return build(tmp_path_factory.mktemp("report"), frame)


def pairs(**verdicts) -> pd.DataFrame:
    """Contrasts of arms named by one letter (S: scratch): ab="better" says that a was better than b."""
    names = {"s": SCRATCH}
    rows = [(names.get(a, a), names.get(b, b), "pretraining_seed", verdict) for (a, b), verdict in verdicts.items()]
    return pd.DataFrame(rows, columns=["a", "b", "unit", "verdict"])


# --- what it says ---


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ({"ab": "better"}, "Take a: better than b."),
        ({"ab": "worse"}, "Take b: better than a."),
        ({"ab": "not decided"}, "Too few seeds to tell a and b apart."),
        ({"ab": "equivalent"}, "Take any: a and b are equivalent within the stated margin."),
        ({"ab": "equivalent and different"}, "Take any: a and b are equivalent within the stated margin."),
        (
            {"ab": "not decided", "ac": "better", "bc": "better"},
            "Take a or b: better than c; this design does not distinguish between them.",
        ),
        (
            {"ab": "equivalent", "ac": "better", "bc": "better"},
            "Take a or b: better than c; they are equivalent within the margin.",
        ),
        ({"ab": "not decided", "ac": "better", "bc": "not decided"}, "Take a: better than c; not decided against b."),
        (
            {"ab": "equivalent", "ac": "better", "bc": "not decided"},
            "Take a: better than c; equivalent to b within the margin.",
        ),
        ({"ab": "better", "ac": "better", "bc": "better"}, "Take a: better than b and c."),
    ],
)
def test_the_advice_claims_no_more_than_the_verdicts(verdicts, sentence):
    assert advice(pairs(**verdicts)) == sentence


def test_random_initialisation_is_named_and_can_win():
    assert advice(pairs(**{"as": "worse"})) == "Do not pretrain: random initialisation (scratch) was better than a."
    undecided = advice(pairs(**{"as": "not decided"}))
    assert undecided == "Too few seeds to tell a and random initialisation (scratch) apart."


@pytest.mark.parametrize(
    ("difference", "start"), [(0.03, "Too few seeds"), (-0.03, "Too few seeds"), (0.01, "Not decided:")]
)
def test_an_open_contrast_has_too_few_seeds_if_its_estimate_is_relevant(difference, start):
    assert advice(pairs(ab="not decided").assign(difference=difference), 0.02).startswith(start)


def test_the_word_better_never_appears_without_a_verdict_that_says_it(tmp_path):
    text = build(tmp_path, study({"in-domain CT": 0.0, "photographs": 0.0}), family=()).read_text()
    assert "Too few seeds to tell in-domain CT and photographs apart." in text
    assert not re.search(r"[Bb]etter than|verdict better|verdict worse", text)


def test_a_win_over_single_checkpoints_says_so():
    won = pairs(ab="better").assign(unit="seed")
    assert (
        advice(won) == "Take a: better than b. This holds for the weights compared, not for the way they were trained."
    )


def test_the_answer_names_the_winner_with_its_evidence(page):
    text = page.read_text()
    assert "Take in-domain CT: better than photographs and random initialisation (scratch)." in text
    assert "n = 4 pairs of pretraining seeds" in text
    assert re.search(
        r"with 4 pairs of seeds, 80 % power at the level that decides \(\.\d+\) needs a true difference", text
    )


def test_unequal_budgets_are_warned_of(tmp_path):
    arms = [{"name": "in-domain CT", "images": 100}, {"name": "photographs", "images": 1200}, {"name": SCRATCH}]
    text = build(tmp_path, study({"in-domain CT": 0.2, "photographs": 0.1, SCRATCH: 0.0}), arms=arms).read_text()
    assert "Unequal budget: pretrainings differ in images (in-domain CT 100, photographs 1,200)" in text


def test_one_arm_alone_makes_a_page_without_an_answer(tmp_path):
    assert "No answer yet" in build(tmp_path, study({SCRATCH: 0.0})).read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8731, "0.873"), (-0.0312, "−0.031"), (12.345, "12.3"), (4.937, "4.94"), (1234.5, "1234"), (float("nan"), "–")],
)
def test_numbers_have_three_digits(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(("p", "shown"), [(0.0123, ".012"), (0.0004, "< .001"), (1.0, "1"), (float("nan"), "–")])
def test_p_values_read_as_papers_print_them(p, shown):
    assert p_value(p) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.84, "0.8 s"), (42, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_are_written_in_words(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), [(None, "–"), (0, "0"), (8.21e9, "8.21 × 10⁹"), (4.2e21, "4.20 × 10²¹")])
def test_large_numbers_have_three_digits_and_a_power_of_ten(count, shown):
    assert powers(count) == shown


def test_the_table_of_costs_states_images_steps_flops_and_hours_and_their_totals(page):
    table = page.read_text().partition("Cost by stage")[2].partition("</table>")[0]
    of_pretraining, total = (
        re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)[1::2]
    )
    assert of_pretraining[1:6] == ["640", "20", "1.23 × 10⁶", "0.0169", "1 min 01 s"]
    assert total[1:5] == ["640", "20", "1.23 × 10⁶", "0.0169"]


# --- what it is made of ---


def test_the_page_refers_to_nothing_outside_itself(page):
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 1
    assert text.count("<svg role=") == 3
    assert "http" not in text
    outside = [link for link in re.findall(r'(?:src|href)="([^"]*)"', text) if not link.startswith(("#", "data:"))]
    assert outside == []


def test_user_text_is_escaped(page):
    assert "<title>Does it &lt;pay&gt;?</title>" in page.read_text()


def test_ids_are_unique_and_every_reference_has_its_target(page):
    text = page.read_text()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w.-]+)', text)) <= set(ids)


def test_ink_follows_the_page_and_arms_keep_their_colours(page):
    for svg in re.findall(r"<svg.*?</svg>", page.read_text(), flags=re.DOTALL):
        assert "currentColor" in svg
        assert drawing.INK not in svg
        assert drawing.COLORS[0] in svg  # the first arm by name, in every figure


def test_tables_and_figures_lie_beside_the_page(page):
    names = {str(path.relative_to(page.parent)) for path in page.parent.rglob("*.*")} - {"umap.png", "report.html"}
    drawn = {
        f"figures/{kind}_auroc.{end}"
        for kind in ("learning_curves", "seed_points", "effects")
        for end in ("png", "svg")
    }
    laid = {
        f"tables/{name}"
        for name in (
            "table.csv",
            "table.parquet",
            "contrasts.csv",
            "results.csv",
            "contrasts.tex",
            "results.tex",
            "variance.csv",
            "aa_contrasts.csv",
            "arms.csv",
            "cost.csv",
        )
    }
    assert names == drawn | laid
    assert list(pd.read_csv(page.parent / "tables/contrasts.csv").columns) == CONTRAST_COLUMNS


def test_latex_tables_escape_what_latex_reads(page):
    text = (page.parent / "tables/results.tex").read_text()
    assert text.startswith(r"\begin{tabular}")
    assert r"10 \% & " in text
    assert re.search(r"[^\\][%_]", text) is None


@pytest.mark.parametrize(
    ("name", "message"), [("gone.png", "no such file"), ("plot.gif", "PNG and SVG files, not '.gif'")]
)
def test_an_attachment_that_cannot_be_embedded_leaves_no_page(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        build(tmp_path, study({SCRATCH: 0.0}), attachments=[Attachment("t", "c", tmp_path / name)])
    assert not (tmp_path / "report.html").exists()


def test_a_row_of_the_seed_plot_stays_with_its_arm_where_another_was_not_run():
    frame = study({"in-domain CT": 0.2, "photographs": 0.1, SCRATCH: 0.0})
    gap = frame[~((frame["pretraining"] == "in-domain CT") & (frame["fraction"] == 1.0))]
    drawn = figures.seed_points(gap[gap["protocol"] == "knn"], "auroc")
    low, full = drawn.axes
    assert [label.get_text() for label in low.get_yticklabels()] == ["in-domain CT", "photographs", SCRATCH]
    rows = [points.get_offsets()[:, 1].mean() for points in full.collections]
    assert rows == pytest.approx([1.2, 2.2])  # the second and third row; points hang 0.2 below their row's middle


def test_metrics_that_only_some_protocols_have_are_drawn_too(tmp_path):
    frame = study({"in-domain CT": 0.2, SCRATCH: 0.0})
    dice = frame[(frame["metric"] == "auroc") & (frame["fraction"] == 1.0) & (frame["protocol"] == "knn")]
    frame = pd.concat([frame, dice.assign(protocol="segment", metric="dice", task="lesion")], ignore_index=True)
    build(tmp_path, frame)
    assert {path.stem for path in (tmp_path / "figures").glob("*_dice.png")} == {
        "learning_curves_dice",
        "seed_points_dice",
        "effects_dice",
    }


def test_sections_without_data_are_left_out(page):
    headings = re.findall(r"<h2 id=[^>]*>(.*?)</h2>", page.read_text())
    assert not {"Fine-tuning strategies", "Time to quality", "Score validity", "Patient bootstrap"} & set(headings)


def test_contrasts_show_t_with_its_degrees_of_freedom(page):
    assert re.search(r'<td class="num" data-v="[^"]*">t\(\d(\.\d)?\) = −?\d+\.\d</td>', page.read_text())


def test_the_page_says_how_contrasts_are_corrected_and_which_have_a_level_of_their_own(page):
    text = page.read_text()
    assert "Secondary contrasts are corrected by Holm’s rule" in " ".join(text.split())
    assert ">paired, secondary</td>" in text and ">paired, exploratory</td>" in text
    assert "Left out of the pairs" not in text


def test_runs_that_pairs_leave_out_are_counted_on_the_page(tmp_path):
    frame = study({"in-domain CT": 0.2, "photographs": 0.1, SCRATCH: 0.0})
    lost = (frame["pretraining"] == "photographs") & (frame["pretraining_seed"] == 3)
    text = build(tmp_path, frame[~lost]).read_text()
    assert (
        "Left out of the pairs: runs without a counterpart on the other side in 16 contrasts (up to 1 in one)" in text
    )


# --- in a browser ---


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_opens_without_console_messages_and_its_tables_sort(page, tmp_path):
    click = "[...document.querySelectorAll('th button')].find(b => b.textContent == 'A − B').click()"
    copy = tmp_path / "sorted.html"
    copy.write_text(page.read_text().replace("</body>", f"<script>{click}</script></body>"))
    dom, log = browse(copy, tmp_path / "profile")
    assert "CONSOLE" not in log
    table = next(own for own in re.findall(r"<table.*?</table>", dom, flags=re.DOTALL) if ">Contrasts: " in own)
    assert re.search(r'<th[^>]*aria-sort="ascending"[^>]*><button>A − B', table)
    shown = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
    differences = [float(next(cell for cell in row if cell[:1] in "+−" and cell).replace("−", "-")) for row in shown]
    assert len(differences) == 12
    assert differences == sorted(differences)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_an_error_of_a_page_appears_in_the_browser_s_log(tmp_path):
    (tmp_path / "broken.html").write_text("<!DOCTYPE html><script>nothing.here()</script>")
    assert "CONSOLE" in browse(tmp_path / "broken.html", tmp_path / "profile")[1]
