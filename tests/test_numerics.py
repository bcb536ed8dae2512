"""What float32 is within a computation, and that a process keeps its own settings."""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from ssl_transfer.environment import FLOAT32
from ssl_transfer.numerics import WORKSPACE, numerics

backends: Any = torch.backends  # type checkers do not know what its modules hold
cudnn, matmul = backends.cudnn, backends.cuda.matmul
NEWER = pytest.mark.skipif(not hasattr(matmul, "fp32_precision"), reason="needs torch 2.9")
HABITS = {  # what a process may have set before
    "nothing": lambda: None,
    "tf32 products": lambda: torch.set_float32_matmul_precision("high"),
    "bf16 products": lambda: torch.set_float32_matmul_precision("medium"),
    "ieee convolutions": lambda: setattr(cudnn, "allow_tf32", False),
    "timed kernels": lambda: setattr(cudnn, "benchmark", True),
}
NEW_HABITS = {
    "tf32 of products alone": lambda: setattr(matmul, "fp32_precision", "tf32"),
    "tf32 of all": lambda: setattr(backends, "fp32_precision", "tf32"),
}


def of_process() -> dict:
    """All settings that decide on numbers."""
    names = ("allow_tf32", "benchmark", "deterministic")
    readers: dict[str, Callable[[], Any]] = {name: partial(getattr, cudnn, name) for name in names}
    readers["products"] = torch.get_float32_matmul_precision
    readers["mode"] = torch.get_deterministic_debug_mode
    readers["workspace"] = lambda: os.environ.get(WORKSPACE)
    places = {
        "all": backends,
        "products": matmul,
        "convolutions": getattr(cudnn, "conv", None),
        "cells": getattr(cudnn, "rnn", None),
    }
    places |= {f"{name} on a CPU": getattr(backends.mkldnn, name, None) for name in ("matmul", "conv")}
    readers |= {f"{name}: newer": partial(getattr, place, "fp32_precision", None) for name, place in places.items()}
    found = {}
    for name, read in readers.items():
        try:
            found[name] = read()
        except RuntimeError as error:  # torch refuses to read an old setting if new ones contradict each other
            found[name] = type(error)
    return found


@pytest.fixture(autouse=True)
def _kept_settings():
    """Settings are put back by hand, as a fresh process has them."""
    yield
    if hasattr(backends, "fp32_precision"):
        backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = True, False, False
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("habit", [*HABITS, *(pytest.param(name, marks=NEWER) for name in NEW_HABITS)])
def test_products_and_convolutions_are_ieee_within_and_as_before_afterwards(habit):
    (HABITS | NEW_HABITS)[habit]()
    before = of_process()
    with numerics():
        assert torch.get_float32_matmul_precision() == "highest" and not cudnn.allow_tf32
        within = of_process()
        if hasattr(matmul, "fp32_precision"):
            assert {matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision} == {FLOAT32}
        assert within["benchmark"] == before["benchmark"]
    assert of_process() == before


def test_settings_are_restored_after_an_error_and_by_an_inner_block():
    before = of_process()
    with pytest.raises(ZeroDivisionError), numerics(equal_shapes=True):
        assert cudnn.benchmark
        outer = of_process()
        with numerics():
            assert cudnn.benchmark
        assert of_process() == outer
        raise ZeroDivisionError
    assert of_process() == before


@pytest.mark.parametrize("set_before", [False, True])
def test_deterministic_takes_fixed_kernels_and_warns_of_operations_that_have_none(set_before, monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    if set_before:
        monkeypatch.setenv(WORKSPACE, ":16:8")
    before = of_process()
    with numerics(equal_shapes=True, deterministic=True):
        assert cudnn.deterministic and not cudnn.benchmark
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ[WORKSPACE] == (":16:8" if set_before else ":4096:8")
    assert of_process() == before


def test_a_pretraining_leaves_the_settings_of_the_process_and_records_its_own(runs, one_thread, monkeypatch, tmp_path):
    from ssl_transfer.training.loop import Training

    monkeypatch.delenv(WORKSPACE, raising=False)
    advance, during = Training._advance, []

    def watched(training, batches):
        during.append(of_process())
        return advance(training, batches)

    monkeypatch.setattr(Training, "_advance", watched)
    torch.set_float32_matmul_precision("high")
    before = of_process()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs(tmp_path / "run", "train.deterministic=true", "train.epochs=0.4")
    assert of_process() == before
    assert during[0]["deterministic"] and during[0]["products"] == "highest" and during[0]["mode"] == 1
    card = runs.card(tmp_path / "run")["training"]
    assert (card["float32"], card["deterministic"], card["precision"]) == ("ieee", True, "fp32")


def test_ids_of_recipes_without_the_option_are_those_of_earlier_versions():
    from ssl_transfer.recipe import FinetuneSection, PretrainRecipe, find_recipe, load_recipe

    recipe = load_recipe(PretrainRecipe, find_recipe("quickstart_simclr", ""))
    assert (
        "deterministic" not in recipe.identity()["train"] and "longest_wait_minutes" not in recipe.identity()["train"]
    )
    assert "deterministic" not in FinetuneSection().identity()
    assert FinetuneSection(deterministic=True).identity()["deterministic"]
