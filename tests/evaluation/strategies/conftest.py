"""A tiny task, and fine-tunes on it that record every step."""

import itertools
import json
from types import SimpleNamespace

import pytest
from support.families import family_backbone
from support.strategies import STEPS
from support.tiny_tasks import class_task, judge, state_on_cpu

from ssl_transfer.evaluation.strategies.lora import LoRA
from ssl_transfer.evaluation.task_model import TaskModel


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return class_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def trained(task, tmp_path, monkeypatch):
    """Fine-tunes, and records every tensor and every layer's mode before each step, and the tensors in the end."""
    number = itertools.count()

    def train(strategy, family="resnet", *overrides, steps=STEPS):
        tensors, modes, models = [], [], []
        before_step = TaskModel.before_step

        def recorded(model, step):
            before_step(model, step)
            models.append(model)
            tensors.append(state_on_cpu(model))
            modes.append({name: layer.training for name, layer in model.named_modules()})

        with monkeypatch.context() as patch:
            patch.setattr(TaskModel, "before_step", recorded)
            patch.setattr(
                LoRA, "finish", lambda strategy, backbone: None
            )  # adapters are recorded before they are merged
            backbone, out = family_backbone(family), tmp_path / str(next(number))
            judge("finetune", backbone, task, out, f"strategy={strategy}", f"train.steps={steps}", *overrides)
        tensors.append(state_on_cpu(models[-1]))
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return SimpleNamespace(tensors=tensors, modes=modes, lines=lines, model=models[-1], steps=len(modes))

    return train
