"""The stage `analyze` and its verb: what it leaves, that it tells the truth about planted things, and odd stores and names."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from support.command_line import _refuse
from support.families import family_backbone
from support.tiny_tasks import SHORT, judge

from ssl_transfer.__main__ import main
from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone, before_and_after
from ssl_transfer.analysis.failures import Predictions
from ssl_transfer.analysis.stage import analyze
from ssl_transfer.analysis.summary_text import listing
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import UsageError
from ssl_transfer.evaluation.stage import probe
from ssl_transfer.features import extract_features, layer_features, paired_features
from ssl_transfer.models.backbone import load_backbone, save_backbone

TABLES = {"maps", "neighbors", "outliers", "clouds", "similarity", "encoded", "domains", "failures", "leaks"}
FILES = {"analysis.json", "explorer.html", "maps.parquet", "tables", "figures"}
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


# stores and backbones made up on the spot


def textures(count, seed=0, side=32):
    """Pictures of one layout, each with details of its own; uint8 (count, 1, side, side)."""
    draw = np.random.default_rng(seed)
    layout = ndimage.gaussian_filter(np.random.default_rng(99).normal(size=(side, side)), 5)
    own = ndimage.gaussian_filter(draw.normal(size=(count, side, side)), (0, 1, 1))
    values = 127 + 40 * (layout / layout.std() + 0.7 * own / own.std())
    return values.clip(0, 255).astype(np.uint8)[:, None]


def made_store(folder, images, splits=None, **columns):
    """A store of such images; a third is test unless told."""
    splits = np.where(np.arange(len(images)) % 3, "train", "test") if splits is None else splits
    folder.parent.mkdir(exist_ok=True)
    with StoreWriter(folder, images.shape[1:], images.dtype) as writer:
        for row, image in enumerate(images):
            writer.append(image, {name: values[row] for name, values in columns.items()})
        return writer.finish(
            np.asarray(splits),
            units="rgb" if images.shape[1] == 3 else "display",
            domain="xray/chest",
            split_by="patient",
        )


def subject(name="pixels", seed=0, width=12, of=None, identity=None, parents=(), layers=("block",)):
    """A backbone that is a random projection of small versions of the images; `of` gives other features of a store."""
    mixing = np.random.default_rng(seed).normal(size=(64, width)) / 8

    def small(store, rows=None):
        images = np.asarray(store.read(np.arange(len(store)) if rows is None else rows), np.float32).mean(1)
        thin = ndimage.zoom(images, (1, 8 / images.shape[1], 8 / images.shape[2]), order=1).reshape(len(images), -1)
        return (thin - 127) / 40

    features = of or (lambda store: (small(store) @ mixing).astype(np.float32))
    card = {
        "id": identity or name,
        "method": "none",
        "source_domain": None,
        "parents": list(parents),
        "pretraining_seed": None,
        "name": name,
        "stores": [],
    }
    return AnalyzedBackbone(
        f"{name}{seed}",
        name,
        card,
        features,
        lambda store, rows: {layer: np.tanh(features(store)[rows] * (i + 1)) for i, layer in enumerate(layers)},
        lambda store, rows: (features(store)[rows], features(store)[rows] + np.float32(0.1)),
    )


def real(backbone, name, **facts):
    """A backbone as an analysis sees it."""
    return AnalyzedBackbone(
        name,
        name,
        backbone.card | facts,
        lambda of: extract_features(backbone, of).values,
        lambda of, rows: layer_features(backbone, of, rows),
        lambda of, rows: paired_features(backbone, of, rows),
    )


def told(answer, title):
    """What a finding says; nothing if it is not there."""
    return next((one["text"] for one in answer["findings"] if one["title"] == title), "")


def table(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def call(*words):
    """The verb in this process: status, standard output, standard error."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["analyze", *(str(word) for word in words)])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plain_store(place):
    """48 textures of 16 patients, two labels."""
    patients = [f"p{i // 3:02d}" for i in range(48)]
    return made_store(
        place / "plain", textures(48), label=[["a", "b"][i // 3 % 2] for i in range(48)], patient=patients
    )


# one call of the verb on a store of 48 slices: a parent, what it became by a fine-tune, and a ViT


@pytest.fixture(scope="module")
def desk(tmp_path_factory, ct_store, photo_store):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "ct").symlink_to(ct_store.path)
    (folder / "photographs").symlink_to(photo_store.path)
    (folder / "region.yaml").write_text(f"store: {ct_store.path}\ntarget: label\nmetric: balanced_accuracy\n")
    task = Task.load(folder / "region.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        parent = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
        parent.card.update(name="ours", method="simclr", source_domain="ct", pretraining_seed=0)
        save_backbone(parent, folder / "ours")
        vit = family_backbone("vit")
        vit.card.update(name="vit")
        save_backbone(vit, folder / "vit")
        judge("finetune", load_backbone("ours"), task, folder / "tuned", *SHORT, "train.keep_backbone=true")
        for name in ("ours", "vit"):
            probe(load_backbone(name), task, out=folder / f"probe_{name}", resamples=0)
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    return desk


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
def done(desk):
    """The folder of one call, its answer, and what it said meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        status, out, err = call(*WORDS, "--json", "--out", "done")
    assert status == 0, err
    line, nothing = out.split("\n")
    assert nothing == ""
    return desk / "done", json.loads(line, parse_constant=_refuse), err


def test_it_leaves_the_answer_the_page_the_tables_and_the_figures(done):
    folder, answer, _ = done
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLES
    figures = {path.name: Image.open(path).size for path in (folder / "figures").iterdir()}
    assert {"maps.png", "encoded.png", "clouds.png", "outliers.png"} <= set(figures) and min(
        map(min, figures.values())
    ) > 100
    assert (answer["analysis"], answer["explorer"]) == ("done", "done/explorer.html")
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".done")]


def test_the_answer_is_strict_json_and_what_stands_in_analysis_json(done, ct_store):
    folder, answer, _ = done
    assert set(answer) == KEYS and (answer["kind"], answer["schema"]) == ("analysis", 1)
    written = json.loads((folder / "analysis.json").read_text(), parse_constant=_refuse)
    assert written == {key: answer[key] for key in KEYS - {"analysis", "explorer"}}
    assert answer["store"] == ct_store.id and answer["n"] == {"images": 48, "patients": 8, "sample": 42}
    assert answer["settings"] == {
        "neighbors": 8,
        "index": "auto",
        "sample": 40,
        "columns": None,
        "domain": "label",
        "duplicate": 0.92,
        "seed": 3,
    }
    assert all(seconds >= 0 for seconds in answer["seconds"].values()) and "maps" in answer["seconds"]


def test_every_backbone_has_its_origin_and_numbers(done, desk):
    _, answer, _ = done
    ours, tuned, vit = answer["backbones"]
    assert (ours["name"], ours["method"], ours["parents"]) == ("ours", "simclr", [])
    assert tuned["parents"] == [ours["id"]] and tuned["method"] == "full fine-tune" and vit["source_domain"] is None
    for one in (ours, tuned, vit):
        assert type(one["dimensions"]) is int, "a number, not a word"
        for key in ("trustworthiness", "continuity", "effective_rank", "rankme", "alignment", "uniformity", "hubness"):
            assert isinstance(one[key], float), key
    assert ours["dimensions"] == load_backbone(desk / "ours").feature_dim and vit["dimensions"] == 32


def test_before_and_after_are_told_with_layers_and_neighbours(done):
    folder, answer, _ = done
    (name,) = [one["name"] for one in answer["backbones"] if one["parents"]]
    said = told(answer, "Before and after")
    assert "ours" in said and name in said and "linear CKA by layer" in said and "vit" not in said
    own = table(folder, "similarity").set_index(["backbone_a", "layer_a", "backbone_b", "layer_b"])
    features = own.loc[("ours", "features", name, "features")]
    assert (
        f"features {features['cka']:.2f}" in said and f"{features['neighbors_shared']:.0%} of an image's neigh" in said
    )


def test_the_tables_are_of_all_backbones_and_layers(done):
    folder, answer, _ = done
    names = [one["name"] for one in answer["backbones"]]
    for name in ("maps", "neighbors", "outliers", "clouds", "encoded"):
        assert list(dict.fromkeys(table(folder, name)["backbone"])) == names, name
    clouds, encoded = table(folder, "clouds"), table(folder, "encoded")
    layers = clouds.groupby("backbone")["layer"].apply(list)
    assert layers["vit"] == ["blocks.0", "blocks.1", "features"] and layers["ours"][-1] == "features"
    for name in names:
        assert list(dict.fromkeys(encoded.loc[encoded["backbone"] == name, "layer"])) == layers[name]
    places = len(clouds)
    assert len(table(folder, "similarity")) == places * (places + 1) / 2
    assert encoded["n"].max() <= 42 and {"mean", "bone"} <= set(encoded["property"])
    assert encoded.loc[encoded["layer"] == "features", "chance"].notna().all()


def test_maps_have_every_image_and_those_of_the_other_store(done):
    folder, _, _ = done
    points = pd.read_parquet(folder / "maps.parquet")
    assert {"backbone", "store", "row", "x", "y"} <= set(points) and np.isfinite(points[["x", "y"]]).all(axis=None)
    assert points.groupby(["backbone", "store"]).size().tolist() == [48] * 6 and set(points["store"]) == {
        "ct",
        "photographs",
    }
    graph = points[points["store"] == "ct"]
    assert (graph.groupby("backbone")["occurrences"].sum() == 48 * 8).all()


def test_evaluations_are_compared_and_the_numbers_are_those_of_their_predictions(done, desk):
    folder, answer, _ = done
    (row,) = table(folder, "failures").itertuples()
    assert (row.task, row.result_a, row.result_b) == (
        "region",
        *(one.name for one in Predictions.open([desk / "probe_ours", desk / "probe_vit"])),
    )
    assert 0 <= row.both_wrong <= min(row.wrong_a, row.wrong_b)
    assert f"{row.result_a} is wrong in {row.wrong_a:.1%} of {row.n} cases" in told(answer, "Shared failures")


def test_domains_of_too_few_images_have_no_distances(done):
    folder, answer, _ = done
    assert len(table(folder, "domains")) == 0 and told(answer, "Domains") == ""


def test_the_page_holds_names_and_findings(done):
    folder, answer, _ = done
    page = (folder / "explorer.html").read_text()
    assert len(page) > 100_000 and "ct: 48 images" in page
    for one in answer["findings"]:
        assert one["title"] in page


def test_people_read_what_was_found_and_where_it_lies(done, at_desk):
    _, answer, _ = done
    status, out, _ = call(*WORDS, "--out", "done")
    assert status == 0 and out == listing(answer) + "\n"
    assert all(len(line) <= 120 for line in out.splitlines()[:-2])
    assert out.splitlines()[-2:] == ["tables and figures: done", "explorer: done/explorer.html"]
    assert all(one["title"] in out for one in answer["findings"])


def test_the_second_call_answers_from_the_folder(done, at_desk):
    folder, answer, _ = done
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    status, out, err = call(*WORDS, "--json", "--out", "done")
    assert status == 0 and json.loads(out) == answer and "neighbours" not in err
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("other", ["seed=4", "neighbors=9", "duplicate=0.9", "--size=16"])
def test_another_setting_into_the_same_place_is_refused(other, done, at_desk):
    status, out, err = call(*WORDS, other, "--json", "--out", "done")
    assert status == 2 and out == "" and "UsageError: done: holds something else" in err and "--out" in err


def test_the_same_call_elsewhere_gives_the_same_tables_and_maps(done, at_desk):
    folder, answer, _ = done
    status, out, err = call(*WORDS, "--json", "--out", "again")
    assert status == 0, err
    again, other = at_desk / "again", json.loads(out)
    for name in TABLES:
        pd.testing.assert_frame_equal(table(folder, name), table(again, name), check_exact=True)
    assert pd.read_parquet(folder / "maps.parquet").equals(pd.read_parquet(again / "maps.parquet"))
    for key in KEYS - {"seconds", "environment", "analysis", "explorer"}:
        assert answer[key] == other[key], key


def test_inspect_shows_an_analysis(done, at_desk, capsys):
    _, answer, _ = done
    capsys.readouterr()
    assert main(["inspect", "done", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {key: answer[key] for key in KEYS - {"analysis", "explorer"}}
    assert main(["inspect", "done"]) == 0 and "kind: analysis" in capsys.readouterr().out
    assert main(["inspect", "done", "--figure", "x.png"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
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
        (["ours", "--store", "ct", "--against", "elsewhere/ct"], "two have the same"),
        (
            ["ours", "--store", "ct", "--against", "photographs", "--against", "elsewhere/photographs"],
            "two have the same",
        ),
        (["ours", "ours", "--store", "ct"], "given twice"),
        (["seed=1", "--store", "ct"], "no backbone"),
        (["ours", "--store", "nowhere"], "nowhere"),
        (["ours", "--store", "ct", "--against", "nowhere"], "nowhere"),
        (["nowhere", "--store", "ct"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(words, said, at_desk):
    (at_desk / "elsewhere").mkdir(exist_ok=True)
    for name in ("ct", "photographs"):
        if not (at_desk / "elsewhere" / name).exists():
            (at_desk / "elsewhere" / name).symlink_to((at_desk / name).resolve())
    status, out, err = call(*words, "--out", "wrong")
    assert status == 2 and out == "" and "Traceback" not in err, err
    assert said in err.splitlines()[-1] and not (at_desk / "wrong").exists()


def test_one_result_named_twice_is_not_two(at_desk):
    status, _, err = call(
        "ours", "--store", "ct", "--results", "probe_ours", "--results", "probe_ours", "--out", "twice"
    )
    assert status == 2 and "probe_ours" in err


def test_fewer_than_forty_images_are_refused(place):
    store = made_store(place / "few", textures(39))
    with pytest.raises(UsageError, match=r"few: holds 39 images, expected 40 at least"):
        analyze([subject()], store, place / "out")
    assert not (place / "out").exists()


# what was planted is found


def test_planted_duplicates_across_splits_are_listed_told_and_drawn(place):
    images = np.concatenate([textures(45), textures(45)[[4, 9, 30]]])
    splits = np.repeat(["train", "test"], [45, 3])
    store = made_store(place / "leaky", images, splits, patient=[f"p{i}" for i in range(48)])
    answer, folder = analyze([subject(), subject("other", 1)], store, place / "out")
    leaks = table(folder, "leaks")
    assert set(zip(leaks["row_a"], leaks["row_b"], strict=True)) == {(4, 45), (9, 46), (30, 47)}
    assert leaks["across"].all() and (leaks["details"] > 0.99).all()
    assert answer["leaks"].startswith("Leak: 3 near-duplicates across splits (3 between test and train)")
    assert told(answer, "Near-duplicates") == answer["leaks"] and answer["findings"][0]["title"] == "Near-duplicates"
    assert Image.open(folder / "figures" / "leaks.png").size[0] > 300


def test_a_clean_store_has_no_leaks_and_no_picture_of_them(place, plain_store):
    answer, folder = analyze([subject()], plain_store, place / "out")
    assert len(table(folder, "leaks")) == 0 and answer["leaks"].startswith("No near-duplicates across splits")
    assert not (folder / "figures" / "leaks.png").exists()


def test_duplicates_within_a_split_are_counted_and_not_said_to_be_of_different_patients_where_patients_are_unknown(
    place,
):
    images = np.concatenate([textures(47), textures(47)[1:2]])
    store = made_store(place / "s", images, np.where(np.arange(48) == 0, "test", "train"))
    answer, folder = analyze([subject()], store, place / "out")
    (pair,) = table(folder, "leaks").itertuples()
    assert (pair.row_a, pair.row_b, pair.across) == (1, 47, False) and answer["leaks"].startswith(
        "No near-duplicates across"
    )
    assert "1 more" in told(answer, "Near-duplicates")
    assert "different patients" not in told(answer, "Near-duplicates")


@pytest.mark.parametrize("direct", [False, True])
def test_a_child_with_its_parent_s_weights_is_the_parent_still(direct, ct_store, place):
    if direct:
        parent = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
        pair = [real(parent, "parent"), real(parent, "child", id="child's", parents=[parent.card["id"]])]
        store = ct_store
    else:
        store = made_store(place / "s", textures(48))
        pair = [subject("parent"), subject("child", parents=["parent"])]
    answer, folder = analyze(pair, store, place / "out")
    own = table(folder, "similarity")
    same = own[(own["layer_a"] == own["layer_b"]) & (own["backbone_a"] != own["backbone_b"])]
    assert same["cka"].to_numpy() == pytest.approx(1) and same["cka_rbf"].to_numpy() == pytest.approx(1)
    assert same["procrustes"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert same["neighbors_shared"].dropna().tolist() == [1.0]
    said = told(answer, "Before and after")
    assert "100% of an image's neighbours are still" in said and "Gained" not in said and "Lost" not in said
    assert said.index("parent") < said.index("child")


def test_before_is_the_nearest_ancestor_that_is_there():
    line = [
        subject("grandparent"),
        subject("parent", parents=["grandparent"]),
        subject("child", parents=["grandparent", "parent"]),
        subject("stranger", parents=["somebody"]),
        subject("orphan", parents=["grandparent", "lost"]),
    ]
    pairs = [(before.name, after.name) for before, after in before_and_after(line)]
    assert pairs == [("grandparent", "parent"), ("parent", "child"), ("grandparent", "orphan")]


def test_what_a_child_gained_is_told(place, plain_store):
    noise = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)
    brightness = plain_store.read(np.arange(48)).mean((1, 2, 3)).astype(np.float32)
    told_by = np.hstack([noise, (brightness - brightness.mean())[:, None] / brightness.std()])
    parent = subject("parent", of=lambda store: noise)
    child = subject("child", of=lambda store: told_by, parents=["parent"])
    answer, _ = analyze([parent, child], plain_store, place / "out")
    assert re.search(r"Gained in R² or AUROC: .*\bmean\b", told(answer, "Before and after"))


def test_neighbours_of_one_label_are_pure_and_the_page_says_so(place, plain_store):
    labels = (plain_store.column("label") == "a").astype(float)
    clouds = np.random.default_rng(0).normal(size=(48, 5)) * 0.05 + np.stack(
        [labels, 1 - labels, *np.zeros((3, 48))], 1
    )
    answer, folder = analyze(
        [subject(of=lambda store: clouds.astype(np.float32))], plain_store, place / "out", neighbors=5
    )
    row = table(folder, "neighbors").set_index("column").loc["label"]
    assert row["purity"] == row["precision_1"] == row["map"] == 1.0
    assert row["by_chance"] == pytest.approx(23 / 47) and (row["values"], row["n"], row["k"]) == (2, 48, 5)
    assert "label" in told(answer, "Neighbours") and "1.00" in told(answer, "Neighbours")


def test_the_image_that_lies_far_out_comes_first_and_is_told(place, plain_store):
    clouds = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32) * 0.1 + np.eye(5, dtype=np.float32)[0]
    clouds[17] = -np.eye(5)[0]
    answer, folder = analyze([subject(of=lambda store: clouds)], plain_store, place / "out")
    outliers = table(folder, "outliers")
    assert (
        outliers["row"][0] == 17 and outliers["patient"][0] == "p05" and outliers["remoteness"].is_monotonic_decreasing
    )
    assert "row 17" in told(answer, "Far from all others")


def test_two_scanners_that_features_tell_apart_are_told_and_so_is_another_store(place):
    scanner = np.repeat(["left", "right"], 60).astype(object)
    columns = {"scanner": scanner, "patient": [f"p{i // 2}" for i in range(120)]}
    store = made_store(place / "here", textures(120), **columns)
    there = made_store(place / "there", textures(60, 5), patient=[f"q{i // 2}" for i in range(60)])
    base = subject()
    moved = subject(
        of=lambda of: (
            base.features(of) + np.where(of.column("scanner") == "left", 4, 0)[:, None].astype(np.float32)
            if "scanner" in of.columns
            else base.features(of) - 5
        )
    )
    answer, folder = analyze([moved], store, place / "out", {"there": there}, domain="scanner")
    domains = table(folder, "domains").set_index(["domain_a", "domain_b"])
    assert set(domains.index) == {("here", "there"), ("left", "right")}
    assert (domains["separability"] > 0.95).all() and (domains["frechet"] > 3 * domains["frechet_by_chance"]).all()
    assert "left and right: " in told(answer, "Domains") and "here and there: " in told(answer, "Domains")
    assert len(pd.read_parquet(folder / "maps.parquet")) == 180


def test_a_patient_who_is_in_both_stores_is_one_patient(place):
    # Two ingests of the same 12 patients: a probe that has seen a patient in one store must not judge her in the other.
    patients = [f"p{i // 5}" for i in range(60)]
    here, there = (
        made_store(place / name, textures(60, seed), patient=patients) for seed, name in enumerate(("one", "two"))
    )
    centres = 5 * np.random.default_rng(0).normal(size=(12, 40))
    own = np.random.default_rng(1).normal(size=(2, 60, 40))

    def of(store):
        return (centres[np.arange(60) // 5] + own[int(store.path.name == "two")]).astype(np.float32)

    _, folder = analyze([subject(of=of)], here, place / "out", {"two": there})
    # Nothing tells the stores apart: a fair probe is at chance, one that has met the patient elsewhere is below it.
    assert table(folder, "domains")["separability"][0] > 0.3


# odd stores


def whole(answer, folder, names=("pixels",)):
    """Every analysis leaves this much."""
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.stem for path in (folder / "tables").iterdir()} == TABLES
    json.loads((folder / "analysis.json").read_text(), parse_constant=_refuse)
    json.loads(json.dumps(answer, default=str), parse_constant=_refuse)
    assert [one["name"] for one in answer["backbones"]] == list(names)
    assert not re.search(r"\bnan\b|\binf\b", listing({**answer, "analysis": "", "explorer": ""})), (
        "numbers that are none"
    )


def test_a_store_without_patients_and_labels(place):
    answer, folder = analyze([subject()], made_store(place / "s", textures(40)), place / "out")
    whole(answer, folder)
    assert answer["n"] == {"images": 40, "patients": None, "sample": 40}
    assert (table(folder, "encoded")["property"] == "mean").any()


def test_a_store_of_one_split_and_nothing_that_images_share(place):
    store = made_store(place / "s", textures(40), ["train"] * 40)
    answer, folder = analyze([subject()], store, place / "out")
    whole(answer, folder)
    assert told(answer, "Neighbours") == "" and len(table(folder, "neighbors")) == 0


def test_no_columns_may_be_asked_for(place, plain_store):
    answer, folder = analyze([subject()], plain_store, place / "out", columns=[])
    whole(answer, folder)


def test_a_column_asked_for_twice_counts_once(place, plain_store):
    answer, folder = analyze([subject()], plain_store, place / "out", columns=["label", "label"])
    whole(answer, folder)
    assert Counter(table(folder, "neighbors")["column"]) == {"label": 1}


@pytest.mark.parametrize("setting", [{"columns": ["reader"]}, {"domain": "reader"}])
def test_a_column_may_be_asked_for_though_another_one_says_the_same(setting, place):
    labels = [["a", "b"][i % 2] for i in range(48)]
    store = made_store(place / "s", textures(48), label=labels, reader=[label.upper() for label in labels])
    answer, folder = analyze([subject()], store, place / "out", **setting)
    whole(answer, folder)


def test_a_store_of_one_patient(place):
    store = made_store(place / "s", textures(44), label=list("ab" * 22), patient=["p"] * 44)
    answer, folder = analyze([subject(), subject("other", 1)], store, place / "out")
    whole(answer, folder, ("pixels", "other"))
    assert len(table(folder, "encoded")) == 0 and told(answer, "What the features encode").startswith(
        "Too little is known of label"
    )
    assert not (folder / "figures" / "encoded.png").exists()


@pytest.mark.long
def test_a_store_of_colour_beside_one_of_grey(place, photo_store):
    grey = made_store(place / "grey", textures(40))
    backbone = family_backbone("resnet", 3)
    backbone.card["id"] = "made up"
    answer, folder = analyze([real(backbone, "colour")], photo_store, place / "out", {"grey": grey})
    whole(answer, folder, ("colour",))


def test_an_untrained_vit(place, ct_store):
    backbone = family_backbone("vit")
    backbone.card["id"] = "made up"
    answer, folder = analyze([real(backbone, "vit")], ct_store, place / "out")
    whole(answer, folder, ("vit",))
    assert answer["backbones"][0]["method"] == "none"


@pytest.mark.parametrize("value", [0.0, pytest.param(1.0, marks=pytest.mark.long)])
def test_a_backbone_that_has_collapsed(value, place, plain_store):
    flat = subject("flat", of=lambda store: np.full((len(store), 6), value, np.float32))
    answer, folder = analyze([subject(), flat], plain_store, place / "out")
    whole(answer, folder, ("pixels", "flat"))
    shown = pd.read_parquet(folder / "maps.parquet")
    assert np.isfinite(shown[["x", "y"]]).all(axis=None)


def test_features_that_are_all_equally_far_apart_have_no_finite_dimension_and_are_told_all_the_same(place, plain_store):
    answer, folder = analyze([subject(of=lambda store: np.eye(48, dtype=np.float32))], plain_store, place / "out")
    whole(answer, folder)


def test_a_store_beside_another_of_its_name_is_refused_in_python_too(place, plain_store):
    other = made_store(place / "deep" / "plain", textures(40, 7))
    with pytest.raises(UsageError, match="plain"):
        analyze([subject()], plain_store, place / "out", {"plain": other})


def test_features_that_are_not_finite_are_the_user_s_to_mend(place, plain_store):
    broken = subject("broken", of=lambda store: np.full((len(store), 6), np.nan, np.float32))
    with pytest.raises(UsageError, match="broken"):
        analyze([broken], plain_store, place / "out")


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "store",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("mean", "slice_position", "row", "backbone", "remoteness (pixels)")
        ),
    ],
)
def test_a_column_may_be_called_what_an_analysis_calls_something_else(name, place):
    columns = {name: [["low", "high"][i // 4 % 2] for i in range(48)], "patient": [f"p{i // 4}" for i in range(48)]}
    store = made_store(place / "s", textures(48), **columns)
    answer, folder = analyze([subject()], store, place / "out", {"other": made_store(place / "other", textures(40, 7))})
    whole(answer, folder)


@pytest.mark.long
def test_columns_of_many_kinds(place):
    draw = np.random.default_rng(0)
    columns = {
        "patient": np.repeat(np.arange(16), 3).tolist(),
        "label": [None] * 40 + ["a"] * 4 + ["b"] * 4,
        "age": [float(i) if i % 5 else None for i in range(48)],
        "smoker": (draw.random(48) < 0.5).tolist(),
        "comment": [f"nothing of note, {i}" for i in range(48)],
        "when": list(pd.date_range("2020-01-01", periods=48)),
        "grade": draw.integers(0, 3, 48).tolist(),
        "odd": [[1.0, float("inf"), None][i % 3] for i in range(48)],
    }
    answer, folder = analyze([subject()], made_store(place / "s", textures(48), **columns), place / "out")
    whole(answer, folder)
    assert {"patient", "smoker", "grade"} <= set(table(folder, "neighbors")["column"])


LONG_NAMES = ("<b>&amp;\"'", "a/b", "中文 ünï", "x" * 300, "_hidden", "{0} %s", "a, b")


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
@pytest.mark.parametrize("name", ["cost$_$ of", *(pytest.param(name, marks=pytest.mark.long) for name in LONG_NAMES)])
def test_odd_names_of_backbones_labels_and_columns(name, place):
    column = name if name != "a/b" else "a b"
    labels = [[name, "b"][i // 3 % 2] for i in range(48)]
    values = {
        "label": labels,
        column: [["u", name][i // 6 % 2] for i in range(48)],
        "patient": [f"p{i // 3}" for i in range(48)],
    }
    store = made_store(place / "s", textures(48), **values)
    answer, folder = analyze([subject(name), subject("other", 1)], store, place / "out", neighbors=5)
    whole(answer, folder, (name, "other"))
    for title in ("Maps", "How alike the layers are", "Far from all others"):
        assert name in told(answer, title), f"{title}: names stay as they are"
    assert name in set(table(folder, "clouds")["backbone"])


def test_names_with_a_hyphen_stay_as_they_are_in_every_sentence(place):
    columns = {"site": np.repeat(["st-01", "st-02"], 50).tolist(), "patient": [f"p{i // 2}" for i in range(100)]}
    store = made_store(place / "s", textures(100), **columns)
    answer, _ = analyze([subject("vit-b"), subject("vit-0", 1)], store, place / "out", domain="site")
    assert "st-01 and st-02: vit-b" in told(answer, "Domains") and "vit-0" in told(answer, "Domains")
    assert "vit-b" in told(answer, "How alike the layers are")


@pytest.mark.long
def test_the_order_in_which_backbones_are_given_changes_no_number_of_their_own(place, plain_store):
    pair = [subject("one"), subject("two", 1)]
    folders = [analyze(order, plain_store, place / f"out{i}")[1] for i, order in enumerate((pair, pair[::-1]))]
    for name in ("neighbors", "clouds", "encoded", "outliers"):
        one, two = (table(folder, name) for folder in folders)
        for backbone in ("one", "two"):
            own = [side[side["backbone"] == backbone].reset_index(drop=True) for side in (one, two)]
            pd.testing.assert_frame_equal(*own)


def test_more_neighbours_than_small_stores_have_are_refused_before_anything_is_done(place, plain_store):
    asked = []
    careful = replace(subject(), features=lambda store: asked.append(store))
    with pytest.raises(UsageError, match="48 images"):
        analyze([careful], plain_store, place / "out", neighbors=30)
    assert not asked


def test_evaluations_that_cannot_be_compared_are_refused_before_anything_is_done(place, plain_store, at_desk):
    judgements = Predictions.open([at_desk / "probe_ours", at_desk / "probe_vit"])
    elsewhere = replace(
        judgements[1], predictions=judgements[1].predictions.assign(row=lambda table: table["row"] + 1000)
    )
    asked = []
    careful = subject(
        of=lambda store: asked.append(store) or np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
    )
    with pytest.raises(UsageError, match="no image in common"):
        analyze([careful], plain_store, place / "out", results=[judgements[0], elsewhere])
    assert not asked and not (place / "out").exists()


def test_an_analysis_that_fails_leaves_nothing(place, plain_store, monkeypatch):
    monkeypatch.setattr("ssl_transfer.analysis.stage.draw_all", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        analyze([subject()], plain_store, place / "out")
    assert [path.name for path in place.iterdir()] == ["plain"]
