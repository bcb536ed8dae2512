"""The verb `rank`: what a user reads of it, what is refused, and public weights without a network."""

import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
from support.command_line import ENVIRONMENT, run
from support.rankings import OFFLINE, TINY, criteria_of
from support.tiny_tasks import mask_task

from ssl_transfer.cli import main
from ssl_transfer.models.backbone import load_backbone, save_backbone


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory, ct_store):
    """A folder as a user's: a card for a store of CT slices, and a saved backbone."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "ct").symlink_to(ct_store.path)
    (folder / "region.yaml").write_text("store: ct\ntarget: label\nmetric: balanced_accuracy\n")
    backbone = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
    facts = {"name": "simclr_ct", "method": "simclr", "source_domain": "ct", "stores": (ct_store.id,)}
    backbone.card = replace(backbone.card, **facts)
    save_backbone(backbone, folder / "ours")
    return folder


@pytest.fixture
def in_user_folder(user_folder, workdir):
    """A new folder with the same things."""
    for path in user_folder.iterdir():
        if path.name in ("ct", "region.yaml", "ours"):
            (workdir / path.name).symlink_to(path)
    return workdir


@pytest.fixture
def command(capsys):
    """Run a command in this process: status, standard output, standard error."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


# the command


@pytest.fixture(scope="module")
def first_call(user_folder):
    """One command in a process of its own, as a user gives it; and the answer."""
    words = ["rank", "region.yaml", "ours", TINY, f"{TINY},seed=1", "resamples=10", "--candidates", OFFLINE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "HF_HUB_OFFLINE", "1")
        patch.setitem(ENVIRONMENT, "HF_HOME", str(user_folder / "nothing"))
        command = [sys.executable, "-m", "ssl_transfer", *words, "--out", "ranking", "--json"]
        return words, run(command, user_folder)  # a process that reads HF_HUB_OFFLINE when it imports the hub's client


def test_json_is_one_object_with_the_documented_keys(first_call, user_folder):
    answer = first_call[1].json
    assert {
        "backbones",
        "order",
        "first",
        "agreement",
        "recommendation",
        "caveats",
        "n",
        "ranking",
        "task",
        "by",
        "settings",
    } <= set(answer)
    for one in answer["backbones"]:
        assert {"name", "scores", "knn", "linear_probe", "intervals", "seconds", "source_classes"} <= set(one)
        assert all(seconds >= 0 for seconds in one["seconds"].values())
    assert (user_folder / answer["ranking"]).is_file()
    assert {one["name"] for one in answer["backbones"]} == set(answer["order"]) == set(answer["first"])
    assert answer["n"] == {"images": 42, "patients": 7}


def test_names_of_backbones_are_distinct(first_call):
    names = [one["name"] for one in first_call[1].json["backbones"]]
    assert names[0] == "simclr_ct" and len(set(names)) == 3 and "seed 1" in names[2].replace("=", " ")


def test_a_backbone_in_a_folder_of_its_own_name_has_that_name(in_user_folder, command):
    (in_user_folder / "simclr_ct").symlink_to((in_user_folder / "ours").resolve())
    status, stdout, _ = command("rank", "region.yaml", "simclr_ct", "resamples=0", "--json")
    assert status == 0 and json.loads(stdout)["order"] == ["simclr_ct"]


def test_a_backbone_pretrained_on_the_store_of_the_task_is_named(first_call):
    (caveat,) = (caveat for caveat in first_call[1].json["caveats"] if "were seen in training" in caveat)
    assert "simclr_ct (trained on this store)" in caveat and "scratch" not in caveat


def test_without_json_a_table_the_recommendation_and_the_caveats_are_printed(
    first_call, user_folder, monkeypatch, command, offline
):
    monkeypatch.chdir(user_folder)
    answer = first_call[1].json
    status, stdout, _ = command(*first_call[0], "--out", "ranking")
    assert status == 0
    lines = stdout.splitlines()
    for rank, name in enumerate(answer["order"], 1):
        (line,) = (line for line in lines if line.startswith(f"{rank}. "))
        assert name in line and f"{criteria_of(answer, name)['linear_probe']:.3f}" in line
        assert f"{criteria_of(answer, name)['logme']:.3f}" in line
    assert answer["recommendation"] in stdout
    assert len(answer["caveats"]) > 1 and all(caveat in stdout for caveat in answer["caveats"])
    assert answer["ranking"] in lines[-1]


def test_a_second_call_reads_the_finished_ranking(first_call, user_folder, monkeypatch, command, offline):
    monkeypatch.chdir(user_folder)
    shutil.rmtree(user_folder / "runs" / "features", ignore_errors=True)
    before = (user_folder / "ranking" / "rank.json").stat().st_mtime_ns
    status, stdout, stderr = command(*first_call[0], "--out", "ranking", "--json")
    assert status == 0 and json.loads(stdout) == first_call[1].json
    assert "rank: " not in stderr and "features: " not in stderr
    assert (user_folder / "ranking" / "rank.json").stat().st_mtime_ns == before
    assert not (user_folder / "runs" / "features").exists()


@pytest.mark.parametrize("words", [["folds=4"], ["resamples=9"], ["by=knn"]])
def test_another_ranking_in_the_same_folder_is_refused(first_call, user_folder, monkeypatch, command, offline, words):
    monkeypatch.chdir(user_folder)
    status, stdout, stderr = command(*first_call[0], *words, "--out", "ranking")
    assert (status, stdout) == (2, "")
    assert re.findall(r"^\w+Error: .*", stderr, re.M) == re.findall(
        r"^UsageError: ranking: .*another --out\.$", stderr, re.M
    )
    assert "UsageError" in stderr


def test_inspect_shows_a_ranking(first_call, user_folder, monkeypatch, command):
    monkeypatch.chdir(user_folder)
    status, stdout, _ = command("inspect", "ranking", "--json")
    answer = first_call[1].json
    kept = json.loads(stdout)
    assert status == 0 and all(kept[key] == answer[key] for key in answer if key not in ("ranking", "caveats"))
    assert kept["caveats"] == [caveat for caveat in answer["caveats"] if "Left out" not in caveat]
    status, stdout, _ = command("inspect", "ranking")
    assert status == 0 and answer["recommendation"] in stdout


def test_features_written_by_the_command_line_are_used_by_it(in_user_folder, command):
    assert command("features", "ours", "ct", "--out", "features")[0] == 0
    assert not (in_user_folder / "runs").exists()
    status, stdout, _ = command("rank", "region.yaml", "ours", "resamples=0", "--features", "features", "--json")
    assert status == 0 and json.loads(stdout)["order"] == ["simclr_ct"]
    assert not (in_user_folder / "runs" / "features").exists()


def test_the_flag_source_gives_leep_and_nce(in_user_folder, command):
    words = ["rank", "region.yaml", "ours", TINY, "resamples=0", "--source", "ct:label", "--json"]
    status, stdout, stderr = command(*words)
    assert status == 0, stderr
    answer = json.loads(stdout)
    assert criteria_of(answer, "simclr_ct")["leep"] <= 0 and criteria_of(answer, "simclr_ct")["nce"] <= 0
    assert criteria_of(answer, "scratch")["leep"] is None
    assert any("LEEP and NCE of simclr_ct" in caveat and "ct (label)" in caveat for caveat in answer["caveats"])


def test_settings_may_precede_and_follow_options(in_user_folder, command):
    orders = [["by=knn", TINY, "resamples=0", "--json"], [TINY, "--json", "resamples=0", "by=knn"]]
    answers = [command("rank", "region.yaml", *words) for words in orders]
    assert [status for status, _, _ in answers] == [0, 0]
    one, two = (json.loads(stdout) for _, stdout, _ in answers)
    assert one == two and one["by"] == "knn"


WRONG = {
    "a criterion that there is not": (f"region.yaml {TINY} by=nonsense", r"by: found 'nonsense'.*'logme'"),
    "two folds": (f"region.yaml {TINY} folds=2", r"folds.*at least 3"),
    "no folds": (f"region.yaml {TINY} folds=0", r"folds.*'0'"),
    "a setting that there is not": (f"region.yaml {TINY} foldz=5", r"foldz.*Did you mean 'folds'"),
    "a negative seed": (f"region.yaml {TINY} seed=-1", r"seed.*'-1'"),
    "a fraction above one": (f"region.yaml {TINY} fraction=2", r"fraction"),
    "a score that applies to none": (f"region.yaml {TINY} by=leep resamples=0", r"by=leep.*none of the backbones"),
    "no backbone": ("region.yaml", r"BACKBONE"),
    "no backbone but settings": ("region.yaml by=knn", r"no backbone.*BACKBONE"),
    "a backbone twice": (f"region.yaml {TINY} ours {TINY}", r"scratch:test_resnet,size=32.*twice"),
    "a folder twice": ("region.yaml ours ours", r"ours.*twice"),
    "a folder twice in other words": ("region.yaml ours ./ours/", r"ours.*twice"),
    "a folder that is no backbone": ("region.yaml ct", r"ct: this is no backbone"),
    "public weights that there are not": ("region.yaml timm:resnet18.a1_in2k", r"timm knows no such public weights"),
    "a candidate that there is not": (
        f"region.yaml {TINY} --candidates timm:resnet1888",
        r"timm has no such architecture",
    ),
    "a candidate that is not public": (f"region.yaml {TINY} --candidates {TINY}", r"expected timm:NAME"),
    "a task that there is not": (f"regoin {TINY}", r"TaskError: regoin"),
    "masks": (f"masks.yaml {TINY}", r"TaskError: .*segmentation"),
    "a place that holds something else": (f"region.yaml {TINY} resamples=0 --out ct", r"ct: .*another --out"),
    "a place that is a file": (f"region.yaml {TINY} resamples=0 --out region.yaml", r"this is a file"),
    "features that there are not": (f"region.yaml {TINY} --features none", r"none: no features folder"),
    "a source that there is not": (f"region.yaml {TINY} --source none", r"none: there is no such store"),
    "a column that there is not": (f"region.yaml {TINY} --source ct:lable", r"no column 'lable'.*'label'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_with_status_2_and_one_message(in_user_folder, command, name):
    mask_task(in_user_folder / "masked")
    (in_user_folder / "masks.yaml").write_text((in_user_folder / "masked" / "task.yaml").read_text())
    words, message = WRONG[name]
    status, stdout, stderr = command("rank", *words.split())
    assert (status, stdout) == (2, "") and "Traceback" not in stderr
    assert len(re.findall(r"^\w+Error: .*", stderr, re.M)) == 1 and re.search(message, stderr), stderr
    assert not (in_user_folder / "runs" / "rank").exists()


# public weights without a network


@pytest.fixture
def offline(workdir, monkeypatch):
    """The hub's client as HF_HUB_OFFLINE=1 makes it at its import, with nothing kept."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workdir / "nothing"))


def test_candidates_that_cannot_be_fetched_are_left_out_and_the_rest_is_ranked(first_call):
    answer, stderr = first_call[1].json, first_call[1].stderr
    assert len(answer["backbones"]) == len(answer["order"]) == 3
    (caveat,) = (caveat for caveat in answer["caveats"] if OFFLINE in caveat)
    assert caveat.startswith("Left out") and "hf download" in caveat
    assert stderr.count(f"left out: {OFFLINE}") == 1 and "Traceback" not in stderr


def test_every_candidate_that_was_left_out_is_printed(in_user_folder, command, offline):
    names = [OFFLINE, "timm:resnet50.a1_in1k"]
    status, stdout, _ = command("rank", "region.yaml", TINY, "resamples=0", "--candidates", ",".join(names))
    assert status == 0
    for name in names:
        assert len(re.findall(rf"^- Left out: {re.escape(name)}: ", stdout, re.M)) == 1


def test_a_caveat_of_what_was_left_out_is_of_this_call(in_user_folder, command, offline):
    words = ["rank", "region.yaml", TINY, "resamples=0", "--json"]
    answers = [command(*words), command(*words, "--candidates", OFFLINE), command(*words)]
    assert [status for status, _, _ in answers] == [0, 0, 0]
    assert ["Left out" in stdout for _, stdout, _ in answers] == [False, True, False]


def test_the_same_public_weights_as_a_backbone_are_an_error(in_user_folder, command, offline):
    status, stdout, stderr = command("rank", "region.yaml", TINY, OFFLINE, "resamples=0", "--json")
    assert (status, stdout) == (2, "") and "Traceback" not in stderr
    assert re.findall(r"^\w+Error: (\S+): the public weights could not be loaded", stderr, re.M) == [OFFLINE]
    assert not (in_user_folder / "runs" / "rank").exists()
