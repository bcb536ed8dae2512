"""One neighbour graph against scikit-learn's brute force, and what is read from it against loops."""

import math

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ssl_transfer.measures import neighborhood
from ssl_transfer.measures.neighborhood import Neighborhood


@pytest.fixture(scope="module")
def rows():
    """200 rows around five centres, of 12 features."""
    draw = np.random.default_rng(0)
    return (draw.normal(size=(5, 12))[draw.integers(5, size=200)] + 0.8 * draw.normal(size=(200, 12))).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def near(rows):
    return Neighborhood.of(rows, 7)


@pytest.fixture(scope="module")
def classes(rows):
    """Four classes that the rows tell about, but do not tell apart; each has several rows."""
    return np.digitize(rows[:, 0] + 0.5 * rows[:, 1], [-1, 0, 1])


def brute(rows, k):
    """Neighbours of each row among the others, with cosine distances."""
    return NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(rows.astype(float)).kneighbors()


def missing(label):
    return label is None or label != label


def loop_purity(near, labels):
    shares = []
    for own, positions in zip(labels, near.positions, strict=True):
        others = [labels[p] for p in positions if not missing(labels[p])]
        if not missing(own) and others:
            shares.append(sum(other == own for other in others) / len(others))
    return np.mean(shares) if shares else math.nan


def loop_chance(labels):
    known = [label for label in labels if not missing(label)]
    return np.mean([(sum(other == label for other in known) - 1) / (len(known) - 1) for label in known])


def loop_precision(near, labels, count):
    hits = [
        [labels[p] == own for p in positions[:count]]
        for own, positions in zip(labels, near.positions, strict=True)
        if not missing(own)
    ]
    return np.mean(hits)


def loop_average_precision(near, labels):
    values = []
    for own, positions in zip(labels, near.positions, strict=True):
        if missing(own):
            continue
        possible = min(near.k, sum(label == own for label in labels) - 1)
        hits, total = 0, 0
        for i, p in enumerate(positions, 1):
            if labels[p] == own:
                hits += 1
                total += hits / i
        values.append(total / possible)
    return np.mean(values)


def spoilt(labels, marks, dtype=object):
    """Every fifth label is missing, in one of several ways."""
    labels = labels.astype(dtype)
    for i, row in enumerate(range(0, len(labels), 5)):
        labels[row] = marks[i % len(marks)]
    return labels


@pytest.fixture(
    params=[
        "integers",
        "text",
        "objects",
        "floats",
        "boolean",
        "None",
        "NaN",
        "float NaN",
        "None and NaN",
        "integer None",
    ]
)
def labels(request, classes):
    words = np.array(["lung", "heart", "liver", "kidney"])[classes]
    return {
        "integers": classes,
        "text": words,
        "objects": words.astype(object),
        "floats": classes / 3,
        "boolean": classes > 1,
        "None": spoilt(words, [None]),
        "NaN": spoilt(words, [math.nan]),
        "float NaN": spoilt(classes, [math.nan], float),
        "None and NaN": spoilt(words, [None, math.nan, float("nan"), np.float32("nan")]),
        "integer None": spoilt(classes, [None]),
    }[request.param]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_neighbours_and_distances_are_those_of_brute_force(rows, k, dtype):
    near = Neighborhood.of(rows.astype(dtype) * np.linspace(0.01, 100, 200, dtype=dtype)[:, None], k)
    distances, positions = brute(rows, k)
    assert (near.index, near.recall, near.k) == ("exact", 1, k)
    assert np.array_equal(np.sort(near.positions), np.sort(positions))
    assert np.allclose(near.similarities, 1 - distances, atol=1e-5)
    assert np.allclose(near.distances, np.sqrt(2 * distances), atol=1e-5)
    assert near.similarities.dtype == np.float32 and near.positions.dtype == np.int64
    assert (np.diff(near.similarities) <= 0).all()


def test_features_are_not_changed(rows):
    given = rows.copy()
    Neighborhood.of(given, 3)
    assert np.array_equal(given, rows)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("copies", [2, 5, 7, 8, 30])
def test_a_row_is_never_its_own_neighbour_nor_twice_another_s_however_many_are_the_same(rows, copies, kind):
    crowd = np.repeat(rows[: 200 // copies], copies, 0)
    near = Neighborhood.of(crowd, 5, kind)
    assert near.positions.shape == near.similarities.shape == (len(crowd), 5)
    for i, positions in enumerate(near.positions):
        assert i not in positions and len(set(positions)) == 5 and min(positions) >= 0
        equal = min(5, copies - 1)
        assert (positions[:equal] // copies == i // copies).all()
        assert near.similarities[i, :equal] == pytest.approx(1, abs=1e-5)


def test_duplicates_are_at_distance_zero_and_left_out_of_the_dimension(rows):
    near = Neighborhood.of(np.concatenate([rows, rows[:40], 3 * rows[:20]]), 7)
    twins = np.r_[:40, 200:260]
    assert (near.distances[twins, 0] == 0).all() and np.isfinite(near.distances).all()
    exact, _ = brute(np.concatenate([rows, rows[:40], 3 * rows[:20]]), 2)
    ratios = [math.log(b / a) / 2 for i, (a, b) in enumerate(exact) if i not in twins]
    assert near.intrinsic_dimension == pytest.approx((len(ratios) - 1) / sum(ratios), rel=1e-3)


def test_equal_rows_are_at_distance_zero_even_if_they_are_of_length_zero(rows):
    near = Neighborhood.of(np.concatenate([rows[:20], rows[:3], np.zeros((5, 12))]), 27)
    zero = np.arange(28) >= 23
    assert (near.distances[zero[:, None] & zero[near.positions]] == 0).all()
    assert (near.distances[zero[:, None] & ~zero[near.positions]] == pytest.approx(1)) and (
        near.distances[20:23, 0] == 0
    ).all()


@pytest.mark.parametrize("apart", [1, 0.3, 0.1, 1e-2, 1e-3])
def test_distances_are_accurate_however_near_rows_are(monkeypatch, apart):
    """To some millionths of themselves, as from differences in double precision."""
    monkeypatch.setattr(neighborhood, "BLOCK", 100)
    draw = np.random.default_rng(0)
    rows = (draw.normal(size=64) + apart * draw.normal(size=(300, 64))).astype(np.float32)
    near = Neighborhood.of(rows, 9)
    unit = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    assert near.distances == pytest.approx(np.linalg.norm(unit[:, None] - unit[near.positions], axis=2), rel=1e-5)


def test_intrinsic_dimension_is_read_from_the_two_nearest(rows, near):
    ratios = [math.log(b / a) / 2 for a, b in brute(rows, 2)[0]]
    assert near.intrinsic_dimension == pytest.approx((len(rows) - 1) / sum(ratios), rel=1e-3)
    assert math.isnan(Neighborhood.of(rows, 1).intrinsic_dimension)


@pytest.mark.parametrize("scale", [1e-1, 1e-2])
def test_intrinsic_dimension_of_a_narrow_cone(scale):
    """Features with a large common part, as collapsing backbones have, of which three dimensions remain."""
    draw = np.random.default_rng(0)
    rows = np.concatenate([scale * draw.uniform(-1, 1, size=(2000, 3)), np.ones((2000, 1))], 1)
    assert Neighborhood.of(rows.astype(np.float32), 2).intrinsic_dimension == pytest.approx(3, rel=0.1)


def test_with_fewer_rows_than_neighbours_all_others_are_neighbours(rows):
    near = Neighborhood.of(rows[:6], 15)
    assert near.k == 5
    for i, positions in enumerate(near.positions):
        assert sorted([*positions, i]) == list(range(6))
    assert near.k_occurrence.tolist() == [5] * 6 and near.hubness == 0
    pair = Neighborhood.of(rows[:2])
    assert pair.k == 1 and pair.positions.tolist() == [[1], [0]]
    assert pair.purity(np.array(["a", "a"])) == 1 and math.isnan(pair.intrinsic_dimension)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_few_rows_and_many_neighbours_in_every_index(rows, kind):
    near = Neighborhood.of(rows[:60], 59, kind)
    for i, positions in enumerate(near.positions):
        assert sorted([*positions, i]) == list(range(60))


@pytest.mark.parametrize(("count", "k"), [(1, 15), (0, 1), (6, 0)])
def test_fewer_than_two_rows_or_no_neighbours_are_refused(rows, count, k):
    with pytest.raises(ValueError, match="expected two rows and k = 1"):
        Neighborhood.of(rows[:count], k)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused_and_named(rows, value):
    wrong = rows.copy()
    wrong[[7, 90], 3] = value
    with pytest.raises(ValueError, match="2 rows have features that are not finite, the first is 7"):
        Neighborhood.of(wrong)


def test_purity_is_the_mean_share_of_known_neighbours_of_the_same_class(near, labels):
    assert 0.3 < loop_purity(near, labels) < 0.95
    assert near.purity(labels) == pytest.approx(loop_purity(near, labels))


def test_purity_leaves_out_a_row_none_of_whose_neighbours_is_known(near, classes):
    sparse = classes.astype(object)
    sparse[np.arange(200) % 12 > 0] = None
    assert any(all(sparse[p] is None for p in near.positions[i]) for i in range(0, 200, 12))
    assert near.purity(sparse) == pytest.approx(loop_purity(near, sparse))


def test_purity_by_chance_is_the_share_of_the_class_among_the_other_known_rows(near, labels):
    assert near.purity_by_chance(labels) == pytest.approx(loop_chance(labels))


def test_purity_of_shuffled_labels_is_about_that_by_chance(near, classes):
    draw = np.random.default_rng(0)
    shuffled = [near.purity(draw.permutation(classes)) for _ in range(50)]
    assert np.mean(shuffled) == pytest.approx(near.purity_by_chance(classes), abs=0.01)


def test_precision_is_the_mean_share_of_the_first_with_the_label(near, labels):
    found = near.precision(labels, (1, 3, 7))
    assert found == {count: pytest.approx(loop_precision(near, labels, count)) for count in (1, 3, 7)}


def test_precision_of_more_than_there_are_neighbours_is_never_that_of_fewer(near, classes):
    """Either it is not said, or it is NaN: seven neighbours do not tell precision@15."""
    found = near.precision(classes)
    assert found[5] == pytest.approx(loop_precision(near, classes, 5))
    assert math.isnan(found.get(15, math.nan))


def test_average_precision_is_the_mean_over_hits_by_those_possible(near, labels):
    assert near.average_precision(labels) == pytest.approx(loop_average_precision(near, labels))


def test_average_precision_is_one_if_all_of_a_small_class_come_first():
    angles = np.radians([0, 1, 2, 90, 91, 92, 93, 94, 95, 96])
    near = Neighborhood.of(np.stack([np.cos(angles), np.sin(angles)], 1), 5)
    labels = np.array(["a"] * 3 + ["b"] * 7)
    assert near.average_precision(labels) == pytest.approx(1)
    assert near.precision(labels, (1, 2, 5)) == pytest.approx({1: 1, 2: 1, 5: (3 * 2 / 5 + 7) / 10})


def test_average_precision_ignores_a_row_whose_class_has_no_other(near, classes):
    lonely = classes.copy()
    lonely[0] = 99
    spared = classes.astype(object)
    spared[0] = None
    assert near.average_precision(lonely) == pytest.approx(near.average_precision(spared))
    assert math.isnan(near.average_precision(np.arange(200)))


@pytest.mark.parametrize("label", [0, 7, "lung", True])
def test_one_class_is_pure_by_chance_too(near, label):
    labels = np.array([label] * 200)
    assert near.purity(labels) == near.purity_by_chance(labels) == 1
    assert near.average_precision(labels) == pytest.approx(1) and near.precision(labels, (1, 5)) == {1: 1, 5: 1}


def test_without_labels_all_values_are_nan(near):
    for labels in (np.array([None] * 200), np.full(200, math.nan)):
        assert math.isnan(near.purity(labels)) and math.isnan(near.purity_by_chance(labels))
        assert math.isnan(near.average_precision(labels)) and math.isnan(near.precision(labels, (1,))[1])


def test_a_single_label_has_no_chance_level(near):
    labels = np.array([None] * 199 + ["lung"])
    assert math.isnan(near.purity(labels)) and math.isnan(near.purity_by_chance(labels))


def test_the_names_of_classes_do_not_change_purity(near, classes):
    for name in (near.purity, near.purity_by_chance, near.average_precision):
        assert name(classes) == name(classes * -1000) == name(classes.astype(str)) == name(classes.astype(object))


def test_k_occurrence_counts_how_often_a_row_is_a_neighbour_and_hubness_is_its_skewness(near):
    counts = [sum(i in positions for positions in near.positions) for i in range(200)]
    assert near.k_occurrence.tolist() == counts and near.k_occurrence.dtype.kind == "i"
    mean = sum(counts) / 200
    third, second = (sum((count - mean) ** power for count in counts) / 200 for power in (3, 2))
    assert near.hubness == pytest.approx(third / second**1.5)


def test_a_hub_makes_hubness_large():
    """Rows on the axes have nothing in common but the diagonal."""
    near = Neighborhood.of(np.concatenate([np.eye(50), np.ones((1, 50))]), 1)
    assert near.k_occurrence[50] == 50 and near.hubness > 5


def test_mean_knn_distance_is_largest_for_the_outlier(rows, near):
    cosine, _ = brute(rows, 7)
    assert near.mean_knn_distance.shape == (200,)
    assert near.mean_knn_distance == pytest.approx(
        [np.mean([math.sqrt(2 * d) for d in each]) for each in cosine], abs=1e-4
    )
    away = np.concatenate([np.abs(rows), -np.abs(rows[:1])])
    assert np.argmax(Neighborhood.of(away, 7).mean_knn_distance) == 200


@pytest.fixture(scope="module")
def spread():
    return np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float32)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("k", [1, 10])
def test_an_approximate_index_reports_its_name_and_recall(spread, kind, k):
    near = Neighborhood.of(spread, k, kind)
    _, exact = brute(spread, k)
    counted = np.mean([len(set(a) & set(b)) / k for a, b in zip(near.positions, exact, strict=True)])
    assert near.index == kind and near.k == k
    assert near.recall == pytest.approx(counted, abs=0.05)
    assert 0.1 < counted < 0.95 if kind == "ivf" else counted > 0.95
    assert (near.positions != np.arange(2000)[:, None]).all() and (near.positions >= 0).all()
    assert all(len(set(positions)) == k for positions in near.positions)
    unit = spread / np.linalg.norm(spread, axis=1, keepdims=True)
    assert np.allclose(near.similarities, np.einsum("nd,nkd->nk", unit, unit[near.positions]), atol=1e-5)


def test_the_same_rows_give_the_same_neighbours(spread):
    for kind in ("exact", "ivf", "hnsw"):
        assert np.array_equal(*(Neighborhood.of(spread[:800], 5, kind).positions for _ in range(2)))


def test_auto_is_exact_for_few_rows(rows):
    assert Neighborhood.of(rows).index == "exact" and Neighborhood.of(rows).k == 15


def test_auto_of_many_rows_is_approximate_and_finds_nearly_all(monkeypatch):
    monkeypatch.setattr(neighborhood, "EXACT_GRAPH_BELOW", 3000)
    draw = np.random.default_rng(0)
    crowd = (draw.normal(size=(60, 24))[draw.integers(60, size=4000)] + 0.4 * draw.normal(size=(4000, 24))).astype(
        np.float32
    )
    near = Neighborhood.of(crowd, 10)
    counted = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near.positions, brute(crowd, 10)[1], strict=True)])
    assert near.index == "ivf" and 0.99 <= near.recall <= 1 and counted == pytest.approx(near.recall, abs=0.005)
    assert Neighborhood.of(crowd[:2999], 10).index == "exact"


def test_auto_of_many_rows_is_exact_if_cells_do_not_reach_the_recall(monkeypatch):
    monkeypatch.setattr(neighborhood, "EXACT_GRAPH_BELOW", 1000)
    formless = np.random.default_rng(0).normal(size=(2000, 100)).astype(np.float32)
    near = Neighborhood.of(formless, 10)
    assert (near.index, near.recall) == ("exact", 1)
    assert np.array_equal(np.sort(near.positions), np.sort(brute(formless, 10)[1]))
