"""The linear probe against scikit-learn's fits, one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ssl_transfer.errors import BackboneError, TaskError
from ssl_transfer.evaluation.inner_split import inner_split
from ssl_transfer.evaluation.linear_probe import STRENGTHS, LinearProbe, linear_probe


@pytest.fixture(params=[2, 4])
def problem(request):
    """Training features (features of very different spread), labels, queries, number of classes."""
    draw, classes = np.random.default_rng(0), request.param
    labels, centres = draw.integers(0, classes, 150), draw.normal(size=(classes, 12))
    features = (centres[labels] + draw.normal(size=(150, 12))) * np.logspace(-2, 2, 12) + 5
    return features[:100].astype(np.float32), labels[:100], features[100:].astype(np.float32), classes


@pytest.fixture
def several():
    """Standardised features, and three multi-label targets."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(120, 6))
    return features, (features[:, :3] + draw.normal(size=(120, 3)) > 0.5).astype(int)


def standardised(problem):
    train, labels, queries, _ = problem
    return (train - train.mean(0)) / train.std(0), labels, (queries - train.mean(0)) / train.std(0)


def peer(C, **options):
    return LogisticRegression(C=C, max_iter=10000, tol=1e-9, **options)


def beyond_sgd(estimator):
    """Batches of repeated rows are not batches of weighted ones."""
    why = "stochastic gradients"
    return {"check_sample_weight_equivalence_on_dense_data": why} if estimator.solver == "sgd" else {}


@parametrize_with_checks(
    [LinearProbe(), LinearProbe(C=1.0), LinearProbe(solver="sgd", epochs=20)], expected_failed_checks=beyond_sgd
)
def test_scikit_learn_s_checks_pass(estimator, check):
    check(estimator)


def test_probabilities_are_those_of_a_fresh_pipeline_at_every_strength(problem):
    train, labels, queries, classes = problem
    strengths = (1e-3, 1e-1, 1.0, 10.0)
    for setting, scores, _ in linear_probe(
        train, labels, {"val": queries, "test": queries[:5]}, classes, strengths=strengths
    ):
        pipeline = make_pipeline(StandardScaler(), peer(setting["C"]))
        expected = pipeline.fit(train.astype(np.float64), labels).predict_proba(queries.astype(np.float64))
        assert np.allclose(scores["val"], expected, atol=2e-3), setting
        assert np.allclose(scores["test"], scores["val"][:5], atol=1e-6)


def test_every_strength_is_tried_from_strong_to_weak(problem):
    train, labels, queries, classes = problem
    settings = [
        setting["C"]
        for setting, *_ in linear_probe(train, labels, {"val": queries}, classes, strengths=(1.0, 0.01, 0.1))
    ]
    assert settings == [0.01, 0.1, 1.0]
    assert (min(STRENGTHS), max(STRENGTHS), len(STRENGTHS)) == (1e-4, 1e4, 9)


def test_a_strength_s_result_does_not_depend_on_those_tried_beside_it(problem):
    train, labels, queries, classes = problem
    alone = dict(
        (s["C"], p["val"]) for s, p, _ in linear_probe(train, labels, {"val": queries}, classes, strengths=(1.0,))
    )
    among = dict(
        (s["C"], p["val"])
        for s, p, _ in linear_probe(train, labels, {"val": queries}, classes, strengths=(1e-4, 1e-2, 1.0))
    )
    assert np.allclose(alone[1.0], among[1.0], atol=2e-3)


def test_a_constant_feature_says_nothing_even_if_it_differs_in_the_queries(problem):
    train, labels, queries, classes = problem
    with_it = (
        np.hstack([train, np.full((100, 1), 7, np.float32)]),
        np.hstack([queries, np.full((50, 1), 9, np.float32)]),
    )
    ((_, one, _),) = linear_probe(with_it[0], labels, {"val": with_it[1]}, classes, strengths=(1.0,))
    ((_, other, _),) = linear_probe(train, labels, {"val": queries}, classes, strengths=(1.0,))
    assert np.allclose(one["val"], other["val"], atol=2e-3)


def test_probabilities_sum_to_one_and_are_finite_for_features_without_spread():
    train, labels = np.zeros((10, 4), np.float32), np.arange(10) % 2
    for _, scores, _ in linear_probe(train, labels, {"val": train[:3]}, 2, strengths=(1.0,)):
        assert np.allclose(scores["val"], 0.5)


def test_a_class_without_training_rows_keeps_its_column_and_gets_no_probability(problem):
    train, labels, queries, classes = problem
    for _, scores, _ in linear_probe(train, labels, {"val": queries}, classes + 1, strengths=(0.1, 1.0)):
        assert scores["val"].shape == (50, classes + 1)
        assert scores["val"][:, -1].max() < 1e-4


def test_unknown_labels_are_left_out_of_their_own_column_alone(several):
    features, labels = several
    features, unknown = features.astype(np.float32), labels.copy()
    unknown[:40, 1] = -1
    ((_, scores, _),) = linear_probe(features, unknown, {"val": features}, 3, strengths=(1.0,))
    ((_, whole, _),) = linear_probe(features, labels, {"val": features}, 3, strengths=(1.0,))
    scaled = (features - features.mean(0)) / features.std(0)
    expected = peer(1.0).fit(scaled[40:], labels[40:, 1]).predict_proba(scaled)[:, 1]
    assert np.allclose(scores["val"][:, 1], expected, atol=2e-3)
    assert np.allclose(scores["val"][:, [0, 2]], whole["val"][:, [0, 2]], atol=2e-3)


def test_balanced_classes_are_those_of_scikit_learn(problem):
    train, labels, queries, classes = problem
    features, _, scaled = standardised(problem)
    ((_, scores, _),) = linear_probe(
        train, labels, {"val": queries}, classes, strengths=(1.0,), class_weight="balanced"
    )
    expected = peer(1.0, class_weight="balanced").fit(features, labels).predict_proba(scaled)
    assert np.allclose(scores["val"], expected, atol=2e-3)


def test_sgd_tries_every_rate_with_every_weight_decay(problem):
    train, labels, queries, classes = problem
    found = list(
        linear_probe(
            train, labels, {"val": queries}, classes, solver="sgd", rates=(0.1, 1.0), weight_decays=(0.0, 1e-2)
        )
    )
    assert {(s["rate"], s["weight_decay"]) for s, *_ in found} == {(0.1, 0), (1, 0), (0.1, 1e-2), (1, 1e-2)}
    assert all(np.allclose(scores["val"].sum(1), 1) for _, scores, _ in found)


def test_features_that_are_no_numbers_are_refused_with_their_place(problem):
    train, labels, queries, classes = problem
    train[7, 3] = np.nan
    with pytest.raises(
        BackboneError, match=r"1 of 100 training images are NaN or infinite \(first: image 7\).*precision=fp32"
    ):
        next(linear_probe(train, labels, {"val": queries}, classes))


def test_a_single_class_is_refused(problem):
    train, labels, queries, classes = problem
    with pytest.raises(
        TaskError, match=r"the 100 training images have 1 class; expected at least two.*larger fraction"
    ):
        next(linear_probe(train, 0 * labels, {"val": queries}, classes))


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 3.0}])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_those_of_scikit_learn(problem, class_weight, weighted):
    features, labels, _ = standardised(problem)
    weights = np.random.default_rng(1).exponential(size=100) if weighted else None
    for C in (1e-2, 1.0):
        ours = LinearProbe(C=C, class_weight=class_weight).fit(features.astype(np.float64), labels, weights)
        theirs = peer(C, class_weight=class_weight).fit(features.astype(np.float64), labels, weights)
        assert ours.coef_.shape == theirs.coef_.shape
        assert np.allclose(ours.coef_, theirs.coef_, atol=1e-4, rtol=1e-4)
        assert np.allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-4)
        assert np.allclose(ours.decision_function(features), theirs.decision_function(features), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_multi_label_targets_are_one_against_rest(several, class_weight):
    features, labels = several
    ours = LinearProbe(C=0.5, class_weight=class_weight).fit(features, labels)
    theirs = OneVsRestClassifier(peer(0.5, class_weight=class_weight)).fit(features, labels)
    assert np.allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-4)
    assert (ours.predict(features) == theirs.predict(features)).all()


def test_no_c_selects_the_one_that_a_hand_written_loop_selects(problem):
    features, labels, _ = standardised(problem)
    held_out = inner_split(features, labels, None, 0.2, np.random.RandomState(3).randint(2**31))
    losses = [
        log_loss(
            labels[held_out], peer(C).fit(features[~held_out], labels[~held_out]).predict_proba(features[held_out])
        )
        for C in STRENGTHS
    ]
    probe = LinearProbe(random_state=3).fit(features, labels)
    assert STRENGTHS[int(np.argmin(losses))] == probe.C_
    assert np.allclose(probe.coef_, LinearProbe(C=probe.C_).fit(features, labels).coef_, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_held_out_as_a_whole_and_every_class_is_on_both_sides(seed):
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 40, 300)
    labels = np.r_[draw.integers(0, 3, 40), [3, 3, 3]][np.where(groups < 3, groups + 40, groups)]
    held_out = inner_split(draw.normal(size=(300, 2)), labels, groups, 0.2, seed)
    assert not set(groups[held_out]) & set(groups[~held_out])
    assert set(labels[held_out]) == set(labels[~held_out]) == {0, 1, 2, 3}
    assert 0.1 < held_out.mean() < 0.35


def test_without_groups_equal_rows_are_on_one_side_and_order_does_not_matter():
    draw = np.random.default_rng(0)
    features, labels = np.repeat(draw.normal(size=(40, 3)), 2, 0), np.repeat(draw.integers(0, 2, 40), 2)
    held_out, order = inner_split(features, labels, None, 0.2, 0), draw.permutation(80)
    assert (held_out[::2] == held_out[1::2]).all()
    assert (inner_split(features[order], labels[order], None, 0.2, 0) == held_out[order]).all()
    assert (inner_split(features, labels, None, 0.2, 1) != held_out).any()


def test_groups_decide_the_selected_strength_where_rows_of_a_patient_are_alike():
    draw = np.random.default_rng(0)
    patients, labels = np.repeat(np.arange(40), 10), np.repeat(draw.integers(0, 2, 40), 10)
    features = draw.normal(size=(40, 12))[patients] + 0.01 * draw.normal(size=(400, 12))  # says who, not what
    leaky = LinearProbe().fit(features, labels)
    assert LinearProbe().fit(features, labels, groups=patients).C_ < 0.01 * leaky.C_


def test_sgd_comes_near_the_convex_optimum(problem):
    features, labels, queries = standardised(problem)
    exact = LinearProbe(C=0.1).fit(features, labels)
    descended = LinearProbe(C=0.1, solver="sgd", rates=(10.0,), epochs=300, batch_size=100).fit(features, labels)
    assert np.isclose(descended.C_, 0.1)
    assert np.allclose(descended.predict_proba(queries), exact.predict_proba(queries), atol=5e-3)


def test_sgd_is_fixed_by_its_seed(problem):
    features, labels, _ = standardised(problem)
    one, same, other = (
        LinearProbe(solver="sgd", epochs=5, batch_size=32, random_state=s).fit(features, labels) for s in (0, 0, 1)
    )
    assert (one.coef_ == same.coef_).all() and one.setting_ == same.setting_
    assert (one.coef_ != other.coef_).any()


def test_a_sweep_of_sgd_is_its_single_fits(problem):
    train, labels, queries, classes = problem
    options = {"solver": "sgd", "weight_decays": (0.0,)}
    sweep = linear_probe(train, labels, {"val": queries}, classes, rates=(0.01, 0.1, 1.0), **options)
    for setting, scores, _ in sweep:
        ((_, alone, _),) = linear_probe(train, labels, {"val": queries}, classes, rates=(setting["rate"],), **options)
        assert np.allclose(scores["val"], alone["val"], atol=1e-4)


def test_sgd_that_diverges_at_every_rate_says_so(problem):
    features, labels, _ = standardised(problem)
    with pytest.raises(ValueError, match=r"sgd diverged at every rate.*Standardise"):
        LinearProbe(solver="sgd", rates=(1e30, 1e35), weight_decays=(1.0,), epochs=3).fit(features, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0}, "C=0; expected a number above 0, or None"),
        ({"C": "1"}, "C='1'; expected a number"),
        ({"strengths": ()}, r"strengths=\(\); expected numbers above 0"),
        ({"weight_decays": (-1,)}, "weight_decays=.*at least 0"),
        ({"solver": "lbgfs"}, "Did you mean 'lbfgs'"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0; expected a share"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinearProbe(**options).fit(np.eye(4), [0, 1, 0, 1])


def test_a_selection_without_rows_to_hold_out_says_what_to_do():
    with pytest.raises(ValueError, match=r"no class has two different rows among 2 rows.*Give C"):
        LinearProbe().fit(np.eye(2), [0, 1])
