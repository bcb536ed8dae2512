"""Runs with noise are compared at one kind and strength, and nothing is averaged across either."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.errors import RunError
from ssl_transfer.study.report import figures
from ssl_transfer.study.report.drawing import arm_looks
from ssl_transfer.study.report.evidence import Evidence, Provenance
from ssl_transfer.study.report.guidance import answers
from ssl_transfer.study.report.page import write_report
from ssl_transfer.study.report.wording import noisy
from ssl_transfer.study.statistics import contrasts, holm, summary
from ssl_transfer.study.table import SCRATCH, noise_setting, with_noise

CLEAN, WEAK, STRONG = ("none", 0.0), ("gaussian test", 0.001), ("gaussian test", 0.05)
PRIMARY = {"protocol": "knn", "metric": "auroc"}
ARMS = {"in-domain CT": 0.9, "photographs": 0.7, SCRATCH: 0.5}


def study(*settings, metrics=("auroc",), arms=ARMS, **columns) -> pd.DataFrame:
    """A tidy frame of four pretraining seeds; a noise of strength sigma takes 4 × sigma from every arm."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "protocol": "knn",
            "pretraining": arm,
            "task": "region",
            "strategy": None,
            "fraction": 0.1,
            "pretraining_seed": seed,
            "seed": 0,
            "metric": metric,
            "value": level - 4 * sigma + rng.normal(0, 0.01),
            "boundary": "",
            "noise": noise,
            "noise_sigma": sigma,
            **columns,
        }
        for noise, sigma in settings
        for arm, level in arms.items()
        for metric in metrics
        for seed in range(4)
    ]
    return pd.DataFrame(rows).astype({"pretraining_seed": "Int64", "seed": "Int64"})


def page(out, frame, **primary) -> str:
    provenance = Provenance(title="t", question="q")
    return write_report(
        out, Evidence(frame=frame, primaries=[{**PRIMARY, **primary}], provenance=provenance)
    ).read_text()


# --- the table ---


@pytest.mark.parametrize(
    ("noise", "columns"),
    [
        (None, ("none", 0.0)),
        ({"kind": "none", "sigma": 0.0, "at": "both"}, ("none", 0.0)),
        ({"kind": "gaussian", "sigma": 0.01, "at": "both"}, ("gaussian train+test", 0.01)),
        ({"kind": "rician", "sigma": 0.05, "at": "train"}, ("rician train", 0.05)),
        ({"kind": "gaussian", "sigma": 1e-4, "at": "test"}, ("gaussian test", 1e-4)),
    ],
)
def test_a_setting_is_a_word_and_a_strength(noise, columns):
    assert tuple(noise_setting(noise).values()) == columns


def test_a_frame_without_noise_columns_or_with_blanks_has_none():
    frame = with_noise(pd.DataFrame({"value": [1.0, 2.0]}))
    blank = with_noise(pd.DataFrame({"noise": [None, "gaussian test"], "noise_sigma": [np.nan, 0.1]}))
    assert frame[["noise", "noise_sigma"]].values.tolist() == [["none", 0.0], ["none", 0.0]]
    assert blank.values.tolist() == [["none", 0.0], ["gaussian test", 0.1]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"noise_sigma": [0.1]}, "a column noise_sigma alone"),
        (
            {"noise": ["gaussian test"], "noise_sigma": [0.0]},
            "found noise 'gaussian test' with noise_sigma 0; expected",
        ),
        ({"noise": ["none"], "noise_sigma": [0.1]}, "found noise 'none' with noise_sigma 0.1; expected"),
    ],
)
def test_half_a_setting_is_refused(columns, message):
    with pytest.raises(RunError, match=message):
        with_noise(pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("none", 0.0), ""),
        (("gaussian test", 0.01), "Gaussian noise in test, σ 0.01"),
        (("rician train+test",), "Rician noise in training and test"),
    ],
)
def test_a_noise_setting_is_written_in_words(setting, words):
    assert noisy(*setting) == words


# --- statistics ---


def test_contrasts_and_summaries_are_made_within_one_kind_and_sigma():
    settings = [CLEAN, WEAK, STRONG, ("gaussian train", 0.05)]
    frame = study(*settings)
    pairs, means = contrasts(frame), summary(frame)
    assert len(pairs) == 3 * len(settings)
    for noise, sigma in settings:
        own = study((noise, sigma))["value"].mean()
        here = (means["noise"] == noise) & (means["noise_sigma"] == sigma)
        assert means.loc[here, "n"].tolist() == [4, 4, 4]
        assert means.loc[here, "mean"].mean() == pytest.approx(own, abs=0.01)


def test_the_values_of_a_cell_are_those_that_its_own_frame_gives():
    both, alone = study(CLEAN, STRONG), study(CLEAN)
    inside = contrasts(both).query("noise == 'none'").reset_index(drop=True)
    untouched = ["a", "b", "n_a", "n_b", "mean_a", "mean_b", "difference", "p_value", "hedges_g"]
    pd.testing.assert_frame_equal(inside[untouched], contrasts(alone)[untouched])


def test_every_sigma_adds_its_pairs_to_the_family():
    pairs = contrasts(study(CLEAN, WEAK, STRONG))
    np.testing.assert_allclose(pairs["p_holm"], holm(pairs["p_value"]))
    apart = contrasts(study(CLEAN, WEAK, STRONG), family=("protocol", "metric", "noise", "noise_sigma"))
    clean = apart[apart["noise"] == "none"]
    np.testing.assert_allclose(clean["p_holm"], holm(clean["p_value"]))


def test_an_arm_that_was_run_at_one_sigma_only_is_compared_there_only():
    frame = pd.concat([study(CLEAN, STRONG), study(STRONG, arms={"cells": 0.8})])
    pairs = contrasts(frame)
    assert set(pairs.loc[(pairs["a"] == "cells") | (pairs["b"] == "cells"), "noise_sigma"]) == {0.05}


@pytest.mark.parametrize("metric", ["ece", "brier", "hd95", "hd95_liver", "calibration_error", "loss"])
def test_less_of_an_error_or_a_distance_is_better(metric):
    row = contrasts(study(CLEAN, metrics=[metric], arms={"a": 0.9, "b": 0.5})).iloc[0]
    assert (row.difference > 0, row.verdict) == (True, "worse")


@pytest.mark.parametrize("metric", ["auroc", "auroc_Mass", "dice", "dice_present", "dice_present_liver"])
def test_more_of_a_score_is_better(metric):
    assert contrasts(study(CLEAN, metrics=[metric], arms={"a": 0.9, "b": 0.5}))["verdict"].item() == "better"


def test_a_single_class_does_not_count_in_the_family_of_its_metric():
    alone, beside = study(CLEAN), study(CLEAN).assign(metric="auroc_Mass")
    both = contrasts(pd.concat([alone, beside]))
    assert both.loc[both["metric"] == "auroc", "p_holm"].tolist() == contrasts(alone)["p_holm"].tolist()


# --- the answer ---


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({}, [("none", 0.0)]),
        ({"noise": "gaussian test", "noise_sigma": 0.05}, [STRONG]),
        ({"noise": "gaussian test"}, [WEAK, STRONG]),
        ({"noise_sigma": 0.001}, [WEAK]),
    ],
)
def test_the_answer_is_of_the_runs_without_noise_unless_another_setting_is_named(named, found):
    frame = study(CLEAN, WEAK, STRONG)
    given = answers(contrasts(frame), [{**PRIMARY, **named}])
    assert [{(pair["noise"], pair["noise_sigma"]) for pair in answer["pairs"]} for answer in given] == [
        {setting} for setting in found
    ]


def test_an_answer_says_which_noise_it_is_of():
    frame = study(CLEAN, STRONG)
    clean, strong = (
        answers(contrasts(frame), [{**PRIMARY, **named}])[0]["where"] for named in ({}, {"noise": "gaussian test"})
    )
    assert clean.endswith("AUROC, without noise")
    assert strong.endswith("AUROC, Gaussian noise in test, σ 0.05")


# --- figures ---


def drawn_values(ax, axis: int = 1) -> list[float]:
    """Of all points, along x (0) or y (1)."""
    return sorted(float(value) for points in ax.collections for value in points.get_offsets()[:, axis])


def test_robustness_curves_show_every_run_at_its_sigma_and_those_without_noise_apart():
    frame = study(CLEAN, WEAK, STRONG)
    (ax,) = figures.robustness_curves(frame, "auroc").axes
    assert drawn_values(ax) == pytest.approx(sorted(frame["value"]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "0.001", "0.05"]
    joined = [line for line in ax.lines if line.get_label() in ARMS]
    assert [len(line.get_xdata()) for line in joined] == [2, 2, 2]  # the mean without noise is not joined to them
    means = frame[(frame["pretraining"] == SCRATCH) & (frame["noise_sigma"] > 0)].groupby("noise_sigma")["value"].mean()
    scratch = next(line for line in joined if line.get_label() == SCRATCH)
    assert scratch.get_ydata() == pytest.approx(means.to_numpy())


def test_there_is_a_panel_per_protocol_fraction_and_place_of_the_noise():
    frames = [study(CLEAN, WEAK, ("gaussian train", 0.01), fraction=fraction) for fraction in (0.1, 1.0)]
    titles = [ax.get_title(loc="left") for ax in figures.robustness_curves(pd.concat(frames), "auroc").axes]
    assert titles == [
        f"kNN · {fraction}\nGaussian noise in {place}"
        for fraction in ("10\N{NO-BREAK SPACE}%", "100\N{NO-BREAK SPACE}%")
        for place in ("test", "training")
    ]


@pytest.mark.parametrize("settings", [[CLEAN], [STRONG]])
def test_one_sigma_makes_no_curve(settings):
    assert figures.robustness_curves(study(*settings), "auroc") is None


@pytest.mark.parametrize(("draw", "axis"), [(figures.learning_curves, 1), (figures.seed_points, 0)])
def test_other_figures_have_a_panel_per_setting_and_average_none(draw, axis):
    frame = study(CLEAN, WEAK, STRONG)
    shown = [drawn_values(ax, axis) for ax in draw(frame, "auroc").axes]
    own = [sorted(_at(frame, setting)["value"]) for setting in (WEAK, STRONG, CLEAN)]  # in the order of their names
    assert shown == [pytest.approx(values) for values in own]


def _at(frame: pd.DataFrame, setting: tuple[str, float]) -> pd.DataFrame:
    return frame[(frame["noise"] == setting[0]) & (frame["noise_sigma"] == setting[1])]


def test_effects_have_a_line_per_pair_and_setting():
    pairs = contrasts(study(CLEAN, WEAK, STRONG))
    (ax,) = figures.effects(pairs).axes
    texts = [label.get_text() for label in ax.get_yticklabels()]
    assert texts.count("photographs − scratch") == 3
    assert "kNN · region · 10 % · Gaussian noise in test, σ 0.05" in texts


def test_an_arm_keeps_its_look_where_others_are_missing():
    looks = arm_looks(["cells", "in-domain CT", SCRATCH])
    frame = study(CLEAN, WEAK, arms={"in-domain CT": 0.9, SCRATCH: 0.5})
    (ax,) = figures.robustness_curves(frame, "auroc", looks).axes
    assert {line.get_color() for line in ax.lines if line.get_label() == "in-domain CT"} == {looks["in-domain CT"][0]}


# --- the page ---


@pytest.fixture(scope="module")
def noisy_page(tmp_path_factory):
    out = tmp_path_factory.mktemp("noisy")
    return out, page(out, study(CLEAN, WEAK, STRONG, metrics=("auroc", "ece")))


def test_a_page_with_sigmas_has_robustness_curves(noisy_page):
    out, text = noisy_page
    assert '<h2 id="robustness-to-noise">Robustness to noise</h2>' in text
    assert (out / "figures/robustness_curves_auroc.svg").is_file()
    assert "Robustness of AUROC to noise" in text


def test_the_other_figures_of_a_page_are_of_the_runs_without_noise_and_say_so(noisy_page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", noisy_page[1])
    assert [("Runs without noise." in caption) for caption in captions] == [True, True, False, True]


def test_tables_of_a_page_keep_noise_apart_and_have_a_column_for_it_only_there(noisy_page):
    tables = re.findall(r"<caption>((?:Contrasts|Results): .*?)</caption>(.*?)</table>", noisy_page[1], flags=re.DOTALL)
    assert [title for title, _ in tables] == [
        f"{name}: {metric}, {side} noise"
        for name in ("Contrasts", "Results")
        for metric in ("AUROC", "ECE (less is better)")
        for side in ("without", "with")
    ]
    for title, body in tables:
        assert (">Noise</th>" in body) == ("with noise" in title) == (">gaussian test</td>" in body)


def test_no_mean_of_a_page_runs_over_several_sigmas(noisy_page):
    out, _ = noisy_page
    written = pd.read_csv(out / "tables/results.csv")
    runs = pd.read_csv(out / "tables/table.csv").groupby(["metric", "noise_sigma", "pretraining"])["value"].mean()
    assert len(written) == 2 * 3 * 3
    assert set(written["n"]) == {4}
    keys = list(zip(written["metric"], written["noise_sigma"], written["pretraining"], strict=True))
    assert written["mean"].to_numpy() == pytest.approx(runs.loc[keys].to_numpy())


def test_latex_names_the_noise(noisy_page):
    text = (noisy_page[0] / "tables/results.tex").read_text()
    assert " & Noise & " in text
    assert "Gaussian noise in test, σ 0.05" in text


def test_a_page_without_noise_does_not_mention_it(tmp_path):
    frame = study(CLEAN)
    with_columns = page(tmp_path / "with", frame)
    without = page(tmp_path / "without", frame.drop(columns=["noise", "noise_sigma"]))
    assert with_columns == without
    assert not re.search(r"noise|robustness|sigma", without, flags=re.IGNORECASE)
    assert "Noise" not in (tmp_path / "with/tables/contrasts.tex").read_text()


def test_a_named_setting_leads_the_page_and_its_figures(tmp_path):
    text = page(tmp_path, study(CLEAN, WEAK, STRONG), noise="gaussian test", noise_sigma=0.05)
    assert "AUROC, Gaussian noise in test, σ 0.05</h2>" in text
    assert "Runs without noise." not in text
    assert text.index("Contrasts: AUROC, with noise") < text.index("Contrasts: AUROC, without noise")


def test_what_was_run_with_noise_only_is_drawn_and_named(tmp_path):
    segmented = study(STRONG, metrics=("dice",), protocol="segment")
    text = page(tmp_path, pd.concat([study(CLEAN, WEAK), segmented]))
    assert "segment · Gaussian noise in test, σ 0.05" in text


def test_a_page_of_noise_alone_names_the_primary_contrast_that_it_cannot_answer(tmp_path):
    assert "primary contrast (kNN, AUROC, without noise)" in page(tmp_path, study(WEAK, STRONG))


def test_single_classes_share_one_collapsed_table_and_stay_out_of_latex(tmp_path):
    classes = ("auroc_Mass", "auroc_Effusion", "dice_present_liver")
    text = page(tmp_path, study(CLEAN, STRONG, metrics=("auroc", "dice", "dice_present", *classes)))
    summaries = re.findall(r"<summary>Contrasts: (.*?) <", text)
    assert [title for title in summaries if "without" in title] == [
        "Dice, without noise",
        "Dice present, without noise",
        "single classes, without noise",
    ]
    assert "single classes, with noise" not in text
    assert set(pd.read_csv(tmp_path / "tables/contrasts.csv")["metric"]) == {"auroc", "dice", "dice_present", *classes}
    assert "Effusion" not in (tmp_path / "tables/contrasts.tex").read_text()
    assert not list((tmp_path / "figures").glob("*Mass*"))


def test_a_single_class_can_be_the_primary_metric(tmp_path):
    text = page(tmp_path, study(CLEAN, metrics=("auroc", "auroc_Mass")), metric="auroc_Mass")
    assert "<caption>Contrasts: AUROC Mass</caption>" in text
    assert "single classes" not in text
