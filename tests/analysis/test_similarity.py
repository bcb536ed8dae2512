"""How alike clouds are: the fast CKA of many against the slow one of two, neighbours against sets, and the tables' shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_transfer.analysis.similarity import FEATURES, layer_ckas, shapes, shared_neighbors, similarities
from ssl_transfer.measures.geometry import cka, effective_rank, procrustes, rankme
from ssl_transfer.measures.neighborhood import Neighborhood

N = 40


def cloud(seed=0, width=6, n=N):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


@pytest.fixture(scope="module")
def layers():
    """Two backbones: of one layer they have the same name, of another they do not."""
    one, other = cloud(1, 8), cloud(2, 5)
    return {
        "a": {"stem": cloud(3, 4), "block": cloud(4), FEATURES: one},
        "b": {"stage": cloud(5, 3), "block": cloud(4) + 0.5 * cloud(6), FEATURES: other},
    }


@pytest.fixture(scope="module")
def graphs(layers):
    return {name: Neighborhood.of(held[FEATURES], 6) for name, held in layers.items()}


@pytest.mark.parametrize("n", [4, 5, N])
def test_every_pair_has_the_unbiased_linear_cka_of_geometry(n):
    clouds = [cloud(seed, width, n) for seed, width in ((0, 2), (1, 7), (2, 30), (0, 2))]
    clouds[1] = clouds[1] + 100  # off the origin
    found = layer_ckas(clouds)
    expected = [[cka(one, other, unbiased=True) for other in clouds] for one in clouds]
    assert found.shape == (4, 4) and found == pytest.approx(np.array(expected), abs=1e-9)


def test_similarity_of_a_cloud_to_its_rotated_shifted_and_scaled_copy_is_one():
    one = cloud(width=6)
    found = layer_ckas([one, 3.7 * one @ rotation(6) + 2, 1e-4 * one, np.hstack([one, np.zeros((N, 3))])])
    assert found == pytest.approx(np.ones((4, 4)), abs=1e-6)


def test_unrelated_clouds_are_about_0_even_where_images_are_few_and_dimensions_many():
    found = layer_ckas([cloud(seed, 500, 30) for seed in range(6)])
    assert abs(found[np.triu_indices(6, 1)].mean()) < 0.02


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3e5])
def test_a_constant_cloud_has_no_similarity_and_does_not_affect_others(value):
    found = layer_ckas([cloud(0), np.full((N, 3), value, np.float32), cloud(1)])
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()


def test_shared_neighbours_are_those_of_both_sets():
    one, other = Neighborhood.of(cloud(0), 7), Neighborhood.of(cloud(0) + 0.7 * cloud(1), 7)
    expected = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(one.positions, other.positions, strict=True)])
    assert 0.1 < expected < 0.9
    assert shared_neighbors(one, other) == pytest.approx(expected)
    assert shared_neighbors(other, one) == pytest.approx(expected)
    assert shared_neighbors(one, one) == 1.0


def test_graphs_of_different_sizes_are_compared_by_equally_many_nearest_neighbours():
    few, many = Neighborhood.of(cloud(0), 3), Neighborhood.of(cloud(0), 9)
    assert shared_neighbors(few, many) == shared_neighbors(many, few) == 1.0


def test_every_pair_of_layers_has_a_row_and_layers_of_the_same_name_have_further_measures(layers, graphs):
    table = similarities(layers, graphs)
    assert list(table) == [
        "backbone_a",
        "layer_a",
        "backbone_b",
        "layer_b",
        "cka",
        "cka_rbf",
        "procrustes",
        "neighbors_shared",
    ]
    assert len(table) == 6 * 7 / 2 and table[["cka", "cka_rbf"]].notna().all(axis=None)
    close = table[table["procrustes"].notna()]
    assert [(row.layer_a, row.layer_b, row.backbone_a, row.backbone_b) for row in close.itertuples()] == [
        ("block", "block", "a", "b"),
        (FEATURES, FEATURES, "a", "b"),
    ]
    assert table.index[table["neighbors_shared"].notna()].tolist() == [close.index[-1]]


def test_similarities_are_those_of_the_functions_in_geometry(layers, graphs):
    row = similarities(layers, graphs).dropna().iloc[0]
    one, other = layers["a"][FEATURES], layers["b"][FEATURES]
    assert row["cka"] == pytest.approx(cka(one, other, unbiased=True))
    assert row["cka_rbf"] == pytest.approx(cka(one, other, "rbf", unbiased=True))
    assert row["procrustes"] == pytest.approx(procrustes(one, other))
    assert row["neighbors_shared"] == pytest.approx(shared_neighbors(graphs["a"], graphs["b"]))


def test_one_backbone_is_compared_with_itself_alone(layers, graphs):
    table = similarities({"a": layers["a"]}, {"a": graphs["a"]})
    assert len(table) == 6 and table["procrustes"].isna().all()
    own = table[table["layer_a"] == table["layer_b"]]
    assert own["cka"].to_numpy() == pytest.approx(1)


def test_shapes_have_a_row_per_layer_and_more_columns_for_the_features(layers, graphs):
    held = layers["a"]
    pairs = held[FEATURES], held[FEATURES] + 0.1 * cloud(9, 8)
    table = shapes(held, pairs, graphs["a"]).set_index("layer")
    assert list(table.index) == ["stem", "block", FEATURES] and list(table["dimensions"]) == [4, 6, 8]
    for layer, values in held.items():
        assert table.loc[layer, "effective_rank"] == pytest.approx(effective_rank(torch.from_numpy(values)))
        assert table.loc[layer, "rankme"] == pytest.approx(rankme(torch.from_numpy(values)))
    more = table[["alignment", "uniformity", "intrinsic_dimension", "hubness"]]
    assert more.loc[["stem", "block"]].isna().all(axis=None) and more.loc[FEATURES].notna().all()
    assert more.loc[FEATURES, "hubness"] == pytest.approx(graphs["a"].hubness)
    assert more.loc[FEATURES, "intrinsic_dimension"] == pytest.approx(graphs["a"].intrinsic_dimension)
    assert 0 < more.loc[FEATURES, "alignment"] < 0.1


def test_shapes_of_constant_features_raise_no_error():
    flat = np.ones((N, 4), np.float32)
    row = shapes({FEATURES: flat}, (flat, flat), Neighborhood.of(flat, 5)).iloc[0]
    assert row["effective_rank"] == pytest.approx(1) and row["alignment"] == 0 and row["uniformity"] == pytest.approx(0)
