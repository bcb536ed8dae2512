"""Records: whatever stands in one, reading it ends in the record or in one error of ours."""

import json
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faults import ANYTHING, keys_in, replaced, without
from support.results import made_ranking, made_result

from ssl_transfer.cards import BackboneCard, FeaturesCard
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, SslTransferError, UsageError
from ssl_transfer.records import damage, parquet_rows
from ssl_transfer.result import EvalResult, Ranking, Tuning
from ssl_transfer.run import read_json, read_log, write_json

BACKBONE = BackboneCard(
    name="ct",
    architecture="resnet10t",
    in_channels=1,
    image_size=16,
    stem="standard",
    options={"stem_width": 8},
    feature_dim=64,
    intensity=Intensity(),
    method="simclr",
    parents=("0123",),
    stores=("4567",),
    id="89ab",
)
FEATURES = FeaturesCard(
    run_id="1",
    backbone="2",
    store="3",
    backbone_name="ct",
    store_path="stores/ct",
    size=16,
    precision="fp32",
    shape=(3, 64),
)
TUNING = Tuning(
    run_id="1",
    protocol="finetune",
    strategy="full",
    backbone="2",
    task="region",
    metric="accuracy",
    fraction=1.0,
    seed=0,
    trials=({"settings": {"optimizer.lr": 0.1}, "validation": {"accuracy": 0.5}, "selected": {}, "seconds": 1.0},),
    selected={"optimizer.lr": 0.1},
    n={"train": {"images": 3, "patients": None}},
    environment={},
)
# Kind -> name of its file, its content, how it is read.
KINDS = {
    "backbone": ("card.json", BACKBONE.to_json(), BackboneCard.load),
    "features": ("card.json", FEATURES.to_json(), FeaturesCard.load),
    "result": ("result.json", made_result().to_json(), EvalResult.load),
    "ranking": ("rank.json", made_ranking({"logme": 0.1}, 0.5, 0.6).to_json(), Ranking.load),
    "tuning": ("tuning.json", TUNING.to_json(), Tuning.load),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_as_it_was_written_is_read(tmp_path, kind):
    name, content, load = KINDS[kind]
    write_json(tmp_path / name, content)
    assert json.loads(json.dumps(load(tmp_path).to_json())) == read_json(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(data=st.data())
def test_a_record_with_any_other_value_is_read_or_refused_in_words(tmp_path, kind, data):
    name, content, load = KINDS[kind]
    keys = data.draw(st.sampled_from(list(keys_in(content))))
    value = data.draw(ANYTHING)
    write_json(tmp_path / name, replaced(content, keys, value))
    try:
        load(tmp_path)
    except SslTransferError as error:
        assert str(tmp_path) in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_without_one_of_its_keys_is_read_or_refused_in_words(tmp_path, kind):
    name, content, load = KINDS[kind]
    for keys in keys_in(content):
        write_json(tmp_path / name, without(content, keys))
        try:
            load(tmp_path)
        except SslTransferError as error:
            assert str(tmp_path) in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_is_cut_anywhere_is_refused_in_words(tmp_path, kind):
    name, content, load = KINDS[kind]
    text = json.dumps(content)
    for length in range(0, len(text), max(1, len(text) // 40)):
        (tmp_path / name).write_text(text[:length])
        with pytest.raises(SslTransferError, match=rf"{name}: .*(is empty|not JSON)"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 3}, r"intensity\.mean: found 1 values for 3 channels"),
        ({"image_size": 100_000}, r"image_size: found 100000, expected less than or equal to 65536"),
        ({"image_size": "16"}, r"image_size: found '16', expected a valid integer"),
        ({"id": "../../PWNED"}, r"id.*found '\.\./\.\./PWNED', expected an id without path separators"),
        ({"parents": ["a/b"]}, r"parents\.0: found 'a/b', expected an id without path separators"),
        ({"intensity": {"mean": [0.5], "std": [0.0]}}, "intensity: expected std above 0"),
        ({"intensity": {"mean": [0.5], "std": [1.0], "window_hu": [100, -100]}}, "intensity: .*rising HU"),
        ({"feature_dim": True}, "feature_dim: found True"),
    ],
    ids=str,
)
def test_a_card_that_cannot_be_right_says_what_is_wrong(tmp_path, change, message):
    write_json(tmp_path / "card.json", {**BACKBONE.to_json(), **change})
    with pytest.raises(BackboneError, match=rf"card\.json: is damaged: {message}.*Pretrain again"):
        BackboneCard.load(tmp_path)


def test_a_card_without_an_architecture_says_so(tmp_path):
    write_json(tmp_path / "card.json", without(BACKBONE.to_json(), ("architecture",)))
    with pytest.raises(BackboneError, match=r"card\.json: is damaged: architecture is missing\. Pretrain again"):
        BackboneCard.load(tmp_path)


# Results


def test_a_result_that_was_edited_is_noticed(tmp_path):
    made_result().save(tmp_path)
    content = read_json(tmp_path / "result.json")
    write_json(tmp_path / "result.json", replaced(content, ("metrics", "test", "auroc"), 0.9))
    with pytest.raises(UsageError, match=r"result\.json: its content was changed after it was written"):
        EvalResult.load(tmp_path)


def test_a_result_whose_value_is_a_word_is_refused(tmp_path):
    write_json(tmp_path / "result.json", replaced(made_result().to_json(), ("metrics", "test", "auroc"), "high"))
    with pytest.raises(UsageError, match=r"metrics\.test\.auroc: found 'high', expected a valid number"):
        EvalResult.load(tmp_path)


def test_a_result_of_an_earlier_version_has_no_digest_and_is_read(tmp_path):
    content = {key: value for key, value in asdict(made_result()).items() if key not in ("path", "files")}
    write_json(tmp_path / "result.json", content)
    assert EvalResult.load(tmp_path) == made_result()


def test_a_result_cannot_name_a_file_outside_of_its_folder(tmp_path):
    write_json(tmp_path / "result.json", {**made_result().to_json(), "files": {"../../x": "0"}, "path": "/etc"})
    with pytest.raises(UsageError, match=r"result\.json: is damaged: files"):
        EvalResult.load(tmp_path)


# Files


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b'{"a": 1', "is damaged: it is not JSON"),
        (b"[1, 2]", "holds list, expected a JSON object"),
        (b"\xff\xfe\x00", "is damaged: it is not"),
        (b"[" * 100_000, "is damaged: its content is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is damaged: it is not JSON"),
        (b'{"a": 1}', ""),
    ],
    ids=["empty", "cut", "a list", "no text", "nested", "a number of 5000 digits", "whole"],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, found):
    (tmp_path / "x.json").write_bytes(content)
    said = damage(tmp_path / "x.json")
    assert said.startswith(found) and bool(said) == bool(found)
    assert (read_json(tmp_path / "x.json") is None) == bool(found)


def test_a_folder_in_place_of_a_record_is_said(tmp_path):
    (tmp_path / "card.json").mkdir()
    assert damage(tmp_path / "card.json").startswith("cannot be read")


@pytest.mark.parametrize("line", ['{"step": 3, "lo', "3", "null", '{"loss": 1}', '{"step": "x"}', "[" * 5000])
def test_damaged_lines_of_a_log_are_left_out(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n{line}')
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_damaged_predictions_are_refused_in_words(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match=r"p\.parquet: cannot be read: .* Evaluate again"):
        parquet_rows(tmp_path / "p.parquet", UsageError, "Evaluate again.")
