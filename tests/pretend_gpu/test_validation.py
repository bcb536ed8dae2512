"""Validation on the pretend GPU waits for the device once per batch, and gives what the CPU gives."""

import pytest
from support.families import family_backbone
from support.tiny_tasks import class_task, judge, mask_task

from ssl_transfer.evaluation import finetune, segment

AT_ONCE = 2
TASKS = {  # protocol -> its task, module, function that scores, and the limit of a batch
    "finetune": (class_task, finetune, "_scores", "AT_ONCE"),
    "segment": (mask_task, segment, "_overlaps", "SLICES_AT_ONCE"),
}


@pytest.mark.parametrize("protocol", ["finetune", pytest.param("segment", marks=pytest.mark.long)])
def test_validation_waits_at_most_once_per_batch(protocol, gpu, monkeypatch, tmp_path):
    new_task, module, name, limit = TASKS[protocol]
    task, scores, waits = new_task(tmp_path / "task", held_out=4), getattr(module, name), []
    monkeypatch.setattr(module, limit, AT_ONCE)

    def counting(*arguments):
        with gpu.counting() as counts:
            result = scores(*arguments)
        waits.append((counts.waits.total(), counts.waits))
        return result

    expected = judge(protocol, family_backbone("resnet"), task, tmp_path / "cpu")
    monkeypatch.setattr(module, name, counting)
    with gpu:
        found = judge(protocol, family_backbone("resnet"), task, tmp_path / "gpu")
    batches = 4 if protocol == "segment" else 4 // AT_ONCE  # a case is an image here
    after_first = waits[1:]  # the first one copies constants
    assert after_first and all(count <= batches for count, _ in after_first), waits
    for split in ("val", "test"):
        assert found.metrics[split] == pytest.approx(expected.metrics[split], abs=1e-4, nan_ok=True)
