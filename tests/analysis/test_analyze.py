"""The verb `analyze` on a store of 48 slices: a parent, what it became by a fine-tune, and a ViT."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.analyses import FILES, TABLES, finding_text, made_store, subject, table, textures
from support.command_line import refuse_constant
from support.families import family_backbone
from support.tiny_tasks import SHORT, judge

from ssl_transfer.analysis.failures import Predictions
from ssl_transfer.analysis.stage import analyze
from ssl_transfer.analysis.summary_text import as_text
from ssl_transfer.cli import main
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import UsageError
from ssl_transfer.evaluation.stage import probe
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.result import Analysis
from ssl_transfer.run import from_json

KEYS = {
    "schema",
    "kind",
    "run_id",
    "store",
    "store_path",
    "n",
    "backbones",
    "findings",
    "leaks",
    "settings",
    "seconds",
    "environment",
    "analysis",
    "explorer",
}

SETTINGS = ("neighbors=8", "sample=40", "domain=label", "seed=3")

pytestmark = pytest.mark.usefixtures("one_thread")


def call(*words):
    """The verb in this process: status, standard output, standard error."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["analyze", *(str(word) for word in words)])
    return status, out.getvalue(), err.getvalue()


# one call of the verb on a store of 48 slices: a parent, what it became by a fine-tune, and a ViT


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory, ct_store, photo_store):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "ct").symlink_to(ct_store.path)
    (folder / "photographs").symlink_to(photo_store.path)
    (folder / "region.yaml").write_text(f"store: {ct_store.path}\ntarget: label\nmetric: balanced_accuracy\n")
    task = Task.load(folder / "region.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        parent = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
        parent.card = replace(parent.card, name="ours", method="simclr", source_domain="ct", pretraining_seed=0)
        save_backbone(parent, folder / "ours")
        vit = family_backbone("vit")
        vit.card = replace(vit.card, name="vit")
        save_backbone(vit, folder / "vit")
        judge("finetune", load_backbone("ours"), task, folder / "tuned", *SHORT, "train.keep_backbone=true")
        for name in ("ours", "vit"):
            probe(load_backbone(name), task, out=folder / f"probe_{name}", resamples=0)
    return folder


@pytest.fixture
def in_user_folder(user_folder, monkeypatch):
    monkeypatch.chdir(user_folder)
    return user_folder


WORDS = (
    "ours",
    "tuned/backbone",
    "vit",
    "--store",
    "ct",
    "--against",
    "photographs",
    "--results",
    "probe_ours",
    "--results",
    "probe_vit",
    *SETTINGS,
)


@pytest.fixture(scope="module")
def analyzed(user_folder):
    """The folder of one call, its answer, and what it text meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(user_folder)
        status, out, err = call(*WORDS, "--json", "--out", "done")
    assert status == 0, err
    line, nothing = out.split("\n")
    assert nothing == ""
    return user_folder / "done", json.loads(line, parse_constant=refuse_constant), err


def test_analyze_writes_json_page_tables_and_figures(analyzed):
    folder, answer, _ = analyzed
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLES
    figures = {path.name: Image.open(path).size for path in (folder / "figures").iterdir()}
    assert {"umap.png", "property_probes.png", "clouds.png", "outliers.png"} <= set(figures) and min(
        map(min, figures.values())
    ) > 100
    assert (answer["analysis"], answer["explorer"]) == ("done", "done/explorer.html")
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".done")]


def test_the_answer_is_strict_json_and_equals_analysis_json(analyzed, ct_store):
    folder, answer, _ = analyzed
    assert set(answer) == KEYS and (answer["kind"], answer["schema"]) == ("analysis", 1)
    written = json.loads((folder / "analysis.json").read_text(), parse_constant=refuse_constant)
    assert len(written.pop("digest")) == 16
    assert written == {key: answer[key] for key in KEYS - {"analysis", "explorer"}}
    assert answer["store"] == ct_store.id and answer["n"] == {"images": 48, "patients": 8, "sample": 42}
    assert answer["settings"] == {
        "neighbors": 8,
        "index": "auto",
        "sample": 40,
        "columns": None,
        "domain": "label",
        "target": None,
        "nuisances": None,
        "duplicate": 0.92,
        "seed": 3,
    }
    assert all(seconds >= 0 for seconds in answer["seconds"].values()) and "UMAP" in answer["seconds"]


def test_every_backbone_has_its_origin_and_numbers(analyzed, user_folder):
    _, answer, _ = analyzed
    ours, tuned, vit = answer["backbones"]
    assert (ours["name"], ours["method"], ours["parents"]) == ("ours", "simclr", [])
    assert tuned["parents"] == [ours["id"]] and tuned["method"] == "full fine-tune" and vit["source_domain"] is None
    for one in (ours, tuned, vit):
        assert type(one["dimensions"]) is int, "a number, not a word"
        for key in ("trustworthiness", "continuity", "effective_rank", "rankme", "alignment", "uniformity", "hubness"):
            assert isinstance(one[key], float), key
    assert ours["dimensions"] == load_backbone(user_folder / "ours").feature_dim and vit["dimensions"] == 32


def test_before_and_after_are_reported_with_layers_and_neighbours(analyzed):
    folder, answer, _ = analyzed
    (name,) = [one["name"] for one in answer["backbones"] if one["parents"]]
    text = finding_text(answer, "Before and after")
    assert "ours" in text and name in text and "linear CKA by layer" in text and "vit" not in text
    own = table(folder, "similarity").set_index(["backbone_a", "layer_a", "backbone_b", "layer_b"])
    features = own.loc[("ours", "features", name, "features")]
    assert (
        f"features {features['cka']:.2f}" in text and f"{features['neighbors_shared']:.0%} of an image's neigh" in text
    )


def test_the_tables_are_of_all_backbones_and_layers(analyzed):
    folder, answer, _ = analyzed
    names = [one["name"] for one in answer["backbones"]]
    for name in ("embedding_quality", "neighbors", "outliers", "clouds", "property_probes"):
        assert list(dict.fromkeys(table(folder, name)["backbone"])) == names, name
    clouds, encoded = table(folder, "clouds"), table(folder, "property_probes")
    layers = clouds.groupby("backbone")["layer"].apply(list)
    assert layers["vit"] == ["blocks.0", "blocks.1", "features"] and layers["ours"][-1] == "features"
    for name in names:
        assert list(dict.fromkeys(encoded.loc[encoded["backbone"] == name, "layer"])) == layers[name]
    places = len(clouds)
    assert len(table(folder, "similarity")) == places * (places + 1) / 2
    assert encoded["n"].max() <= 42 and {"mean", "bone"} <= set(encoded["property"])
    assert encoded.loc[encoded["layer"] == "features", "chance"].notna().all()


def test_the_umap_table_has_all_images_of_both_stores(analyzed):
    folder, _, _ = analyzed
    points = pd.read_parquet(folder / "umap.parquet")
    assert {"backbone", "store", "row", "x", "y"} <= set(points) and np.isfinite(points[["x", "y"]]).all(axis=None)
    assert points.groupby(["backbone", "store"]).size().tolist() == [48] * 6 and set(points["store"]) == {
        "ct",
        "photographs",
    }
    graph = points[points["store"] == "ct"]
    assert (graph.groupby("backbone")["k_occurrence"].sum() == 48 * 8).all()


def test_evaluations_are_compared_and_the_numbers_are_those_of_their_predictions(analyzed, user_folder):
    folder, answer, _ = analyzed
    (row,) = table(folder, "failures").itertuples()
    assert (row.task, row.result_a, row.result_b) == (
        "region",
        *(one.name for one in Predictions.open([user_folder / "probe_ours", user_folder / "probe_vit"])),
    )
    assert 0 <= row.both_wrong <= min(row.wrong_a, row.wrong_b)
    assert f"{row.result_a} is wrong in {row.wrong_a:.1%} of {row.n} cases" in finding_text(answer, "Shared failures")


def test_domains_of_too_few_images_have_no_distances(analyzed):
    folder, answer, _ = analyzed
    assert len(table(folder, "domains")) == 0 and finding_text(answer, "Domains") == ""


def test_the_page_contains_names_and_findings(analyzed):
    folder, answer, _ = analyzed
    page = (folder / "explorer.html").read_text()
    assert len(page) > 100_000 and "ct: 48 images" in page
    assert '"name": "file"' in page or '"name":"file"' in page  # by which an image is found again
    for one in answer["findings"]:
        assert one["title"] in page


def test_without_json_the_findings_and_their_folder_are_printed(analyzed, in_user_folder):
    _, answer, _ = analyzed
    status, out, _ = call(*WORDS, "--out", "done")
    assert status == 0 and out == as_text(from_json(Analysis, answer), answer["analysis"]) + "\n"
    assert all(len(line) <= 120 for line in out.splitlines()[:-2])
    assert out.splitlines()[-2:] == ["tables and figures: done", "explorer: done/explorer.html"]
    assert all(one["title"] in out for one in answer["findings"])


def test_a_second_call_reads_the_finished_analysis(analyzed, in_user_folder):
    folder, answer, _ = analyzed
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    status, out, err = call(*WORDS, "--json", "--out", "done")
    assert status == 0 and json.loads(out) == answer and "neighbours" not in err
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("other", ["seed=4", "neighbors=9", "duplicate=0.9", "size=16"])
def test_another_setting_in_the_same_folder_is_refused(other, analyzed, in_user_folder):
    status, out, err = call(*WORDS, other, "--json", "--out", "done")
    assert status == 2 and out == "" and "UsageError: done: already holds run " in err and "--out" in err


def test_the_same_call_in_another_folder_gives_the_same_tables_and_umap(analyzed, in_user_folder):
    folder, answer, _ = analyzed
    status, out, err = call(*WORDS, "--json", "--out", "again")
    assert status == 0, err
    again, other = in_user_folder / "again", json.loads(out)
    for name in TABLES:
        pd.testing.assert_frame_equal(table(folder, name), table(again, name), check_exact=True)
    assert pd.read_parquet(folder / "umap.parquet").equals(pd.read_parquet(again / "umap.parquet"))
    for key in KEYS - {"seconds", "environment", "analysis", "explorer"}:
        assert answer[key] == other[key], key


def test_inspect_shows_an_analysis(analyzed, in_user_folder, capsys):
    _, answer, _ = analyzed
    capsys.readouterr()
    assert main(["inspect", "done", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {key: answer[key] for key in KEYS - {"analysis", "explorer"}}
    assert main(["inspect", "done"]) == 0 and "kind: analysis" in capsys.readouterr().out
    assert main(["inspect", "done", "--figure", "x.png"]) == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ours", "--store", "ct", "columns=[lable]"], "Did you mean 'label'?"),
        (["ours", "--store", "ct", "domain=pateint"], "Did you mean 'patient'?"),
        (["ours", "--store", "ct", "neighbours=5"], "Did you mean 'neighbors'?"),
        (["ours", "--store", "ct", "neighbors=2"], "neighbors"),
        (["ours", "--store", "ct", "sample=39"], "sample"),
        (["ours", "--store", "ct", "duplicate=1.5"], "duplicate"),
        (["ours", "--store", "ct", "index=annoy"], "index"),
        (["ours", "--store", "ct", "seed=-1"], "seed"),
        (["ours", "--store", "ct", "subjects=1"], "subjects"),
        (["ours", "--store", "ct", "neighbors=24"], "48 images"),
        (["ours", "--store", "ct", "--results", "probe_ours"], "found one result, expected two"),
        (["ours", "--store", "ct", "--results", "tuned", "--results", "ours"], "ours"),
        (["ours", "--store", "ct", "--against", "elsewhere/ct"], "two of them have the name"),
        (
            ["ours", "--store", "ct", "--against", "photographs", "--against", "elsewhere/photographs"],
            "two of them have the name",
        ),
        (["ours", "ours", "--store", "ct"], "given twice"),
        (["seed=1", "--store", "ct"], "no backbone"),
        (["ours", "--store", "nowhere"], "nowhere"),
        (["ours", "--store", "ct", "--against", "nowhere"], "nowhere"),
        (["nowhere", "--store", "ct"], "nowhere"),
    ],
)
def test_errors_have_a_message_and_leave_no_files(words, text, in_user_folder):
    (in_user_folder / "elsewhere").mkdir(exist_ok=True)
    for name in ("ct", "photographs"):
        if not (in_user_folder / "elsewhere" / name).exists():
            (in_user_folder / "elsewhere" / name).symlink_to((in_user_folder / name).resolve())
    status, out, err = call(*words, "--out", "wrong")
    assert status == 2 and out == "" and "Traceback" not in err, err
    assert text in err.splitlines()[-1] and not (in_user_folder / "wrong").exists()


def test_the_same_result_given_twice_is_refused(in_user_folder):
    status, _, err = call(
        "ours", "--store", "ct", "--results", "probe_ours", "--results", "probe_ours", "--out", "twice"
    )
    assert status == 2 and "probe_ours" in err


def test_fewer_than_forty_images_are_refused(workdir):
    store = made_store(workdir / "few", textures(39))
    with pytest.raises(UsageError, match=r"few: found 39 images, expected at least 40"):
        analyze([subject()], store, workdir / "out")
    assert not (workdir / "out").exists()


def test_evaluations_that_cannot_be_compared_are_refused_before_anything_is_done(workdir, plain_store, in_user_folder):
    judgements = Predictions.open([in_user_folder / "probe_ours", in_user_folder / "probe_vit"])
    elsewhere = replace(
        judgements[1], predictions=judgements[1].predictions.assign(row=lambda table: table["row"] + 1000)
    )
    asked = []
    careful = subject(
        of=lambda store: asked.append(store) or np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
    )
    with pytest.raises(UsageError, match="no image in common"):
        analyze([careful], plain_store, workdir / "out", results=[judgements[0], elsewhere])
    assert not asked and not (workdir / "out").exists()
