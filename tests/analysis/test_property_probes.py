"""Image properties of pixels drawn to have them, and probes of properties that features hold, or do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from support.tiny_tasks import write_task

from ssl_transfer.analysis.properties import image_properties
from ssl_transfer.analysis.property_probes import probe_properties
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.store import ImageStore

COMMON = ["mean", "std", "body_area", "center_x", "center_y", "symmetry", "edge_density", "noise"]


def properties_of(folder, images, units="hu") -> pd.DataFrame:
    """Of images (N, H, W), stored as they are."""
    images = np.asarray(images)[:, None].astype(np.int16 if units == "hu" else np.uint8)
    columns = {"label": ["a"] * len(images), "patient": [f"p{i}" for i in range(len(images))]}
    write_task(folder, images, ["train"] * len(images), columns, units=units)
    return image_properties(ImageStore(folder / "store"))


def body(left=0, side=32, value=50) -> np.ndarray:
    """Air with a block of a value, its left edge at a column."""
    image = np.full((side, side), -1000)
    image[8:24, left : left + 16] = value
    return image


def test_properties_of_a_block_of_tissue_in_air_are_those_computed_by_hand(tmp_path):
    table = properties_of(tmp_path, [body(8), body(0), body(8, value=600)])
    assert [name for name in table if name in COMMON] == COMMON
    first, aside, bone = (table.iloc[i] for i in range(3))
    assert first["body_area"] == first["soft_tissue"] == pytest.approx(0.25) and first["air"] == pytest.approx(0.75)
    assert first["center_x"] == pytest.approx(0, abs=1e-9) and first["symmetry"] == pytest.approx(1)
    assert aside["center_x"] < -0.4 and aside["symmetry"] < 0.3 and aside["center_y"] == pytest.approx(0, abs=1e-9)
    assert bone["bone"] == pytest.approx(0.25) and bone["soft_tissue"] == 0 and bone["mean"] > first["mean"]


def test_noise_is_measured_in_units_of_the_values_for_any_image(tmp_path):
    draw = np.random.default_rng(0)
    ramp = np.tile(np.linspace(-500, 500, 64), (64, 1))
    images = [ramp + draw.normal(0, sigma, (64, 64)) for sigma in (5, 20, 60)]
    assert properties_of(tmp_path, np.rint(images))["noise"].to_numpy() == pytest.approx([5, 20, 60], rel=0.1)


def test_images_that_are_not_hu_have_no_tissue_shares_and_empty_images_have_no_centre(tmp_path):
    table = properties_of(tmp_path, [np.zeros((32, 32)), np.full((32, 32), 200)], units="display")
    assert list(table)[: len(COMMON)] == COMMON and not {"bone", "air"} & set(table)
    assert np.isnan(table["center_x"][0]) and table["body_area"].tolist() == [0, 1]
    assert table["std"].tolist() == [0, 0] and np.isnan(table["symmetry"]).all()


def test_slice_position_is_the_position_of_a_phantom_slice_in_its_series(tmp_path, ct_store):
    store = ingest("phantom:ct,patients=3,slices=18,size=32", tmp_path / "store", workers=1)
    position = image_properties(store)["slice_position"].groupby(store.column("series"))
    assert (position.apply(lambda own: sorted(own) == [0, 0.5, 1])).all()
    assert "slice_position" not in image_properties(ct_store)  # whose series have a single slice


def crowd(patients=40, images=6, dim=12, seed=0):
    """Features and patients: every patient has an offset of its own."""
    draw = np.random.default_rng(seed)
    groups = np.repeat([f"p{i}" for i in range(patients)], images)
    features = draw.normal(size=(patients, dim)).repeat(images, 0) + draw.normal(size=(len(groups), dim))
    return features.astype(np.float32), groups, draw


def test_a_linear_property_is_decodable_and_its_permutation_is_not():
    features, groups, draw = crowd()
    value = features @ draw.normal(size=12) + 0.1 * draw.normal(size=len(features))
    found = probe_properties(features, pd.DataFrame({"size": value, "large": value > 0}), groups).set_index("property")
    assert found["measure"].to_dict() == {"size": "R2", "large": "AUROC"} and (found["n"] == len(groups)).all()
    assert found["value"]["size"] > 0.97 and found["value"]["large"] > 0.97
    assert found["chance"]["size"] < 0.1 and abs(found["chance"]["large"] - 0.5) < 0.2


def test_a_property_of_single_patients_is_not_decodable_for_unseen_patients():
    """Rows of a patient are alike, so a probe that had seen one row of a patient would know the others' value."""
    features, groups, draw = crowd(images=20, dim=36)
    own = dict(zip(np.unique(groups), draw.normal(size=40), strict=True))
    value = np.array([own[who] for who in groups])
    seen = LinearRegression().fit(features[::2], value[::2]).score(features[1::2], value[1::2])
    found = probe_properties(features, pd.DataFrame({"secret": value}), groups)
    assert seen > 0.3 and found["value"].iloc[0] < 0.1


def test_three_classes_and_words_are_probed_and_missing_values_left_out():
    features, groups, _ = crowd()
    part = np.array(["head", "neck", "chest"], object)[np.argmax(features[:, :3], 1)]
    part[::7] = None
    found = probe_properties(features, pd.DataFrame({"part": part}), groups).iloc[0]
    assert found["measure"] == "AUROC" and found["value"] > 0.9 and found["n"] == (part != None).sum()  # noqa: E711


@pytest.mark.parametrize(
    "column",
    [
        np.ones(240),
        ["same"] * 240,
        [f"word {i}" for i in range(240)],
        [1.0] * 20 + [None] * 220,
        ["rare"] * 10 + ["often"] * 230,
    ],
    ids=["constant", "one class", "an id", "known of few", "a rare class"],
)
def test_properties_with_too_few_values_are_left_out(column):
    features, groups, _ = crowd()
    assert not len(probe_properties(features, pd.DataFrame({"it": column}), groups))


def test_few_patients_are_left_out_and_rows_keep_the_order_of_columns():
    features, groups, draw = crowd()
    words = np.where(draw.random(240) < 0.5, "x", "y")
    table = pd.DataFrame({"b": draw.normal(size=240), "word": words, "a": draw.normal(size=240)})
    assert probe_properties(features, table, groups)["property"].tolist() == ["b", "word", "a"]
    assert not len(probe_properties(features, table, np.repeat(["p", "q", "r", "s"], 60)))
