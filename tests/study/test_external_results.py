"""`study report --results`: published logs and other tools' tables get the same statistics and page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.command_line import ssl_transfer

COLUMNS = ["protocol", "pretraining", "task", "strategy", "fraction", "pretraining_seed", "seed", "metric", "value"]


@pytest.fixture
def published(tmp_path):
    """Two arms and random initialisation, four pretraining seeds, one target; CT is .1 better."""
    rng = np.random.default_rng(0)
    rows = [
        ("finetune", arm, "liver", "full", 0.1, seed, 0, metric, gain + rng.normal(0, 0.01))
        for arm, gain in (("CT", 0.8), ("ImageNet", 0.7), ("scratch", 0.69))
        for seed in range(4)
        for metric in ("dice", "hd95")
    ]
    path = tmp_path / "published.csv"
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    return path


def report(path, *options):
    answer = ssl_transfer("study", "report", "--results", path.name, *options, "--json", folder=path.parent)
    assert answer.status == 0, answer.stderr
    content = json.loads(answer.stdout)
    page = path.parent / content["report"]
    return content, page, pd.read_csv(page.parent / "tables" / "contrasts.csv")


def test_an_external_table_gets_contrasts_and_a_page(published):
    content, page, contrasts = report(published)
    assert "Take CT" in content["answers"][0] and page.stat().st_size > 50_000
    dice = contrasts[contrasts["metric"] == "dice"].set_index(["a", "b"])
    assert dice.loc[("CT", "ImageNet"), "verdict"] == "better" and set(dice["n_a"]) == {4}


def test_margin_family_and_domains_are_applied(published, tmp_path):
    domains = pd.DataFrame({"pretraining": ["CT", "ImageNet"], "task": "liver", "boundary": ["none", "hard"]})
    domains.to_csv(tmp_path / "domains.csv", index=False)
    _, _, plain = report(published)
    _, _, contrasts = report(published, "--margin", "0.05", "--family", "task", "--domains", "domains.csv")
    near = contrasts[(contrasts["a"] == "ImageNet") & (contrasts["metric"] == "dice")].iloc[0]
    assert near["verdict"] in ("equivalent", "equivalent and different") and near["boundary_a"] == "hard"
    assert contrasts["p_tost"].notna().all() and plain["p_tost"].isna().all()
    assert (contrasts["p_holm"] >= plain["p_holm"] - 1e-12).all()  # a larger family


def test_external_results_are_compared_by_welch_unless_their_seeds_are_paired(published):
    frame = pd.read_csv(published)
    _, _, welch = report(published)
    _, _, paired = report(published, "--paired")
    sides = [frame[(frame["pretraining"] == arm) & (frame["metric"] == "dice")]["value"] for arm in ("CT", "ImageNet")]
    for table, name, theirs in (
        (welch, "welch", stats.ttest_ind(*sides, equal_var=False)),
        (paired, "paired", stats.ttest_rel(*sides)),
    ):
        row = table[(table["metric"] == "dice") & (table["a"] == "CT") & (table["b"] == "ImageNet")].iloc[0]
        assert (row["test"], row["family"]) == (name, "secondary")
        assert row["p_value"] == pytest.approx(theirs.pvalue)
        assert row["difference"] == pytest.approx(sides[0].mean() - sides[1].mean())


def test_label_subsets_of_paired_results_are_drawn_anew_for_each_pretraining_seed(tmp_path):
    rng = np.random.default_rng(0)
    subset, rest = rng.normal(0, 0.03, (40, 3)), rng.normal(0, 0.01, (2, 40, 3))
    rows = [
        ("linear_probe", arm, "liver", None, 0.1, *seeds, "accuracy", 0.7 + subset[seeds] + rest[side][seeds])
        for side, arm in enumerate(("CT", "ImageNet"))
        for seeds in np.ndindex(subset.shape)
    ]
    path = tmp_path / "paired.csv"
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    _, page, _ = report(path, "--paired")
    variance = pd.read_csv(page.parent / "tables" / "variance.csv").iloc[0]
    assert variance["n_draws"] == 120
    assert (variance["sd_subset"], variance["sd_residual"]) == pytest.approx((0.03, 0.01), rel=0.15)
    assert variance["sd_difference"] == pytest.approx(np.sqrt(2) * 0.01 / np.sqrt(3), rel=0.3)


def test_the_primary_contrast_can_be_chosen(published):
    content, _, _ = report(published, "--primary", "protocol=finetune,metric=hd95")
    assert "HD95" in content["answers"][0]


def test_what_was_not_read_literally_is_said_and_stands_on_the_page(published, tmp_path):
    published.write_text(published.read_text().replace("full,0.1,", "full,10%,s"))
    answer = ssl_transfer("study", "report", "--results", published.name, "--json", folder=tmp_path)
    assert answer.status == 0, answer.stderr
    sentence = "values in percent are divided by 100"
    page = tmp_path / json.loads(answer.stdout)["report"]
    assert f"column 'fraction': {sentence}" in answer.stderr and sentence in page.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocol,task\na,b\n", "no column pretraining, metric, value; expected at least protocol,"),
        ("", "x.csv: is empty"),
        (
            f"{','.join(COLUMNS)}\nlinear_probe,A,t,,1.0,a,0,accuracy,.7\n",
            "x.csv line 2, column 'pretraining_seed': found 'a'",
        ),
    ],
)
def test_a_table_without_the_columns_is_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    answer = ssl_transfer("study", "report", "--results", "x.csv", folder=tmp_path)
    assert answer.status == 2 and message in answer.stderr
