"""Analyses of odd stores, features, columns and names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.analyses import analyze_to_json, finding_text, made_store, real, subject, table, textures, whole
from support.families import family_backbone

from ssl_transfer.data import altered
from ssl_transfer.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_store_without_patients_and_labels_can_be_analysed(workdir):
    answer, folder = analyze_to_json([subject()], made_store(workdir / "s", textures(40)), workdir / "out")
    whole(answer, folder)
    assert answer["n"] == {"images": 40, "patients": None, "sample": 40}
    assert (table(folder, "property_probes")["property"] == "mean").any()


def test_a_store_of_one_split_without_repeating_columns_can_be_analysed(workdir):
    store = made_store(workdir / "s", textures(40), ["train"] * 40)
    answer, folder = analyze_to_json([subject()], store, workdir / "out")
    whole(answer, folder)
    assert finding_text(answer, "Neighbours") == "" and len(table(folder, "neighbors")) == 0


def test_an_empty_request_gives_no_columns(workdir, plain_store):
    answer, folder = analyze_to_json([subject()], plain_store, workdir / "out", columns=[])
    whole(answer, folder)


def test_a_column_requested_twice_counts_once(workdir, plain_store):
    answer, folder = analyze_to_json([subject()], plain_store, workdir / "out", columns=["label", "label"])
    whole(answer, folder)
    assert Counter(table(folder, "neighbors")["column"]) == {"label": 1}


@pytest.mark.parametrize("setting", [{"columns": ["reader"]}, {"domain": "reader"}])
def test_a_column_may_be_requested_although_it_recodes_another(setting, workdir):
    labels = [["a", "b"][i % 2] for i in range(48)]
    store = made_store(workdir / "s", textures(48), label=labels, reader=[label.upper() for label in labels])
    answer, folder = analyze_to_json([subject()], store, workdir / "out", **setting)
    whole(answer, folder)


def test_a_store_of_one_patient_can_be_analysed(workdir):
    store = made_store(workdir / "s", textures(44), label=list("ab" * 22), patient=["p"] * 44)
    answer, folder = analyze_to_json([subject(), subject("other", 1)], store, workdir / "out")
    whole(answer, folder, ("pixels", "other"))
    assert len(table(folder, "property_probes")) == 0 and finding_text(
        answer, "Linearly decodable properties"
    ).startswith("Too few values to probe: label")
    assert not (folder / "figures" / "property_probes.png").exists()


@pytest.mark.long
def test_a_colour_store_and_a_grey_store_can_be_analysed_together(workdir, photo_store):
    grey = made_store(workdir / "grey", textures(40))
    backbone = family_backbone("resnet", 3)
    backbone.card = replace(backbone.card, id="made up")
    answer, folder = analyze_to_json([real(backbone, "colour")], photo_store, workdir / "out", {"grey": grey})
    whole(answer, folder, ("colour",))


def test_an_untrained_vit_can_be_analysed(workdir, ct_store):
    backbone = family_backbone("vit")
    backbone.card = replace(backbone.card, id="made up")
    answer, folder = analyze_to_json([real(backbone, "vit")], ct_store, workdir / "out")
    whole(answer, folder, ("vit",))
    assert answer["backbones"][0]["method"] == "none"


@pytest.mark.parametrize("value", [0.0, pytest.param(1.0, marks=pytest.mark.long)])
def test_a_collapsed_backbone_can_be_analysed(value, workdir, plain_store):
    flat = subject("flat", of=lambda store: np.full((len(store), 6), value, np.float32))
    answer, folder = analyze_to_json([subject(), flat], plain_store, workdir / "out")
    whole(answer, folder, ("pixels", "flat"))
    shown = pd.read_parquet(folder / "umap.parquet")
    assert np.isfinite(shown[["x", "y"]]).all(axis=None)
    assert "flat: no map, since its features are equal for all images" in finding_text(answer, "UMAP")
    assert shown[shown["backbone"] == "flat"][["x", "y"]].drop_duplicates().shape == (1, 2)
    assert len(shown[shown["backbone"] == "pixels"][["x", "y"]].drop_duplicates()) > 40


def test_a_collapsed_backbone_can_be_analysed_alone_and_first(workdir, plain_store):
    flat = subject("flat", of=lambda store: np.full((len(store), 6), 2.0, np.float32))
    for number, backbones in enumerate(([flat], [flat, subject()])):
        answer, folder = analyze_to_json(backbones, plain_store, workdir / f"out{number}")
        whole(answer, folder, [one.name for one in backbones])
        assert answer["backbones"][0]["trustworthiness"] is None
        assert "flat: no map" in finding_text(answer, "UMAP")


def test_equidistant_features_without_a_finite_dimension_can_be_analysed(workdir, plain_store):
    answer, folder = analyze_to_json(
        [subject(of=lambda store: np.eye(48, dtype=np.float32))], plain_store, workdir / "out"
    )
    whole(answer, folder)


def test_two_stores_of_the_same_name_are_refused_in_python_too(workdir, plain_store):
    other = made_store(workdir / "deep" / "plain", textures(40, 7))
    with pytest.raises(UsageError, match="plain"):
        analyze_to_json([subject()], plain_store, workdir / "out", {"plain": other})


def test_non_finite_features_are_refused_with_advice(workdir, plain_store):
    broken = subject("broken", of=lambda store: np.full((len(store), 6), np.nan, np.float32))
    with pytest.raises(UsageError, match="broken"):
        analyze_to_json([broken], plain_store, workdir / "out")


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "store",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("mean", "slice_position", "row", "backbone", "mean_knn_distance (pixels)")
        ),
    ],
)
def test_a_column_may_have_a_name_that_the_analysis_uses_itself(name, workdir):
    columns = {name: [["low", "high"][i // 4 % 2] for i in range(48)], "patient": [f"p{i // 4}" for i in range(48)]}
    store = made_store(workdir / "s", textures(48), **columns)
    answer, folder = analyze_to_json(
        [subject()], store, workdir / "out", {"other": made_store(workdir / "other", textures(40, 7))}
    )
    whole(answer, folder)


@pytest.mark.long
def test_columns_of_many_kinds_can_be_analysed(workdir):
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
    answer, folder = analyze_to_json([subject()], made_store(workdir / "s", textures(48), **columns), workdir / "out")
    whole(answer, folder)
    assert {"patient", "smoker", "grade"} <= set(table(folder, "neighbors")["column"])


LONG_NAMES = ("<b>&amp;\"'", "a/b", "中文 ünï", "x" * 300, "_hidden", "{0} %s", "a, b")


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
@pytest.mark.parametrize("name", ["cost$_$ of", *(pytest.param(name, marks=pytest.mark.long) for name in LONG_NAMES)])
def test_unusual_names_of_backbones_labels_and_columns_can_be_analysed(name, workdir):
    column = name if name != "a/b" else "a b"
    labels = [[name, "b"][i // 3 % 2] for i in range(48)]
    values = {
        "label": labels,
        column: [["u", name][i // 6 % 2] for i in range(48)],
        "patient": [f"p{i // 3}" for i in range(48)],
    }
    store = made_store(workdir / "s", textures(48), **values)
    answer, folder = analyze_to_json([subject(name), subject("other", 1)], store, workdir / "out", neighbors=5)
    whole(answer, folder, (name, "other"))
    for title in ("UMAP", "Similarity of layers", "Outliers"):
        assert name in finding_text(answer, title), f"{title}: names stay as they are"
    assert name in set(table(folder, "clouds")["backbone"])


def test_names_with_a_hyphen_stay_as_they_are_in_every_sentence(workdir):
    columns = {"site": np.repeat(["st-01", "st-02"], 50).tolist(), "patient": [f"p{i // 2}" for i in range(100)]}
    store = made_store(workdir / "s", textures(100), **columns)
    answer, _ = analyze_to_json([subject("vit-b"), subject("vit-0", 1)], store, workdir / "out", domain="site")
    assert "st-01 and st-02: vit-b" in finding_text(answer, "Domains") and "vit-0" in finding_text(answer, "Domains")
    assert "vit-b" in finding_text(answer, "Similarity of layers")


@pytest.mark.long
def test_the_order_of_backbones_does_not_change_their_numbers(workdir, plain_store):
    pair = [subject("one"), subject("two", 1)]
    folders = [
        analyze_to_json(order, plain_store, workdir / f"out{i}")[1] for i, order in enumerate((pair, pair[::-1]))
    ]
    for name in ("neighbors", "clouds", "property_probes", "outliers"):
        one, two = (table(folder, name) for folder in folders)
        for backbone in ("one", "two"):
            own = [side[side["backbone"] == backbone].reset_index(drop=True) for side in (one, two)]
            pd.testing.assert_frame_equal(*own)


def test_more_neighbours_than_small_stores_have_are_refused_before_anything_is_done(workdir, plain_store):
    asked = []
    careful = replace(subject(), features=lambda store: asked.append(store))
    with pytest.raises(UsageError, match="48 images"):
        analyze_to_json([careful], plain_store, workdir / "out", neighbors=30)
    assert not asked


def test_an_analysis_that_fails_leaves_nothing(workdir, plain_store, monkeypatch):
    monkeypatch.setattr("ssl_transfer.analysis.stage.draw_all", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        analyze_to_json([subject()], plain_store, workdir / "out")
    assert [path.name for path in workdir.iterdir()] == ["plain"]


def test_of_a_store_with_too_many_images_whole_patients_are_analysed_and_the_analysis_says_so(workdir, monkeypatch):
    monkeypatch.setattr(altered, "MOST_ANALYSED", 50)
    patients = [f"p{n // 4:02d}" for n in range(80)]
    images = textures(80)
    images[79] = images[3]
    splits = ["train"] * 40 + ["test"] * 40
    store = made_store(workdir / "s", images, splits, patient=patients)
    answer, folder = analyze_to_json([subject()], store, workdir / "out")
    whole(answer, folder)
    assert answer["n"] == {"images": 80, "patients": 20, "analysed": 48, "sample": 48}
    assert "a sample of 48 of 80 images, all of each drawn patient" in finding_text(answer, "Sample")
    assert "pairs with other images are not found" in answer["leaks"]
    rows = pd.read_parquet(folder / "umap.parquet")["row"].to_numpy()
    assert len(set(rows)) == 48 and rows.max() > 48 and np.bincount(rows // 4).tolist().count(4) == 12
    assert set(table(folder, "outliers")["row"]) <= set(rows)
