"""What a ranking looks at: patients stay together in folds and in resamples, and what is scored was never learnt from."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, roc_auc_score
from support.rankings import CLASSES, CLEAR, DIM, cohort, plain, ranked, reader, train_and_val_rows
from support.tiny_tasks import class_task, write_task

from ssl_transfer.data import altered
from ssl_transfer.errors import SplitError, SslTransferError, UsageError
from ssl_transfer.evaluation.knn import knn
from ssl_transfer.evaluation.linear_probe import linear_probe
from ssl_transfer.features import extract_features
from ssl_transfer.ranking.sample import UNDEFINED, Sample

PROBES = {"linear_probe": linear_probe, "knn": knn}


def sample(task, fraction=1.0, seed=0, folds=5, resamples=10):
    return Sample.of(task, fraction, seed, folds, resamples)


def patients(drawn):
    return drawn.task.store.column("patient")[drawn.rows]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return cohort(tmp_path_factory.mktemp("cohort"))


def persons(folder, with_patients=True, **card):
    """40 patients of 4 images, each of one class; and features that tell the patient, never the class."""
    draw = np.random.default_rng(1)
    who = np.repeat(np.arange(40), 4)
    labels = draw.permutation(np.arange(40) % 2)[who]
    splits = np.where(who < 28, "train", np.where(who < 34, "val", "test"))
    columns = {"label": labels.astype(str), "patient": [f"p{n:02d}" if with_patients else None for n in who]}
    task = write_task(folder, np.zeros((160, 1, 4, 4), np.uint8), splits, columns, **card)
    features = draw.normal(size=(40, 24))[who] + 0.02 * draw.normal(size=(160, 24))
    return task, features.astype(np.float32)


# rows, folds, resamples


def test_rows_are_those_of_train_then_of_val(task):
    assert sample(task).rows.tolist() == train_and_val_rows(task).tolist()


def test_images_without_a_label_are_left_out(workdir):
    command = np.array([str(n % CLASSES) for n in range(60)], object)
    command[[4, 45]] = None  # one of train, one of val
    some = cohort(workdir / "task", {"label": command})
    assert sample(some).rows.tolist() == [row for row in train_and_val_rows(some) if row not in (4, 45)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [3, 5, 17])
def test_a_patient_is_in_one_fold(task, folds, seed):
    drawn = sample(task, folds=folds, seed=seed)
    assert set(drawn.folds) == set(range(folds))
    assert all(len(set(drawn.folds[patients(drawn) == name])) == 1 for name in patients(drawn))


def test_there_are_no_more_folds_than_patients(task):
    assert set(sample(task, folds=100).folds) == set(range(17))


def test_classes_are_distributed_evenly_over_folds(workdir):
    task, _ = persons(workdir / "task")
    drawn = sample(task)
    for fold in range(5):
        assert 0.3 < drawn.labels[drawn.folds == fold].mean() < 0.7


def test_the_same_seed_gives_the_same_folds_and_resamples_and_another_does_not(task):
    one, two, other = sample(task), sample(task), sample(task, seed=1)
    assert np.array_equal(one.folds, two.folds) and np.array_equal(one.counts, two.counts)
    assert not np.array_equal(one.folds, other.folds) and not np.array_equal(one.counts, other.counts)


def test_patients_are_drawn_whole_and_as_many_as_there_are(task):
    drawn = sample(task, resamples=50)
    assert drawn.counts.shape == (50, len(drawn.rows))
    _, first = np.unique(patients(drawn), return_index=True)
    assert (drawn.counts[:, first].sum(1) == 17).all() and len(np.unique(drawn.counts[:, first], axis=0)) > 40
    for name in patients(drawn):
        of_one = drawn.counts[:, patients(drawn) == name]
        assert (of_one == of_one[:, :1]).all()


def test_a_row_drawn_twice_occurs_twice(task):
    drawn = sample(task, resamples=4)
    positions = list(drawn.drawn())
    assert len(positions) == 4
    for times, at in zip(drawn.counts, positions, strict=True):
        assert np.array_equal(np.bincount(at, minlength=len(drawn.rows)), times)


def test_a_fraction_takes_whole_training_patients_and_all_of_val(task):
    whole, part = sample(task), sample(task, fraction=0.5)
    assert set(part.rows) < set(whole.rows)
    splits = task.store.column("split")
    assert (splits[part.rows] == "val").sum() == (splits[whole.rows] == "val").sum()
    assert len(set(patients(part))) == 7 + 3
    assert all((patients(part) == name).sum() == 3 for name in patients(part))


def test_if_patients_are_unknown_images_are_drawn(workdir):
    drawn = sample(cohort(workdir / "task", with_patients=False), resamples=20)
    of_patients = drawn.counts.reshape(20, 17, 3)
    assert (of_patients != of_patients[:, :, :1]).any((0, 2)).all()
    assert len(set(drawn.folds[:3])) > 1 or len(set(drawn.folds[3:6])) > 1
    assert (drawn.counts.sum(1) == 51).all()


@pytest.mark.parametrize("folds", [1, 2])
def test_fewer_than_three_folds_are_refused(task, folds):
    with pytest.raises(UsageError, match=f"folds: found {folds}, expected at least 3"):
        sample(task, folds=folds)


def test_fewer_than_three_patients_are_refused(workdir):
    columns = {"label": list("0101010"), "patient": list("aabbbbt")}
    splits = ["train"] * 3 + ["val"] * 3 + ["test"]
    two = write_task(workdir / "task", np.zeros((7, 1, 4, 4), np.uint8), splits, columns)
    with pytest.raises(SplitError, match="2 patients in train and val"):
        sample(two)


@pytest.mark.parametrize(("train", "held_out"), [(2, 1), (4, 2)])
def test_a_task_of_a_few_patients_with_one_image_is_divided_into_folds_or_refused_with_a_reason(
    workdir, train, held_out
):
    few = class_task(workdir / "task", train=train, held_out=held_out)
    try:
        drawn = sample(few)
    except SslTransferError:
        return
    assert set(drawn.folds) == set(range(drawn.folds.max() + 1)) and drawn.folds.max() >= 2


# probes


@pytest.mark.parametrize("probe", PROBES)
def test_features_that_separate_patients_but_not_classes_do_not_score_well(workdir, probe):
    task, features = persons(workdir / "known")
    drawn = sample(task)
    honest = drawn.metric(drawn.held_out(PROBES[probe], {"": features[drawn.rows]}).scores)
    assert honest < 0.65
    images, same = persons(workdir / "unknown", with_patients=False)
    leaking = sample(images)
    assert leaking.metric(leaking.held_out(PROBES[probe], {"": same[leaking.rows]}).scores) > 0.9


@pytest.mark.parametrize("probe", PROBES)
def test_features_that_separate_classes_score_well_whatever_else_they_encode(workdir, probe):
    task, features = persons(workdir / "task")
    drawn = sample(task)
    inputs = features[drawn.rows]
    inputs[:, 0] = 20 * drawn.labels - 10 + inputs[:, 0]
    assert drawn.metric(drawn.held_out(PROBES[probe], {"": inputs}).scores) > 0.9


def test_training_selection_and_scoring_use_different_patients_and_every_image_is_scored_once(task):
    drawn = sample(task)
    names, calls, scored = patients(drawn), [], []
    numbers = np.arange(len(drawn.rows), dtype=np.float32)[:, None]

    def spy(train, labels, queries, n_classes, kind):
        used = [train, *queries.values()]
        at = [part[:, 0].astype(int) for part in used]
        assert np.array_equal(labels, drawn.labels[at[0]]) and n_classes == CLASSES
        calls.append([set(names[part]) for part in at])
        assert sorted(np.concatenate(at)) == list(range(len(numbers)))
        scored.append(dict(zip(queries, at[1:], strict=True)))
        yield {}, {name: np.eye(CLASSES)[drawn.labels[part[:, 0].astype(int)]] for name, part in queries.items()}

    scores = drawn.held_out(spy, {"": numbers}).scores
    assert len(calls) == 5
    assert all(one.isdisjoint(other) for parts in calls for i, one in enumerate(parts) for other in parts[:i])
    assert sorted(np.concatenate([own["test"] for own in scored])) == list(range(len(numbers)))
    assert np.array_equal(scores, np.eye(CLASSES)[drawn.labels])


@pytest.mark.parametrize("metric", ["accuracy", "brier"])
def test_a_setting_is_not_selected_on_the_images_that_are_scored(workdir, metric):
    task = cohort(workdir / "task", metric=metric)
    drawn = sample(task)
    right = np.eye(CLASSES)

    def two_settings(train, labels, queries, n_classes, kind):
        truth = {name: drawn.labels[part[:, 0].astype(int)] for name, part in queries.items()}
        wrong = {name: (codes + 1) % CLASSES for name, codes in truth.items()}
        yield {}, {"validation": right[wrong["validation"]], "test": right[truth["test"]]}
        yield {}, {"validation": right[truth["validation"]], "test": right[wrong["test"]]}

    scores = drawn.held_out(two_settings, {"": np.arange(len(drawn.rows), dtype=np.float32)[:, None]}).scores
    assert np.array_equal(scores.argmax(1), (drawn.labels + 1) % CLASSES)


def test_a_fold_in_which_the_metric_is_undefined_does_not_decide_the_pooling(task, monkeypatch):
    values = iter([UNDEFINED, UNDEFINED] + [0.6, 0.8] * 4)  # of mean and max, on the validation of each fold
    monkeypatch.setattr(Sample, "_selected", lambda *_: (next(values), 0.5))
    assert sample(task).held_out(knn, dict.fromkeys(("mean", "max"), np.empty(0))).pooling == "max"


# the metric

METRICS = {
    "accuracy": lambda labels, scores: accuracy_score(labels, scores.argmax(1)),
    "balanced_accuracy": lambda labels, scores: balanced_accuracy_score(labels, scores.argmax(1)),
    "brier": lambda labels, scores: brier_score_loss(labels, scores[:, 1]),
}


@pytest.mark.parametrize("metric", METRICS)
def test_the_metric_of_a_resample_is_that_of_the_images_it_drew(workdir, metric):
    task, _ = persons(workdir / "task", metric=metric)
    drawn = sample(task, resamples=15)
    chance = np.random.default_rng(0).random(len(drawn.rows))
    scores = np.stack([1 - chance, chance], 1)
    assert drawn.metric(scores) == pytest.approx(METRICS[metric](drawn.labels, scores), abs=1e-12)
    expected = [METRICS[metric](drawn.labels[at], scores[at]) for at in drawn.drawn()]
    assert drawn.metric_resampled(scores) == pytest.approx(expected, abs=1e-12)


def test_no_fold_is_without_images_where_patients_are_of_very_different_size(workdir):
    who = np.repeat(np.arange(6), [30, 5, 4, 3, 2, 1])
    columns = {"label": (np.arange(45) % 2).astype(str), "patient": [f"p{n}" for n in who]}
    splits = np.where(who < 4, "train", np.where(who < 5, "val", "test"))
    task = write_task(workdir / "task", np.zeros((45, 1, 4, 4), np.uint8), splits, columns)
    assert set(sample(task, folds=3).folds) == {0, 1, 2}


def test_an_auroc_compares_images_of_one_fold_and_is_the_mean_over_folds_by_their_images(workdir):
    task, _ = persons(workdir / "task", metric="auroc")
    drawn = sample(task, resamples=15)
    chance = np.random.default_rng(0).random(len(drawn.rows))

    def expected(at):
        parts = [at[drawn.folds[at] == fold] for fold in range(5)]
        parts = [part for part in parts if len(set(drawn.labels[part])) == 2]
        areas = [roc_auc_score(drawn.labels[part], chance[part]) for part in parts]
        return np.average(areas, weights=[len(part) for part in parts])

    for shift in (0, 1000 * drawn.folds):  # what a fold's own head adds to all of its scores does not matter
        scores = np.stack([-chance - shift, chance + shift], 1)
        assert drawn.metric(scores) == pytest.approx(expected(np.arange(len(chance))), abs=1e-9)
        resampled = [expected(at) for at in drawn.drawn()]
        assert drawn.metric_resampled(scores) == pytest.approx(resampled, abs=1e-9)


# samples of large stores


def test_a_ranking_of_too_many_images_takes_whole_patients_and_says_so(workdir, monkeypatch):
    task = cohort(workdir / "task")
    monkeypatch.setattr(altered, "MOST_ANALYSED", 31)
    answer = ranked(task, {"clear": CLEAR, "dim": DIM}, workdir / "out", resamples=0)
    assert answer["n"] == {"images": 30, "patients": 10}
    assert any("a sample of 30 of 60 images, all of each drawn patient" in text for text in answer["caveats"])
    again = ranked(task, {"clear": CLEAR, "dim": DIM}, workdir / "again", resamples=0)
    assert plain(again) == plain(answer)


def test_a_ranking_of_few_images_takes_all_of_them(workdir):
    answer = ranked(cohort(workdir / "task"), {"clear": CLEAR}, workdir / "out", resamples=0)
    assert answer["n"]["images"] == 51 and not any("a sample of" in text for text in answer["caveats"])


def test_features_of_the_whole_store_serve_its_sample(workdir, monkeypatch):
    task, backbone = cohort(workdir / "task"), reader(*CLEAR)
    extract_features(backbone, task.store, workdir / "features")
    monkeypatch.setattr(altered, "MOST_ANALYSED", 31)
    answer = ranked(task, {"clear": backbone}, workdir / "out", resamples=0, features=[workdir / "features"])
    assert answer["n"]["images"] == 30 and not (workdir / "runs/features").exists()
