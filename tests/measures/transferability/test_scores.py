"""Every score against arithmetic on paper, and against a literal transcription of its formula."""

import doctest
import math

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture
from support import naive_scores as naive
from support.naive_scores import source_posteriors, task

from ssl_transfer.measures import transferability
from ssl_transfer.measures.transferability import (
    SCORES,
    gbc,
    h_score,
    leep,
    logme,
    n_leep,
    nce,
    regularized_h_score,
    scores,
    sfda,
    transrate,
)

pytestmark = pytest.mark.filterwarnings("ignore::ssl_transfer.measures.transferability.FewImagesWarning")

LOG_2PI = math.log(2 * math.pi)

SHAPES = {  # images, features, classes
    "one feature": (30, 1, 2),
    "many images, two classes": (80, 3, 2),
    "many images, six classes": (90, 7, 6),
    "fewer features than classes": (50, 2, 5),
    "one image more than features": (21, 20, 3),
    "as many images as features": (20, 20, 4),
    "fewer images than features": (25, 70, 5),
    "far fewer images than features": (12, 90, 2),
}


def test_there_are_nine_scores_which_are_functions_of_the_package():
    assert len(SCORES) == 9 and [name for name in SCORES if SCORES[name].needs_source] == ["nce", "leep"]
    assert all(callable(getattr(transferability, name)) for name in SCORES)


@pytest.mark.parametrize("name", SCORES)
def test_examples_in_docstrings_are_true(name):
    function = getattr(transferability, name)
    for example in doctest.DocTestFinder().find(function, name, globs={name: function}):
        found = []
        doctest.DocTestRunner(verbose=False).run(example, out=found.append)
        assert not found, "".join(found)


# NCE and LEEP


def test_nce_of_a_table_of_counts():
    # z=0: labels 0 0 0 1, z=1: labels 1 1. −H(Y|Z) = 4/6 (3/4 ln 3/4 + 1/4 ln 1/4) + 2/6 · 0
    expected = 4 / 6 * (3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))
    assert nce([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]) == pytest.approx(expected, rel=1e-12)


def test_nce_is_zero_if_the_source_class_determines_the_label_and_minus_the_entropy_if_independent():
    assert nce([5, 5, 7, 9], [1, 1, 0, 0]) == pytest.approx(0, abs=1e-15)
    assert nce([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-math.log(2), rel=1e-12)


def test_leep_of_three_images():
    # θ = (1, 0), (½, ½), (0, 1), y = 0, 1, 1. P(y, z) · 3: P(0,0) 1, P(1,0) ½, P(0,1) 0, P(1,1) 3/2.
    # P(0|0) = 2/3, P(1|0) = 1/3, P(1|1) = 1. Expected: 2/3; 1/2 · 1/3 + 1/2 · 1 = 2/3; 1. Mean log: 2/3 ln 2/3.
    value = leep([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [0, 1, 1])
    assert value == pytest.approx(2 / 3 * math.log(2 / 3), rel=1e-12)


def test_leep_of_a_constant_source_posterior_is_minus_the_entropy():
    # P(y|z) = P(y) for each z, so that each image has its label's share: here 1/4 and 3/4.
    expected = 1 / 4 * math.log(1 / 4) + 3 / 4 * math.log(3 / 4)
    assert leep([[0.2, 0.5, 0.3]] * 4, [0, 1, 1, 1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count, sources, classes", [(10, 2, 2), (40, 7, 3), (60, 3, 6), (30, 50, 4)])
def test_nce_and_leep_are_their_formulas(count, sources, classes):
    labels, theta = task(count, 1, classes)[1], source_posteriors(count, sources)
    assert leep(theta, labels) == pytest.approx(naive.leep(theta, labels), rel=1e-12)
    likeliest = theta.argmax(1)
    assert nce(likeliest, labels) == pytest.approx(naive.nce(likeliest, labels), rel=1e-12)


def test_leep_of_a_classifier_that_is_certain_is_nce():
    labels, likeliest = task(50, 1, 4)[1], source_posteriors(50, 6).argmax(1)
    assert leep(np.eye(6)[likeliest], labels) == pytest.approx(nce(likeliest, labels), rel=1e-12)


# H-scores


def test_h_score_of_one_feature_is_the_share_of_variance_between_classes():
    # Rows 0 1 2 3, means of classes 0.5 and 2.5: between 1, total (2.25 + 0.25) / 2 = 1.25.
    assert h_score([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]) == pytest.approx(0.8, rel=1e-12)


def test_h_score_of_two_uncorrelated_features_is_the_sum_of_their_shares():
    # Columns (0 1 2 3) and (1 −1 −1 1) · 5 are orthogonal; the second has equal means in both classes, then unequal ones.
    features = np.array([[0.0, 5.0], [1.0, -5.0], [2.0, -5.0], [3.0, 5.0]])
    assert h_score(features, [0, 0, 1, 1]) == pytest.approx(0.8, rel=1e-12)
    # Classes {0, 3}, {1, 2}: first feature means 1.5 and 1.5, nothing; the second feature is the label, 1.
    assert h_score(features, [0, 1, 1, 0]) == pytest.approx(1, rel=1e-12)


def test_regularized_h_score_of_four_images():
    # S = diag(8, 2) / 4 = diag(2, ½), its mean μ = 1.25. Ledoit and Wolf: δ² = (0.75² + 0.75²) / 2 = 0.5625,
    # β² = ((16 + 16 + 1 + 1) / 4 − (2² + ½²)) / 4 / 2 = 0.53125, α = β² / δ² = 17/18.
    # Σ_α = S / 18 + 17/18 · 1.25 I = diag(23.25, 21.75) / 18. Means of classes ±(1, ½): between (ddof 1) diag 4/3, 1/3.
    # tr = 1/18 · (4/3 · 18 / 23.25 + 1/3 · 18 / 21.75).
    features = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = 4 / 3 / 23.25 + 1 / 3 / 21.75
    assert regularized_h_score(features, [0, 1, 0, 1]) == pytest.approx(expected, rel=1e-12)
    assert regularized_h_score(features + 100, [0, 1, 0, 1]) == pytest.approx(expected, rel=1e-10)


# LogME


def one_feature_evidence(explained, rest, count, directions=1):
    """Of y = a f + r, |f| = 1: with u = 1 / (1 + t/…), −½[log(2π(a²u + r²)/N) + 1] + K/2N log u is largest at
    u = K r² / ((N − K) a²), at most 1."""
    u = min(1.0, directions * rest / ((count - directions) * explained))
    return -0.5 * (LOG_2PI + math.log((explained * u + rest) / count) + 1) + directions / 2 / count * math.log(u)


def test_logme_of_two_numbers_and_one_feature():
    # y = (2, 1), f = (1, 0): a² = 4, r² = 1, u = 1/4, q = 2: −½ (log 2π + 1) + ¼ log ¼.
    value = logme([[1.0], [0.0]], [2.0, 1.0], target="continuous")
    assert value == pytest.approx(-0.5 * (LOG_2PI + 1) + 0.25 * math.log(0.25), rel=1e-9)


def test_logme_of_an_uninformative_feature_is_the_evidence_of_noise():
    # y = (1, 2), f = (1, 0): a² = 1 < r² = 4, so that w = 0 is best: q = 5, −½ (log 5π + 1).
    value = logme([[1.0], [0.0]], [1.0, 2.0], target="continuous")
    assert value == pytest.approx(-0.5 * (math.log(5 * math.pi) + 1), rel=1e-9)


def test_logme_of_a_constant_feature_is_that_of_an_intercept():
    # One-hot columns (1 1 1 0): a² = 9/4, r² = 3/4, u = 1/9, q = 1; (0 0 0 1): a² = ¼, r² = ¾, u = 1, q = 1.
    # Mean: −½ (log(2π/4) + 1) + ½ · 1/8 · log 1/9.
    expected = -0.5 * (math.log(math.pi / 2) + 1) + math.log(1 / 9) / 16
    assert logme(np.full((4, 1), 3.0), [0, 0, 0, 1]) == pytest.approx(expected, rel=1e-9)
    assert one_feature_evidence(9 / 4, 3 / 4, 4) + one_feature_evidence(1 / 4, 3 / 4, 4) == pytest.approx(2 * expected)


@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.parametrize("noise", [0.03, 0.3, 3.0])
def test_logme_of_orthogonal_features_of_equal_length_is_known_in_closed_form(directions, noise):
    draw = np.random.default_rng(1)
    basis = np.linalg.qr(draw.normal(size=(20, directions)))[0]
    values = basis @ draw.normal(size=directions) + noise * draw.normal(size=20)
    explained = np.sum((basis.T @ values) ** 2)
    expected = one_feature_evidence(explained, np.sum(values**2) - explained, 20, directions)
    assert logme(17 * basis, values, target="continuous") == pytest.approx(expected, rel=1e-9)


def test_logme_finds_the_highest_of_several_peaks():
    """Features of strengths 10⁻³ to 10³: the evidence along t has more than one peak; the grid is over t alone."""
    draw = np.random.default_rng(2)
    for _ in range(60):
        count, dim = int(draw.integers(6, 30)), int(draw.integers(2, 12))
        basis, _ = np.linalg.qr(draw.normal(size=(count, count)))
        dim = min(dim, count)
        strength = 10 ** draw.uniform(-3, 3, dim)
        parts = draw.normal(size=count) * np.where(draw.random(count) < 0.5, 1.0, 0.01)
        features = basis[:, :dim] * strength

        def evidence(log_t, strength=strength, parts=parts, dim=dim, count=count):
            gain = 1 + strength**2 / np.exp(log_t)[:, None]
            q = (parts[:dim] ** 2 / gain).sum(1) + (parts[dim:] ** 2).sum()
            return -0.5 * (np.log(2 * np.pi * q / count) + 1) - 0.5 / count * np.log(gain).sum(1)

        middle = math.log(np.square(features).sum() / dim)
        grid = np.linspace(middle + math.log(1e-12), middle + math.log(1e12), 6001)
        best = grid[evidence(grid).argmax()]
        fine = np.clip(np.linspace(best - 0.02, best + 0.02, 2001), grid[0], grid[-1])
        value = logme(features, basis @ parts, target="continuous")
        assert value == pytest.approx(evidence(fine).max(), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_logme_of_a_target_without_noise_is_the_evidence_at_the_least_ratio(strength):
    # y = (2 −2 2 −2) = f · 2/s, f = (s −s s −s): FᵀF = 4 s², t ends at 10⁻¹² of it, FFᵀ/t has the eigenvalue 10¹²:
    # q = |y|² / (1 + 10¹²), |y|² = 16, log det = log(1 + 10¹²).
    gain = 1 + 1e12
    expected = -0.5 * (math.log(2 * math.pi * 16 / gain / 4) + 1) - math.log(gain) / 8
    signs = np.array([1.0, -1, 1, -1])
    assert logme(strength * signs[:, None], 2 * signs, target="continuous") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(20, 3), (15, 30)])
def test_logme_of_values_is_the_best_evidence_of_each_column_and_the_mean_of_several(shape):
    draw = np.random.default_rng(0)
    features, values = draw.normal(size=shape), draw.normal(size=(shape[0], 3))
    values[:, 0] += features @ draw.normal(size=shape[1])
    singles = [logme(features, column, target="continuous") for column in values.T]
    naives = [naive.best_evidence(features, column) for column in values.T]
    assert singles == pytest.approx(naives, rel=1e-8)
    assert logme(features, values, target="continuous") == pytest.approx(np.mean(singles), rel=1e-12)
    assert logme(features, values[:, :1], target="continuous") == pytest.approx(singles[0], rel=1e-12)


def test_logme_of_labels_is_the_mean_of_the_columns_and_of_classes_that_of_the_one_hot_columns():
    features, labels = task(40, 4, 3)
    several = np.random.default_rng(0).integers(2, size=(40, 5))
    columns = [logme(features, column.astype(float), target="continuous") for column in several.T]
    assert logme(features, several, target="multilabel") == pytest.approx(np.mean(columns), rel=1e-12)
    assert logme(features, np.eye(3, dtype=int)[labels], target="multilabel") == pytest.approx(logme(features, labels))


# Separation


def test_gbc_of_two_classes_on_a_line():
    # Class 0: −1, 1 (mean 0, variance 1). Class 1: 3, 5 (4, 1): B = 16 / 8 = 2, both orders: −2 e⁻².
    assert gbc([[-1.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1]) == pytest.approx(-2 * math.exp(-2), rel=1e-12)
    # Class 1: 2, 6 (4, 4): v = 2.5, B = 16 / 20 + ½ ln(2.5 / 2).
    expected = -2 * math.exp(-0.8 - 0.5 * math.log(1.25))
    assert gbc([[-1.0], [1.0], [2.0], [6.0]], [0, 0, 1, 1]) == pytest.approx(expected, rel=1e-12)


def test_gbc_counts_the_logarithm_once_for_each_direction():
    # Squares of half sides 1 and 2 about one mean: v_0 = 1, v_1 = 4, v = 2.5, D = 2: B = ln(2.5 / 2), overlap 0.8.
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert gbc(np.r_[square, 2 * square], [0] * 4 + [1] * 4) == pytest.approx(-1.6, rel=1e-12)


def test_gbc_looks_at_leading_principal_axes_only():
    features, labels = task(60, 5, 3)
    centred = features - features.mean(0)
    leading = centred @ np.linalg.svd(centred)[2][:2].T
    assert gbc(features, labels, axes=2) == pytest.approx(gbc(leading, labels, axes=None), rel=1e-9)
    assert gbc(features, labels) == pytest.approx(gbc(features, labels, axes=None), rel=1e-9)
    wide, labels = task(90, 80, 3, apart=0.1)
    assert gbc(wide, labels) == pytest.approx(naive.gbc(wide, labels, 64), rel=1e-8)
    assert gbc(wide, labels, axes=None) == pytest.approx(naive.gbc(wide, labels, None), rel=1e-8)


def test_transrate_of_two_crossed_lines():
    # Class 0: (±1, 0), class 1: (0, ±1). Mean square 4 / 8, so Z = ±√2: ZᵀZ/N = diag(1, 1), of a class diag(2, 0).
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = math.log(1 + 1e4) - 0.5 * math.log(1 + 2e4)
    assert transrate(features, [0, 0, 1, 1]) == pytest.approx(expected, rel=1e-12)
    assert transrate(7 * features + 3, [0, 0, 1, 1]) == pytest.approx(expected, rel=1e-10)


def test_transrate_weighs_classes_by_their_images():
    # Rows −3, 1, 1, 1: mean 0, mean square 3, so Z² = 3 and 1/3: ½ ln(1 + 10⁴) − ¼ ½ ln(1 + 3·10⁴) − ¾ ½ ln(1 + 10⁴/3).
    expected = 0.5 * (math.log(1 + 1e4) - 0.25 * math.log(1 + 3e4) - 0.75 * math.log(1 + 1e4 / 3))
    assert transrate([[-3.0], [1.0], [1.0], [1.0]], [0, 1, 1, 1]) == pytest.approx(expected, rel=1e-12)


def test_sfda_of_two_classes_on_a_line():
    # Class 0: −2, 0, class 1: 0, 2. Means ∓1, S_W = 1, λ = e⁻⁵, S~ = 1: p = σ(2 |f|) = σ(4) and ½.
    # ∓2 moves to ∓a, a = 2σ(4) − (1 − σ(4)); 0 moves to ½ (class 0), −½ (class 1), means ∓m, m = (a − ½)/2,
    # S_W = ((a + ½)/2)², S~ = (1 − λ) S_W + λ; log p = log σ(2 m f / S~) at f = a and f = −½.
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    a, shrinkage = 3 * sigmoid(4) - 1, math.exp(-5)
    mean, spread = (a - 0.5) / 2, (1 - shrinkage) * ((a + 0.5) / 2) ** 2 + shrinkage
    expected = (math.log(sigmoid(2 * mean * a / spread)) + math.log(sigmoid(-mean / spread))) / 2
    assert sfda([[-2.0], [0.0], [0.0], [2.0]], [0, 0, 1, 1]) == pytest.approx(expected, rel=1e-12)


def test_sfda_of_tiny_features_is_minus_the_entropy_as_all_the_covariance_is_shrunk_away():
    features, labels = task(40, 3, 3)
    assert sfda(1e-8 * features, labels) == pytest.approx(-naive.entropy(list(labels)), rel=1e-9)


# Against the formulas


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", naive.FORMULAS)
def test_a_score_is_its_formula(name, shape, offset):
    """To 1e-8; with an offset of 100 the transcriptions themselves lose two digits more."""
    features, labels = task(*shape, apart=0.5, offset=offset)
    expected = naive.FORMULAS[name](features, labels)
    assert getattr(transferability, name)(features, labels) == pytest.approx(
        expected, rel=1e-8 if offset == 0 else 1e-7, abs=1e-12
    )


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("shape", [(60, 4, 3), (24, 30, 3)])
def test_sfda_is_its_formula_at_any_strength_of_shrinkage(shape, size):
    """λ from about 1 to 10⁻¹⁰, where a covariance without inverse leaves fewer digits."""
    features, labels = task(*shape, apart=0.3)
    expected = naive.sfda(size * features, labels)
    assert sfda(size * features, labels) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_several_scores_at_once_have_the_values_of_the_single_functions(shape):
    features, labels = task(*shape, offset=3.0)
    theta = source_posteriors(len(labels))
    singles = {
        name: getattr(transferability, name)(features, labels)
        for name, entry in SCORES.items()
        if not entry.needs_source
    }
    assert scores(features, labels) == pytest.approx(singles, rel=1e-9)
    singles |= {"leep": leep(theta, labels), "nce": nce(theta.argmax(1), labels)}
    assert scores(features, labels, theta) == pytest.approx(singles, rel=1e-9)


def test_only_the_scores_that_are_named_are_given_and_the_seed_is_that_of_the_mixture():
    features, labels = task(150, 4, 3, apart=0.5)
    assert list(scores(features, labels, names=["logme"])) == ["logme"]
    assert set(scores(features, labels, source_posteriors(150), names=["gbc", "leep"])) == {"gbc", "leep"}
    for seed in (0, 1):
        value = scores(features, labels, names=["n_leep"], seed=seed)["n_leep"]
        assert value == pytest.approx(n_leep(features, labels, seed=seed), rel=1e-9)


# N-LEEP


def clusters(sizes, dim=3, apart=100.0, seed=0):
    """Tight clusters far from each other: the number of each row's, and the rows."""
    draw = np.random.default_rng(seed)
    which = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = apart * np.linalg.qr(draw.normal(size=(max(dim, len(sizes)),) * 2))[0][: len(sizes), :dim]
    return which, centres[which] + 0.1 * draw.normal(size=(len(which), dim))


def test_n_leep_of_separate_clusters_is_nce_given_the_cluster():
    which, features = clusters([30, 40, 50])
    labels = np.where(which == 0, 0, np.arange(120) % 2)  # one cluster says the label, two say nothing
    assert n_leep(features, labels, components=3) == pytest.approx(nce(which, labels), abs=1e-9)


def test_n_leep_is_zero_when_each_cluster_is_a_class():
    which, features = clusters([30, 40, 50])
    assert n_leep(features, which) == pytest.approx(0, abs=1e-9)
    assert n_leep(features, which, components=3) == pytest.approx(0, abs=1e-9)


def test_n_leep_of_one_component_is_minus_the_entropy_whatever_the_features():
    features, labels = task(50, 4, 3)
    assert n_leep(features, labels, components=1) == pytest.approx(-naive.entropy(list(labels)), rel=1e-9)


def test_n_leep_of_noise_is_about_minus_the_entropy():
    draw = np.random.default_rng(0)
    features, labels = draw.normal(size=(2000, 3)), draw.integers(2, size=2000)
    assert n_leep(features, labels) == pytest.approx(-math.log(2), abs=0.01)


def test_n_leep_takes_five_components_per_class_and_one_per_ten_images_at_most():
    features, labels = task(200, 3, 2)
    assert n_leep(features, labels) == n_leep(features, labels, components=10)
    assert n_leep(features[:69], labels[:69]) == n_leep(features[:69], labels[:69], components=6)
    assert n_leep(features[:9], labels[:9]) == pytest.approx(-naive.entropy(list(labels[:9])), rel=1e-9)


def test_n_leep_is_a_function_of_its_seed():
    features, labels = task(150, 4, 3, apart=0.5)
    values = [n_leep(features, labels, seed=seed) for seed in (0, 0, 1, 1, 2, 2)]
    assert values[::2] == values[1::2] and len(set(values)) > 1
    assert n_leep(features, labels) == values[0]


def test_n_leep_does_not_see_axes_beyond_four_fifths_of_the_variance():
    draw = np.random.default_rng(0)
    columns = np.linalg.qr(np.c_[np.ones(100), draw.normal(size=(100, 3))])[0][:, 1:] * 10  # centred, orthogonal
    labels = (columns[:, 2] > 0).astype(int)
    leading = n_leep(columns[:, :2] * [2, 1.5], labels, components=4)  # 4 + 2.25 of 6.25 + 1.44 is 81 %
    assert n_leep(columns * [2, 1.5, 1.2], labels, components=4) == pytest.approx(leading, rel=1e-9)
    assert n_leep(columns * [2, 1.5, 1.3], labels, components=4) != pytest.approx(leading, rel=1e-3)  # 79 %: all three


def test_n_leep_is_leep_of_the_posteriors_of_a_mixture():
    """Of two overlapping clusters, whose mixture has one maximum; looser, as the fits stop at other places."""
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    features = draw.normal(size=(600, 1)) + 3.0 * labels[:, None]
    mixture = GaussianMixture(2, means_init=[[0.0], [3.0]], tol=1e-9, max_iter=2000).fit(features)
    expected = naive.leep(mixture.predict_proba(features), labels)
    assert n_leep(features, labels, components=2) == pytest.approx(expected, abs=0.02)
