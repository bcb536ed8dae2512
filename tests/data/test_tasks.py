"""What a task card may say, and what is refused."""

import numpy as np
import pytest

from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import RecipeError, SplitError, TaskError

# What a card may say


@pytest.fixture
def opened(tmp_path):
    """A function: columns of rows (and masks) -> the task of a card on them; train, val and test take turns."""

    def open_task(card, masks=None, mask_classes=None, **columns):
        count = len(masks) if masks is not None else len(next(iter(columns.values())))
        folder = tmp_path / f"store-{len(list(tmp_path.iterdir()))}"
        dtype = None if masks is None else np.uint8
        with StoreWriter(folder, (1, 2, 2), np.uint8, dtype) as writer:
            for n in range(count):
                row = {name: values[n] for name, values in columns.items()} | {"patient": f"p{n}"}
                writer.append(np.full((1, 2, 2), n, np.uint8), row, None if masks is None else np.uint8(masks[n]))
            writer.finish(
                np.resize(["train", "val", "test"], count),
                units="display",
                domain="ct",
                split_by="patient",
                mask_classes=mask_classes,
            )
        path = tmp_path / f"{folder.name}.yaml"
        path.write_text(f"store: {folder}\n{card}\n")
        return Task.load(path)

    return open_task


WORDS = ["Mass|Edema", "None", "Edema", None, "Mass", "Edema|Hernia"]


def test_a_column_of_words_gives_a_label_for_each_word_but_that_for_none(opened):
    task = opened("target: finding\nseparator: '|'\nnegative: None\nmetric: auroc", finding=WORDS)
    assert task.kind == "multilabel" and task.classes == ["Edema", "Hernia", "Mass"]
    assert task.labels.T.tolist() == [[1, 0, 1, -1, 0, 1], [0, 0, 0, -1, 0, 1], [1, 0, 0, -1, 1, 0]]
    assert task.rows("train").tolist() == [0] and task.rows("val").tolist() == [1, 4]  # row 3 is unknown


def test_labels_are_those_that_the_card_keeps_in_its_order(opened):
    task = opened("target: finding\nseparator: '|'\nlabels: [Mass, Edema]\nmetric: auroc", finding=WORDS)
    assert task.classes == ["Mass", "Edema"] and task.labels[5].tolist() == [0, 1]


def test_the_word_for_none_is_a_label_unless_the_card_says_what_it_is(opened):
    assert "None" in opened("target: finding\nseparator: '|'\nmetric: auroc", finding=WORDS).classes


def test_several_columns_are_labels_of_numbers_or_words(opened, capsys):
    task = opened(
        "target: [a, b]\nmetric: auroc",
        a=[1.0, 0.0, -1.0, None, 1.0, 0.0],
        b=["yes", "no", "True", "0", "uncertain", ""],
    )
    assert task.kind == "multilabel" and task.classes == ["a", "b"]
    assert task.labels.T.tolist() == [[1, 0, -1, -1, 1, 0], [1, 0, 1, 0, -1, -1]]
    assert "column 'b': 'yes' is 1, 'no' is 0, 'uncertain' is unknown" in capsys.readouterr().err


def test_a_column_of_classes_is_unknown_where_it_is_empty(opened):
    task = opened("target: grade\nmetric: accuracy", grade=[2, 1, None, 1, 2, 1])
    assert task.kind == "multiclass" and task.classes == ["1.0", "2.0"] and task.labels.tolist() == [1, 0, -1, 0, 1, 0]


MASKS = [[[0, 1], [2, 9]], [[0, 0], [0, 0]], [[1, 1], [0, 0]]]


def test_mask_classes_are_values_or_whatever_is_left(opened):
    task = opened("target: mask\nmetric: dice\nclasses: {organ: [1, 9], rest: any}", masks=MASKS)
    assert task.kind == "segmentation" and task.classes == ["organ", "rest"]
    assert task.store.masks([0, 1, 2]).tolist() == [[[0, 1], [2, 1]], [[0, 0], [0, 0]], [[1, 1], [0, 0]]]
    assert opened("target: mask\nmetric: dice", MASKS, {1: "organ", 2: "lesion"}).classes == ["organ", "lesion"]


def test_fractions_are_stratified_by_the_rarest_label_or_mask_class(opened):
    task = opened("target: finding\nseparator: '|'\nnegative: None\nmetric: auroc", finding=WORDS)
    assert task.strata.tolist() == [3, 0, 1, 0, 3, 2]  # 0 for none; Mass is rarer than Edema, Hernia rarest
    assert opened("target: mask\nmetric: dice\nclasses: {a: 1, b: 2}", masks=MASKS).strata.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("target: findin\nmetric: accuracy", r"\.yaml: target: .* has no column 'findin'\. Did you mean 'finding'\?"),
        ("target: [finding, b]\nmetric: auroc", r"\.yaml: target: .* has no column 'b'\. Known: "),
        ("target: finding\nmetric: acuracy", r"\.yaml: metric: found 'acuracy'\. Did you mean 'accuracy'\?"),
        ("target: finding\nmetric: dice", r"\.yaml: metric: found 'dice'\. Known: accuracy, auroc"),
        ("target: mask\nmetric: auroc", r"\.yaml: metric: found 'auroc'\. Known: dice, dice_present, hd95"),
        ("target: mask\nmetric: dice", r"target: .* has no masks\. Ingest again with --masks"),
        ("target: finding\nmetric: accuracy\nclasses: {a: 1}", r"`classes` are for `target: mask`, .* Leave them out"),
        (
            "target: [a, b]\nseparator: '|'\nmetric: auroc",
            r"`separator` is for a single column of words\. Leave it out",
        ),
        ("target: mask\nseparator: '|'\nmetric: dice", r"`separator` is for a single column of words\. Leave it out"),
        ("target: finding\nnegative: None\nmetric: auroc", r"with a `separator`\. Add it, such as '\|'"),
        ("target: finding\nlabels: [Mass]\nmetric: auroc", r"with a `separator`\. Add it, such as '\|'"),
        (
            "target: finding\nmetric: auroc\naveraging: micro",
            r"averaging: found 'micro'\. Expected 'macro' or 'weighted'",
        ),
        (
            "target: mask\nmetric: dice\naveraging: weighted",
            r"\.yaml: .*`averaging`: found weighted, and no metric of a segmentation .*for classes, labels or grades alone",
        ),
        (
            "target: regression\ncolumn: finding\nmetric: mae\noperating_point: 0.9",
            r"`operating_point`: found 0\.9, and no metric of a regression target depends on it.* Leave it out",
        ),
        (
            "target: survival\ntime: finding\nevent: finding\nmetric: c_index\naveraging: weighted",
            r"`averaging`: found weighted, and no metric of a survival target",
        ),
        (
            "target: finding\nmetric: auroc\ntolerance: 3",
            r"`tolerance`: found 3\.0, and no metric of a multiclass target .* for masks alone\. Leave it out",
        ),
        ("target: finding", r"\.yaml: metric is missing"),
        (
            "target: finding\nmetric: auroc\nmetrics: f1",
            r"metrics: TaskCard takes no such option\. Did you mean 'metric'\?",
        ),
    ],
)
def test_an_invalid_card_is_refused_with_what_to_do(opened, card, message):
    with pytest.raises((TaskError, RecipeError), match=message):
        opened(card, finding=WORDS)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", r"masks of .* have no names\. Write them into the card"),
        ("classes: {a: [1, 2], b: 2}", r"classes: two of them have the value 2\. Each pixel has one class"),
        ("classes: {a: 0}", r"classes\.a: found 0\. Expected a whole number from 1 to 255"),
        ("classes: {a: 300}", r"classes\.a: found 300\. Expected a whole number from 1 to 255"),
        ("classes: {a: all}", r"classes\.a.*: found"),
    ],
)
def test_mask_classes_that_cannot_be_meant_are_refused(opened, classes, message):
    with pytest.raises((TaskError, RecipeError), match=message):
        opened(f"target: mask\nmetric: dice\n{classes}", masks=MASKS)


def test_columns_that_hold_nothing_to_predict_are_refused(opened):
    words = "target: finding\nseparator: '|'\nnegative: None\nmetric: auroc"
    with pytest.raises(TaskError, match=r"labels: no row of 'finding' has 'Mas'\. Did you mean 'Mass'\?"):
        _ = opened(f"{words}\nlabels: [Mas]", finding=WORDS).classes
    with pytest.raises(TaskError, match="column 'finding' names no label"):
        _ = opened(words, finding=["None"] * 3).classes
    with pytest.raises(TaskError, match=r"column 'finding' has 1 class\(es\); 2 are needed"):
        _ = opened("target: finding\nmetric: auroc", finding=["a", "a", None]).classes
    with pytest.raises(
        TaskError, match=r"column 'b': found 'perhaps' \(1 rows\), 'maybe' \(1 rows\)\. Expected 0 or 1, or"
    ):
        _ = opened("target: [a, b]\nmetric: auroc", a=[0, 1, 1], b=["yes", "perhaps", "maybe"]).labels
    with pytest.raises(SplitError, match="no labelled image in the val split"):
        opened("target: finding\nmetric: auroc", finding=["a", None, "b"]).rows("val")
    with pytest.raises(TaskError, match=r"its target is the mask.* Evaluate it by segment"):
        _ = opened("target: mask\nmetric: dice\nclasses: {a: 1}", masks=MASKS).labels


def test_a_missing_card_is_answered_with_the_nearest_name():
    with pytest.raises(
        TaskError, match=r"chestxray15: neither a task card nor a name in .*Did you mean 'chestxray1?4?8?'"
    ):
        Task.load("chestxray15")


def test_a_card_may_say_that_air_is_cleared(opened):
    task = opened("target: label\nmetric: accuracy\nair: clear", label=["a", "b"] * 6)
    assert task.store.id.endswith("+air clear") and task.store.read([3]).max() == 0  # images without contrast
    with pytest.raises(RecipeError, match="air"):
        opened("target: label\nmetric: accuracy\nair: grey", label=["a", "b"] * 6)
