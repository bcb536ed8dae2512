"""What an export says: the card of the hub, results with intervals, licences; and the command."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from support.exported import randomised
from support.results import made_result
from support.tiny_tasks import class_task

from ssl_transfer.cli import main
from ssl_transfer.errors import UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.export.model_card import hub_head
from ssl_transfer.export.stage import export_backbone
from ssl_transfer.models.backbone import save_backbone

TINY = "test_resnet,in_channels=1,size=32"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"), train=24, held_out=12, classes=3)


@pytest.fixture
def backbone(tmp_path):
    """A saved backbone with a recipe and a domain, of a licence that excludes commercial use."""
    made = randomised(
        TINY, method="simclr", source_domain="ct", licence="CC BY-NC 4.0", recipe={"method": {"name": "simclr"}}
    )
    save_backbone(made, tmp_path / "backbone")
    return tmp_path / "backbone"


def test_the_hub_reads_the_card_with_its_results_and_licence(backbone, task, tmp_path):
    result = evaluate("knn", backbone, task, tmp_path / "result", resamples=50)
    export_backbone(backbone, "hf", tmp_path / "out", [tmp_path / "result"])
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-nc-4.0", "timm")
    assert {"simclr", "ct", "timm"} <= set(card.data.tags)
    found = {entry.metric_type: entry for entry in card.data.eval_results}
    test = result.metrics["test"]
    assert found["accuracy"].metric_value == round(test["accuracy"], 4)
    low, high = result.intervals["accuracy"]
    assert f"{low:.4f} to {high:.4f}" in found["accuracy"].metric_name
    assert f"| {test['accuracy']:.4f} | {low:.4f} to {high:.4f} | 12 (12) |" in card.text
    for part in ("## Intended use", "## Limits", "not a medical device", '"name": "simclr"', "of the domain ct"):
        assert part in card.text


SCORES = {  # test metrics of a kind of target -> task type on the hub
    ("auroc", "mcc", "sensitivity_at_specificity"): "image-classification",
    ("quadratic_kappa", "mae", "accuracy"): "image-classification",
    ("mae", "rmse", "r2", "spearman"): "tabular-regression",
    ("c_index",): "other",
    ("dice", "hd95"): "image-segmentation",
}
TYPES = {"auroc": "roc_auc", "mcc": "matthews_correlation", "r2": "r_squared", "spearman": "spearmanr"}


@pytest.mark.parametrize("metrics", SCORES, ids=lambda metrics: metrics[0])
def test_a_result_has_the_task_type_and_the_metrics_of_its_kind_of_target_on_the_hub(metrics):
    result = made_result(metrics={"val": {}, "test": dict.fromkeys(metrics, 0.5)}, settings={"operating_point": 0.9})
    head = hub_head(randomised(TINY).card, [result])
    entries = ModelCard(head).data.eval_results
    assert {entry.task_type for entry in entries} == {SCORES[metrics]}
    assert [entry.metric_type for entry in entries] == [TYPES.get(metric, metric) for metric in metrics]


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        (("quadratic_kappa", "mae", "accuracy"), "MAE, in grades"),
        (("mae", "r2"), "MAE, in the unit of the target"),
        (("dice", "hd95"), "HD95"),
        (("auroc", "sensitivity_at_specificity"), "sensitivity at specificity 0.9"),
    ],
)
def test_a_metric_is_named_with_what_its_value_depends_on(metrics, title):
    result = made_result(metrics={"val": {}, "test": dict.fromkeys(metrics, 0.5)}, settings={"operating_point": 0.9})
    names = [entry.metric_name for entry in ModelCard(hub_head(randomised(TINY).card, [result])).data.eval_results]
    assert title in names


def test_a_licence_of_its_own_is_other_on_the_hub(tmp_path):
    export_backbone(f"scratch:{TINY}", "hf", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.license, card.data.license_name) == ("other", "as its training images")
    assert card.data.eval_results is None and "None were given" in card.text
    assert "features. **Random initialisation**: not pretrained." in card.text


def test_a_result_of_another_backbone_is_refused(backbone, task, tmp_path):
    evaluate("knn", f"scratch:{TINY}", task, tmp_path / "result", resamples=0)
    with pytest.raises(UsageError, match=r"is a result of the backbone scratch .* and this is"):
        export_backbone(backbone, "hf", tmp_path / "out", [tmp_path / "result"])


def test_a_non_commercial_licence_is_flagged_in_every_form(exported, licensed, capsys):
    to, folder, answer = exported
    assert "**No commercial use.**" in (folder / "README.md").read_text()
    assert answer["non_commercial"] and json.loads((folder / "export.json").read_text())["non_commercial"]
    export_backbone(licensed, to, folder)
    said = capsys.readouterr().err
    assert "excludes commercial use" in said and "already there" in said


@pytest.mark.parametrize("licence", ["as its training images", "apache-2.0", "MIT"])
def test_other_licences_are_not_flagged(licence, tmp_path, capsys):
    export_backbone(randomised(TINY, licence=licence), "timm", tmp_path / "out")
    assert "commercial" not in capsys.readouterr().err + (tmp_path / "out/README.md").read_text()


def test_the_command_answers_with_the_folder_and_refuses_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["export", f"scratch:{TINY}", "--to", "timm", "--out", "out"]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["export"] == "out" and "model.safetensors" in answer["files"]
    assert main(words) == 0 and "already there" in capsys.readouterr().err
    assert main(["export", f"scratch:{TINY}", "--to", "torchvision", "--out", "other"]) == 2
    assert capsys.readouterr().err.startswith("BackboneError: scratch: torchvision has no model")
    assert main(["export", "trivial", "--to", "onnx", "--out", "other"]) == 2
    assert "no weights" in capsys.readouterr().err


def test_a_child_has_the_licence_of_its_parent(runs, finished, tmp_path):
    shutil.copytree(finished[0] / "backbone", tmp_path / "parent")
    card = json.loads((tmp_path / "parent/card.json").read_text())
    assert card["licence"] == "as its training images"
    (tmp_path / "parent/card.json").write_text(json.dumps(card | {"licence": "cc-by-nc-4.0"}))
    runs(tmp_path / "child", f"backbone.init={tmp_path / 'parent'}", "train.epochs=1")
    assert runs.card(tmp_path / "child")["licence"] == "cc-by-nc-4.0, and that of its training images"
