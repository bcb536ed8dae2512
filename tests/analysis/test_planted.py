"""An analysis tells the truth about what was planted: duplicates, parents, neighbours, scanners."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.analyses import analyze_to_json, finding_text, made_store, real, subject, table, textures

from ssl_transfer.analysis.analyzed_backbone import before_and_after
from ssl_transfer.models.backbone import load_backbone

pytestmark = pytest.mark.usefixtures("one_thread")


# what was planted is found


def test_planted_duplicates_across_splits_are_listed_reported_and_drawn(workdir):
    images = np.concatenate([textures(45), textures(45)[[4, 9, 30]]])
    splits = np.repeat(["train", "test"], [45, 3])
    store = made_store(workdir / "leaky", images, splits, patient=[f"p{i}" for i in range(48)])
    answer, folder = analyze_to_json([subject(), subject("other", 1)], store, workdir / "out")
    leaks = table(folder, "leaks")
    assert set(zip(leaks["row_a"], leaks["row_b"], strict=True)) == {(4, 45), (9, 46), (30, 47)}
    assert leaks["across"].all() and (leaks["band_pass_correlation"] > 0.99).all()
    assert answer["leaks"].startswith("Leak: 3 near-duplicates across splits (3 between test and train)")
    assert (
        finding_text(answer, "Near-duplicates") == answer["leaks"]
        and answer["findings"][0]["title"] == "Near-duplicates"
    )
    assert Image.open(folder / "figures" / "leaks.png").size[0] > 300


def test_a_clean_store_has_no_leaks_and_no_picture_of_them(workdir, plain_store):
    answer, folder = analyze_to_json([subject()], plain_store, workdir / "out")
    assert len(table(folder, "leaks")) == 0 and answer["leaks"].startswith("No near-duplicates across splits")
    assert not (folder / "figures" / "leaks.png").exists()


def test_duplicates_within_a_split_are_counted_without_a_claim_about_unknown_patients(workdir):
    images = np.concatenate([textures(47), textures(47)[1:2]])
    store = made_store(workdir / "s", images, np.where(np.arange(48) == 0, "test", "train"))
    answer, folder = analyze_to_json([subject()], store, workdir / "out")
    (pair,) = table(folder, "leaks").itertuples()
    assert (pair.row_a, pair.row_b, pair.across) == (1, 47, False) and answer["leaks"].startswith(
        "No near-duplicates across"
    )
    assert "1 more" in finding_text(answer, "Near-duplicates")
    assert "different patients" not in finding_text(answer, "Near-duplicates")


@pytest.mark.parametrize("direct", [False, True])
def test_a_child_with_its_parent_s_weights_has_cka_one_in_every_layer(direct, ct_store, workdir):
    if direct:
        parent = load_backbone("scratch:test_resnet,in_channels=1,size=32,seed=5")
        pair = [real(parent, "parent"), real(parent, "child", id="child's", parents=(parent.card.id,))]
        store = ct_store
    else:
        store = made_store(workdir / "s", textures(48))
        pair = [subject("parent"), subject("child", parents=["parent"])]
    answer, folder = analyze_to_json(pair, store, workdir / "out")
    own = table(folder, "similarity")
    same = own[(own["layer_a"] == own["layer_b"]) & (own["backbone_a"] != own["backbone_b"])]
    assert same["cka"].to_numpy() == pytest.approx(1) and same["cka_rbf"].to_numpy() == pytest.approx(1)
    assert same["procrustes"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert same["neighbors_shared"].dropna().tolist() == [1.0]
    text = finding_text(answer, "Before and after")
    assert "100% of an image's neighbours are still" in text and "Gained" not in text and "Lost" not in text
    assert text.index("parent") < text.index("child")


def test_a_backbone_is_compared_with_its_nearest_ancestor_in_the_analysis():
    line = [
        subject("grandparent"),
        subject("parent", parents=["grandparent"]),
        subject("child", parents=["grandparent", "parent"]),
        subject("stranger", parents=["somebody"]),
        subject("orphan", parents=["grandparent", "lost"]),
    ]
    pairs = [(before.name, after.name) for before, after in before_and_after(line)]
    assert pairs == [("grandparent", "parent"), ("parent", "child"), ("grandparent", "orphan")]


def test_gains_of_a_fine_tuned_backbone_are_reported(workdir, plain_store):
    noise = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)
    brightness = plain_store.read(np.arange(48)).mean((1, 2, 3)).astype(np.float32)
    told_by = np.hstack([noise, (brightness - brightness.mean())[:, None] / brightness.std()])
    parent = subject("parent", of=lambda store: noise)
    child = subject("child", of=lambda store: told_by, parents=["parent"])
    answer, _ = analyze_to_json([parent, child], plain_store, workdir / "out")
    assert re.search(r"Gained in R² or AUROC: .*\bmean\b", finding_text(answer, "Before and after"))


def test_neighbours_of_one_label_are_pure_and_the_page_says_so(workdir, plain_store):
    labels = (plain_store.column("label") == "a").astype(float)
    clouds = np.random.default_rng(0).normal(size=(48, 5)) * 0.05 + np.stack(
        [labels, 1 - labels, *np.zeros((3, 48))], 1
    )
    answer, folder = analyze_to_json(
        [subject(of=lambda store: clouds.astype(np.float32))], plain_store, workdir / "out", neighbors=5
    )
    row = table(folder, "neighbors").set_index("column").loc["label"]
    assert row["purity"] == row["precision_1"] == row["map"] == 1.0
    assert row["by_chance"] == pytest.approx(23 / 47) and (row["values"], row["n"], row["k"]) == (2, 48, 5)
    assert "label" in finding_text(answer, "Neighbours") and "1.00" in finding_text(answer, "Neighbours")


def test_the_outlier_comes_first_and_is_reported(workdir, plain_store):
    clouds = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32) * 0.1 + np.eye(5, dtype=np.float32)[0]
    clouds[17] = -np.eye(5)[0]
    answer, folder = analyze_to_json([subject(of=lambda store: clouds)], plain_store, workdir / "out")
    outliers = table(folder, "outliers")
    assert (
        outliers["row"][0] == 17
        and outliers["patient"][0] == "p05"
        and outliers["mean_knn_distance"].is_monotonic_decreasing
    )
    assert "row 17" in finding_text(answer, "Outliers")


def test_separable_scanners_and_another_store_are_reported(workdir):
    scanner = np.repeat(["left", "right"], 60).astype(object)
    columns = {"scanner": scanner, "patient": [f"p{i // 2}" for i in range(120)]}
    store = made_store(workdir / "here", textures(120), **columns)
    there = made_store(workdir / "there", textures(60, 5), patient=[f"q{i // 2}" for i in range(60)])
    base = subject()
    moved = subject(
        of=lambda of: (
            base.features(of) + np.where(of.column("scanner") == "left", 4, 0)[:, None].astype(np.float32)
            if "scanner" in of.columns
            else base.features(of) - 5
        )
    )
    answer, folder = analyze_to_json([moved], store, workdir / "out", {"there": there}, domain="scanner")
    domains = table(folder, "domains").set_index(["domain_a", "domain_b"])
    assert set(domains.index) == {("here", "there"), ("left", "right")}
    assert (domains["separability"] > 0.95).all() and (domains["frechet"] > 3 * domains["frechet_by_chance"]).all()
    assert "left and right: " in finding_text(answer, "Domains") and "here and there: " in finding_text(
        answer, "Domains"
    )
    assert len(pd.read_parquet(folder / "umap.parquet")) == 180


def test_a_scanner_that_features_see_is_a_shortcut_under_these_features_alone(workdir):
    ill = np.arange(160) // 2 % 2
    sick_scanner = np.where(np.arange(160) // 4 % 10, ill, 1 - ill)  # of nine tenths of the patients
    columns = {
        "label": np.where(ill, "ill", "well").astype(object),
        "scanner_model": np.where(sick_scanner, "A", "B").astype(object),
        "patient": [f"p{i // 2}" for i in range(160)],
    }
    store = made_store(workdir / "store", textures(160), **columns)
    own = np.random.default_rng(0).normal(size=(160, 12)).astype(np.float32)
    own[:, 0] += 0.5 * ill
    seen = own + np.outer(4 * sick_scanner, np.eye(12)[1]).astype(np.float32)
    subjects = [subject("blind", of=lambda of: own), subject("seeing", 1, of=lambda of: seen)]
    answer, folder = analyze_to_json(subjects, store, workdir / "out")
    shortcuts = table(folder, "shortcuts").set_index("backbone")
    assert shortcuts["shortcut"].to_dict() == {"blind": False, "seeing": True}
    assert finding_text(answer, "Shortcuts").startswith("seeing: scanner model explains ")
    assert "scanner model: no shortcut under blind." in finding_text(answer, "Shortcuts")
    robustness = table(folder, "robustness").set_index("backbone")["index"]
    assert robustness["blind"] > 0.45 > 0.3 > robustness["seeing"]
    entry = answer["backbones"][1]
    assert entry["robustness"]["scanner_model"]["index"] == pytest.approx(robustness["seeing"])
    assert entry["shortcuts"]["scanner_model"]["shortcut"] is True


def test_a_patient_who_is_in_both_stores_is_one_patient(workdir):
    # Two ingests of the same 12 patients: a probe that has seen a patient in one store must not judge her in the other.
    patients = [f"p{i // 5}" for i in range(60)]
    here, there = (
        made_store(workdir / name, textures(60, seed), patient=patients) for seed, name in enumerate(("one", "two"))
    )
    centres = 5 * np.random.default_rng(0).normal(size=(12, 40))
    own = np.random.default_rng(1).normal(size=(2, 60, 40))

    def of(store):
        return (centres[np.arange(60) // 5] + own[int(store.path.name == "two")]).astype(np.float32)

    _, folder = analyze_to_json([subject(of=of)], here, workdir / "out", {"two": there})
    # Nothing tells the stores apart: a fair probe is at chance, one that has met the patient elsewhere is below it.
    assert table(folder, "domains")["separability"][0] > 0.3
