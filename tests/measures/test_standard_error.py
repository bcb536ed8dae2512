"""Standard error of a mean recall: against the binomial formula, and against a bootstrap over patients."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from ssl_transfer.measures.standard_error import mean_recall_error


def drawn(seed, patients=150, images=6):
    """Images of patients that are recognised or not as a patient: truth, prediction, patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), images)
    truth = np.where(rng.random(patients) < 0.3, 1, 0)[patient]
    easy = rng.random(patients)[patient]
    return truth, np.where(rng.random(len(truth)) < easy, truth, 1 - truth), patient


def test_over_images_it_is_the_binomial_error_of_each_recall():
    truth, predicted, _ = drawn(0)
    parts = []
    for label in (0, 1):
        recall, count = np.mean(predicted[truth == label] == label), np.sum(truth == label)
        parts.append(recall * (1 - recall) / count)
    assert mean_recall_error(truth, predicted) == pytest.approx(np.sqrt(sum(parts)) / 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_over_patients_it_is_the_deviation_of_a_bootstrap_over_patients(seed):
    truth, predicted, patient = drawn(seed)
    rng, values = np.random.default_rng(seed), []
    rows = [np.flatnonzero(patient == number) for number in range(patient.max() + 1)]
    for _ in range(2000):
        chosen = np.concatenate([rows[number] for number in rng.integers(len(rows), size=len(rows))])
        values.append(balanced_accuracy_score(truth[chosen], predicted[chosen]))
    error = mean_recall_error(truth, predicted, patient)
    assert error == pytest.approx(np.std(values), rel=0.08)
    assert error > 1.3 * mean_recall_error(truth, predicted)  # slices of a patient are not independent


def test_an_image_per_patient_is_the_binomial_error_but_for_the_number_of_patients():
    truth, predicted, _ = drawn(3)
    count = len(truth)
    expected = mean_recall_error(truth, predicted) * np.sqrt(count / (count - 1))
    assert mean_recall_error(truth, predicted, np.arange(count)) == pytest.approx(expected)


def test_a_single_patient_says_nothing_of_other_patients_so_its_images_count():
    truth, predicted, _ = drawn(4)
    assert mean_recall_error(truth, predicted, np.zeros(len(truth))) == mean_recall_error(truth, predicted)


def test_names_of_patients_may_be_any_text_in_any_order():
    truth, predicted, patient = drawn(5)
    names = np.array([f"p{(7 * number) % 150}" for number in patient])
    assert mean_recall_error(truth, predicted, names) == pytest.approx(mean_recall_error(truth, predicted, patient))
