"""Operations of a fine-tune that are counted before it is run are those that its record states."""

import pytest
from support.families import family_backbone
from support.tiny_tasks import SHORT, class_task, judge

from ssl_transfer.evaluation.expected_flops import training_flops


@pytest.mark.parametrize(("strategy", "family"), [("head_only", "resnet"), ("lora", "vit")])
def test_a_strategy_costs_what_its_record_states(strategy, family, tmp_path):
    result = judge(
        "finetune", family_backbone(family), class_task(tmp_path, classes=3), tmp_path / "run", f"strategy={strategy}"
    )
    found = training_flops("finetune", family_backbone(family), [*SHORT, f"strategy={strategy}"])
    attention = 0.03 if family == "vit" else 0  # without fused kernels it has one product fewer backwards
    assert found == pytest.approx(result.cost["flops"], rel=attention)
