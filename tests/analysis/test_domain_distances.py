"""Distances between domains: two draws of one cloud against each other, a moved cloud, patients, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_transfer.analysis.domains import FEWEST, MOST_DOMAINS, domain_distances

COLUMNS = ["domain_a", "domain_b", "frechet", "frechet_by_chance", "mmd", "separability", "separability_by_chance", "n"]


def drawn(counts, shifts=None, width=8, per_patient=5, seed=0, own=0.0):
    """Clouds of so many images each, moved by `shifts`; every patient's images lie about its own centre by `own`."""
    draw = np.random.default_rng(seed)
    parts, domains, groups = [], [], []
    for name, count in counts.items():
        patients = np.arange(count) // per_patient
        centres = own * draw.normal(size=(patients.max() + 1, width))
        parts.append(draw.normal(size=(count, width)) + centres[patients] + (shifts or {}).get(name, 0))
        domains += [name] * count
        groups += [f"{name}-{patient}" for patient in patients]
    return np.concatenate(parts).astype(np.float32), np.array(domains, object), np.array(groups, object)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_samples_of_one_distribution_are_at_the_chance_level(seed):
    (row,) = domain_distances(*drawn({"a": 300, "b": 300}, seed=seed), seed).to_dict("records")
    assert row["frechet"] < 1.5 * row["frechet_by_chance"]
    assert abs(row["mmd"]) < 0.01
    assert 0.38 < row["separability"] < 0.62 and 0.38 < row["separability_by_chance"] < 0.62
    assert (row["domain_a"], row["domain_b"], row["n"]) == ("a", "b", 600)


def test_shifted_features_are_farther_than_chance_in_every_measure():
    (row,) = domain_distances(*drawn({"a": 200, "b": 200}, {"b": 1.0})).to_dict("records")
    assert row["frechet"] > 4 * row["frechet_by_chance"] and row["mmd"] > 0.1
    assert row["separability"] > 0.95 and row["separability_by_chance"] < 0.7


def test_frechet_and_mmd_detect_features_with_a_larger_variance():
    features, domains, groups = drawn({"a": 300, "b": 300})
    features[domains == "b"] *= 3
    (row,) = domain_distances(features, domains, groups).to_dict("records")
    assert row["frechet"] > 3 * row["frechet_by_chance"] and row["mmd"] > 0.02


def test_features_multiplied_by_ten_give_the_same_numbers():
    features, domains, groups = drawn({"a": 120, "b": 120}, {"b": 0.4})
    one, other = domain_distances(features, domains, groups), domain_distances(10 * features, domains, groups)
    assert list(one) == COLUMNS
    assert one[COLUMNS[2:]].to_numpy(float) == pytest.approx(other[COLUMNS[2:]].to_numpy(float), rel=1e-4, abs=1e-6)


def test_separating_patients_is_not_separating_domains():
    # Twelve patients in each, all images of a patient in one place: a probe that may know a patient is right every time.
    table = domain_distances(*drawn({"a": 240, "b": 240}, per_patient=20, width=64, own=6.0))
    assert table["separability"][0] < 0.8


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_other_patients_of_one_domain_are_at_the_chance_level(seed):
    # What no difference looks like is two sets of other patients, for that is what two domains always are.
    features, domains, groups = drawn({"a": 300, "b": 300}, per_patient=20, own=1.5, seed=seed)
    (row,) = domain_distances(features, domains, groups, seed).to_dict("records")
    assert row["frechet"] < 1.5 * row["frechet_by_chance"]


def test_three_domains_give_three_rows_with_equal_numbers_of_images():
    table = domain_distances(*drawn({"c": 90, "a": 60, "b": 150}))
    assert list(zip(table["domain_a"], table["domain_b"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (table["n"] == 120).all()


def test_only_the_eight_largest_domains_are_compared():
    table = domain_distances(*drawn({f"d{i}": 50 + 5 * i for i in range(10)}))
    assert len(table) == MOST_DOMAINS * (MOST_DOMAINS - 1) / 2 == 28
    assert not {"d0", "d1"} & (set(table["domain_a"]) | set(table["domain_b"]))


def test_domains_of_fewer_than_fifty_images_and_rows_of_none_are_left_out():
    features, domains, groups = drawn({"a": 60, "b": 60, "few": FEWEST - 1})
    assert len(domain_distances(features, domains, groups)) == 1
    domains[domains == "b"] = None
    domains[3] = float("nan")
    table = domain_distances(features, domains, groups)
    assert len(table) == 0 and list(table) == COLUMNS
    assert list(domain_distances(features[:0], domains[:0], groups[:0])) == COLUMNS


def test_with_too_few_patients_there_are_distances_and_no_probe():
    features, domains, _ = drawn({"a": 60, "b": 60})
    (row,) = domain_distances(features, domains, np.repeat(["p", "q"], 60).astype(object)).to_dict("records")
    assert np.isfinite(row["frechet"]) and np.isnan(row["separability"])


def test_the_draw_depends_on_the_seed_alone():
    features, domains, groups = drawn({"a": 1200, "b": 60}, width=3)
    one, again, other = (domain_distances(features, domains, groups, seed) for seed in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)


def test_constant_features_have_distance_zero():
    _, domains, groups = drawn({"a": 60, "b": 60})
    for value in (0.0, 2.0):
        (row,) = domain_distances(np.full((120, 4), value, np.float32), domains, groups).to_dict("records")
        assert row["frechet"] == pytest.approx(0, abs=1e-9) and row["mmd"] == pytest.approx(0, abs=1e-9)
        assert row["separability"] == pytest.approx(0.5)


def test_domains_may_be_numbers():
    features, domains, groups = drawn({1.5: 60, 3.0: 60}, {3.0: 2.0})
    (row,) = domain_distances(features, domains, groups).to_dict("records")
    assert (row["domain_a"], row["domain_b"]) == (1.5, 3.0) and row["separability"] > 0.9
