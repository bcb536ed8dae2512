"""Tidy tables of other programs: what can be meant is read and said, everything else is an error with line and column."""

from __future__ import annotations

import re

import pytest

from ssl_transfer.errors import UsageError
from ssl_transfer.study.external_table import read_tidy

HEADER = "protocol,pretraining,task,strategy,fraction,pretraining_seed,seed,metric,value\n"
ROWS = "".join(
    f"linear_probe,{arm},t,,1.0,{seed},0,accuracy,{0.7 + 0.01 * seed:.2f}\n" for arm in "AB" for seed in range(3)
)


def read(tmp_path, text, domains=None):
    path = tmp_path / "results.csv"
    path.write_text(text)
    if domains is not None:
        (tmp_path / "domains.csv").write_text(domains)
        domains = tmp_path / "domains.csv"
    return read_tidy(path, domains)


def test_a_tidy_table_is_read_literally(tmp_path):
    frame, notes = read(tmp_path, HEADER + ROWS)
    assert notes == [] and frame["value"].tolist() == [0.7, 0.71, 0.72] * 2
    assert frame["pretraining_seed"].tolist() == [0, 1, 2] * 2 and frame["strategy"].isna().all()
    assert frame.dtypes[["pretraining_seed", "seed", "draw"]].astype(str).tolist() == ["Int64"] * 3


def changed(pattern, replacement):
    return HEADER + re.sub(pattern, replacement, ROWS)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (changed(r"0\.(\d+)\n", r"\1%\n"), "'value': values in percent are divided by 100 ('70%')"),
        (changed(r",1\.0,", ",100%,"), "'fraction': values in percent are divided by 100 ('100%')"),
        ((HEADER + ROWS).replace(",", ";").replace(";0.7", ";0,7"), "'value': commas are decimal points"),
        (changed(r",1\.0,", ",1.0,s"), "'pretraining_seed': 's0' is read as a number"),
        (changed(",0,accuracy", ",0.0,accuracy"), None),
        (HEADER.replace("pretraining,", "Model,").replace("value", "Score") + ROWS, "column 'Score' is read as value"),
        ("\ufeff" + HEADER + ROWS, None),
    ],
)
def test_what_can_only_mean_one_thing_is_the_same_table(tmp_path, text, note):
    frame, notes = read(tmp_path, text)
    expected, _ = read(tmp_path, HEADER + ROWS)
    assert frame[expected.columns].equals(expected)
    assert (note is None and notes == []) or any(note in line for line in notes)


@pytest.mark.parametrize(
    ("found", "wrong", "message"),
    [
        (",0.70\n", ",70%\n", "line 3, column 'value': found '0.71', but values before it are in percent"),
        (",0.71\n", ",good\n", "line 3, column 'value': found 'good'. Expected a number"),
        (",0.71\n", ",inf\n", "line 3, column 'value': found 'inf'. Leave the cell empty"),
        (",0.71\n", ',"0,71"\n', "line 3, column 'value': found '0,71'. Write decimals with a point"),
        (",1.0,1,", ",10,1,", "line 3, column 'fraction': found '10'. Expected a share above 0 up to 1"),
        (",1.0,1,", ",tenth,1,", "line 3, column 'fraction': found 'tenth'"),
        (",1.0,1,", ",1.0,one,", "line 3, column 'pretraining_seed': found 'one'. Expected a whole number"),
        (",1.0,1,", ",1.0,1.5,", "line 3, column 'pretraining_seed': found '1.5'"),
        (",1.0,1,", ",1.0,s1,", "column 'pretraining_seed': found '0' ('' and 's' stand before numbers)"),
        (",1.0,1,", f",1.0,{'9' * 26},", f"line 3, column 'pretraining_seed': found '{'9' * 26}'"),
        (",1.0,1,", ",1.0,0,", "line 3: repeats line 2 (protocol linear_probe, task t, fraction 1.0, metric accuracy"),
        ("probe,A,t", "probe,,t", "line 2, column 'pretraining': the cell is empty"),
        ("accuracy,0.71\n", "accuracy\n", "line 3: 8 cells where the header has 9"),
        ("metric,value", "metric,metric", "line 1: the column 'metric' is there twice"),
        ("metric,value", "metric,valeu", "no column value; expected at least"),
    ],
)
def test_what_cannot_be_meant_is_an_error_with_line_and_column(tmp_path, found, wrong, message):
    with pytest.raises(UsageError) as error:
        read(tmp_path, (HEADER + ROWS).replace(found, wrong, 1))
    assert message in str(error.value)


def test_runs_without_a_seed_need_a_column_that_numbers_them(tmp_path):
    rows = "".join(f"linear_probe,{arm},t,accuracy,{0.7 + 0.01 * run:.2f}\n" for arm in "AB" for run in range(3))
    with pytest.raises(
        UsageError, match=r"line 3: repeats line 2 \(.*pretraining A\)\. There is no column seed or pretraining"
    ):
        read(tmp_path, "protocol,pretraining,task,metric,value\n" + rows)
    one_each = "".join(rows.splitlines(keepends=True)[::3])
    assert len(read(tmp_path, "protocol,pretraining,task,metric,value\n" + one_each)[0]) == 2


def test_a_metric_that_is_missing_stays_a_row(tmp_path):
    frame, notes = read(tmp_path, HEADER + ROWS.replace("0.71", "NA").replace("0.72", ""))
    assert frame["value"].isna().tolist() == [False, True, True] * 2
    assert notes[0].startswith("4 of 6 values are missing (first: ") and "line 3, column 'value')" in notes[0]
    assert "paired tests leave these runs out" in notes[0]


def test_the_words_none_of_noise_and_boundary_are_words(tmp_path):
    text = HEADER.replace(",value", ",value,boundary,noise,noise_sigma,site") + ROWS.replace("\n", ",none,none,0.0,7\n")
    frame, _ = read(tmp_path, text)
    assert set(frame["boundary"]) == set(frame["noise"]) == {"none"} and frame["site"].tolist() == [7] * 6


def test_domains_give_the_boundaries(tmp_path):
    frame, _ = read(tmp_path, HEADER + ROWS, "pretraining,task,boundary\nA,t,none\nB,t,hard\n")
    assert frame["boundary"].tolist() == ["none"] * 3 + ["hard"] * 3


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("pretraining,task\nA,t\n", "no column boundary"),
        ("pretraining,task,boundary\nA,t,hrad\n", r"line 2, column 'boundary': found 'hrad'\. Did you mean 'hard'\?"),
        (
            "pretraining,task,boundary\nA,t,none\nA,t,hard\n",
            r"line 3, column 'boundary': A and t have another boundary",
        ),
    ],
)
def test_wrong_domains_are_refused(tmp_path, domains, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, HEADER + ROWS, domains)


def test_percent_is_exact(tmp_path):
    frame, _ = read(tmp_path, HEADER + "linear_probe,A,t,,10%,0,0,accuracy,71.3 %\n")
    assert frame["value"].item() == 0.713 and frame["fraction"].item() == 0.1
