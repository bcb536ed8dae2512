"""What a GPU computes and how fast, in one command of at most eight minutes. It was run on the pretend GPU only.

    python benchmarks/device_check.py                    # all parts
    python benchmarks/device_check.py losses waits       # some
    python benchmarks/device_check.py --pretend          # without a GPU: small, on the one of tests/support/pretend_gpu.py

- losses: 15 steps of every method in float32, CPU against GPU, at rates so small that rounding does not grow: medians of relative
  differences, at most 1e-4 for losses and 2e-2 for norms of gradients;
- resume: whether an interrupted run ends with the bytes of an unbroken one, with `train.deterministic`, and how far they are
  apart without it;
- waits: waits of the host in a step of each method, by `torch.cuda.set_sync_debug_mode`, with their lines;
- adaptation: one fine-tuning by every strategy, and segmentation, also after features of the same backbone;
- views: milliseconds for two views of a batch, of one channel and of photographs, 224 px;
- embedding: features against the bare forward pass, ResNet-50, 224 px, bf16;
- solver: a linear probe at fifty strengths, its proofs, and agreement with the CPU;
- neighbours: exact neighbours while torch holds most of the memory;
- compiled: losses with `train.compile=true` against those without;
- step: `pretrain_throughput.py`, ResNet-50, batch 512, bf16, against the bare step.

Every part is a process of its own; one that fails says so. The last line is one JSON object: what each part found.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 460  # for all parts together, on a GPU
RECIPE = """
data:      {{store: {store}, views: ct, size: 32}}
backbone:  {{name: resnet10t, options: {{channels: [8, 16, 32, 64], stem_width: 8}}}}
method:    {{name: simclr, hidden_dim: 32, projection_dim: 16}}
optimizer: {{name: sgd, lr: 1e-4}}
train:     {{epochs: 3, batch_size: 24, precision: fp32, log_every_steps: 1, checkpoint_every_steps: 5, workers: 0}}
monitor:   {{every_epochs: 1000, images: 24}}
tracker:   none
"""
VIT = (
    "backbone={name: vit_tiny_patch16_224, "
    "options: {patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2, dynamic_img_size: true}}"
)
SMALL = "hidden_dim: 32, projection_dim: 16"
CROPS = "output_dim: 64, hidden_dim: 32, bottleneck_dim: 16, local_views: 2, local_size: 16"
METHODS = {
    "simclr": [],
    "lars": ["optimizer={name: lars, lr: 1e-3}"],
    "byol": [f"method={{name: byol, {SMALL}}}"],
    "moco": ["method={name: moco, queue: 96, bn_groups: 4, projection_dim: 16}"],
    "mocov3": [f"method={{name: mocov3, {SMALL}}}", VIT],
    "barlowtwins": [f"method={{name: barlowtwins, {SMALL}}}", "optimizer={name: sgd, lr: 1e-6}"],
    "vicreg": [f"method={{name: vicreg, {SMALL}}}", "optimizer={name: sgd, lr: 1e-6}"],
    "simsiam": ["method={name: simsiam, projection_dim: 32, bottleneck_dim: 8}"],
    "dino": [f"method={{name: dino, {CROPS}}}", VIT, "train.clip_gradient=3.0"],
    "dinov2": [f"method={{name: dinov2, {CROPS}}}", VIT],
    "mae": [
        "method={name: mae, decoder_dim: 24, decoder_depth: 2, decoder_heads: 3}",
        VIT,
        "optimizer={name: adamw, lr: 1e-5}",
    ],
    "distill": ["method={name: distill, teacher: 'scratch:test_resnet,size=32', queue: 96}"],
    "supervised": ["method={name: supervised}"],
}
LOSS_DIFFERENCE, NORM_DIFFERENCE = 1e-4, 2e-2  # medians over steps


def main() -> None:
    """Run the parts, print a table, and what they found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--pretend", action="store_true", help="small, on the pretend GPU")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(_inside(options.inside, options.pretend)))
        return
    started, found = time.perf_counter(), {}
    for name in options.parts or PARTS:
        command = [sys.executable, __file__, "--inside", name, *(["--pretend"] if options.pretend else [])]
        left = None if options.pretend else max(1.0, SECONDS - (time.perf_counter() - started))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
            answer = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]  # none if it was killed
            found[name] = answer or {"ok": False, "error": said[-1]}
        except subprocess.TimeoutExpired:
            found[name] = {"ok": False, "error": "no time was left"}
        verdict = {True: "ok", False: "FAILED", None: "-"}[found[name].get("ok")]
        print(f"{name:12} {verdict:7} {time.perf_counter() - started:5.0f} s  {found[name]}"[:400], flush=True)
    print(json.dumps(found))


def _inside(part: str, pretend: bool) -> dict[str, Any]:
    """One part, in a process of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        gpu: Any = nullcontext()
        if part == "losses_cpu":
            return _losses(Path(folder))
        if pretend:
            from support.pretend_gpu import PretendGPU

            gpu = PretendGPU()
        with gpu:
            return PARTS[part](Path(folder), pretend)


def losses(folder: Path, small: bool) -> dict[str, Any]:
    """Losses and gradient norms of every method, CPU against GPU."""
    from ssl_transfer.processes import Command

    words, hidden = [sys.executable, __file__, "--inside", "losses_cpu"], os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    with Command(words, env=hidden, stdout=subprocess.PIPE, text=True) as on_cpu:
        there = _losses(folder)
        here = json.loads(on_cpu.process.communicate()[0].splitlines()[-1])
    found = {name: [_median_difference(here[name][key], there[name][key]) for key in (0, 1)] for name in METHODS}
    close = all(loss <= LOSS_DIFFERENCE and norm <= NORM_DIFFERENCE for loss, norm in found.values())
    return {"ok": close, "loss_and_norm": {name: [f"{value:.1e}" for value in pair] for name, pair in found.items()}}


def resume(folder: Path, small: bool) -> dict[str, Any]:
    """An interrupted run against an unbroken one: bytes with `train.deterministic`, and how far apart they are without it."""
    found = {}
    for name, stated in (("deterministic", "true"), ("default", "false")):
        (folder / name).mkdir()
        found[name] = _after_interruption(folder / name, [*METHODS["byol"], f"train.deterministic={stated}"])
    return {"ok": found["deterministic"] == 0, "largest_difference": found}


def _after_interruption(folder: Path, overrides: list[str]) -> float:
    """The largest difference of a weight between an unbroken run and an interrupted one that was resumed."""
    from safetensors.numpy import load_file

    from ssl_transfer.training.loop import Training

    advance = Training._advance
    _train(folder, "unbroken", overrides)

    def broken(training, batches):
        if training.step == 8:
            raise KeyboardInterrupt
        return advance(training, batches)

    Training._advance = broken
    try:
        _train(folder, "broken", overrides)
    except KeyboardInterrupt:
        Training._advance = advance
    _train(folder, "broken", overrides)
    one, other = (load_file(folder / name / "backbone" / "model.safetensors") for name in ("unbroken", "broken"))
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def waits(folder: Path, small: bool) -> dict[str, Any]:
    """Waits of the host in the tenth step, which is not logged."""
    import torch

    from ssl_transfer.training.loop import Training

    advance, found = Training._advance, {}

    def watched(training, batches):
        if training.step != 9:
            return advance(training, batches)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                return advance(training, batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            lines = Counter(
                f"{Path(each.filename).name}:{each.lineno}" for each in caught if "synchron" in str(each.message)
            )
            found[name] = dict(lines)

    Training._advance = watched if not small else advance  # the pretend GPU counts them in its tests
    for name, overrides in METHODS.items():
        _train(folder, name, [*overrides, "train.log_every_steps=1000"])
    return {"ok": all(sum(lines.values()) <= 2 for lines in found.values()), "waits": found}


def adaptation(folder: Path, small: bool) -> dict[str, Any]:
    """Every strategy, and segmentation after features of the same backbone."""
    from support.families import family_backbone
    from support.tiny_tasks import class_task, judge, mask_task

    from ssl_transfer.evaluation.strategies.registry import STRATEGIES
    from ssl_transfer.features import layer_features

    classes, masks, failed = class_task(folder / "classes"), mask_task(folder / "masks"), {}
    for name in (*STRATEGIES, "segment"):
        backbone = family_backbone("vit" if name == "lora" else "resnet")
        try:
            if name == "segment":
                layer_features(backbone, masks.store, np.arange(4))
                judge("segment", backbone, masks, folder / name)
            else:
                judge("finetune", backbone, classes, folder / name, f"strategy={name}")
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:150]
    return {"ok": not failed, "failed": failed}


def views(folder: Path, small: bool) -> dict[str, Any]:
    """Milliseconds for two views of a batch."""
    import torch

    from ssl_transfer.data.intensity import Scale
    from ssl_transfer.data.presets import VIEWS
    from ssl_transfer.data.views import ViewMaker

    batch, found = (4 if small else 512), {}
    for name, units, channels, dtype in (("ct", "hu", 1, torch.int16), ("natural", "rgb", 3, torch.uint8)):
        images = torch.randint(0, 200, (batch, channels, 256, 256)).to(dtype).to("cuda")
        maker = ViewMaker([VIEWS[name](224, channels, units)] * 2, Scale(0.0, 255.0), 0, channels)
        found[name] = _milliseconds(lambda epoch, maker=maker, images=images: maker(images, np.arange(batch), epoch))
    return {"ok": None, "batch": batch, "ms": found}


def embedding(folder: Path, small: bool) -> dict[str, Any]:
    """Images per second of `embed` and of the bare forward pass."""
    import torch

    from ssl_transfer.models.backbone import load_backbone
    from ssl_transfer.models.embedding import embed

    side, images = (64, 64) if small else (224, 6144)
    store = _store(folder / "store", images, side)
    backbone = load_backbone(f"scratch:resnet{'18' if small else '50'},in_channels=1,size={side}")
    backbone.to("cuda").to(memory_format=torch.channels_last)
    embed(backbone, store, np.arange(64), device="cuda", bf16=not small)
    started = time.perf_counter()
    embed(backbone, store, np.arange(images), device="cuda", bf16=not small)
    ours = images / (time.perf_counter() - started)
    inputs = torch.randn(16 if small else 256, 1, side, side).to("cuda").contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=not small):
        milliseconds = _milliseconds(lambda _: backbone(inputs))
    bare = len(inputs) / milliseconds * 1e3
    ratio = round(ours / bare, 3)
    return {"ok": None if small else ratio >= 0.95, "of_bare_forward": ratio, "images_per_second": round(ours)}


def solver(folder: Path, small: bool) -> dict[str, Any]:
    """Fifty strengths at once: seconds, how many are proven, and the share of predictions that are the CPU's."""
    import torch

    from ssl_transfer.measures.logistic import fit_heads

    draw = np.random.default_rng(0)
    rows, width, strengths = (500, 16, np.logspace(-3, 0, 3)) if small else (20_000, 512, np.logspace(-6, 2, 50))
    labels = draw.integers(0, 11, rows)
    values = draw.normal(size=(rows, width)) + 0.2 * draw.normal(size=(11, width))[labels]
    features, targets = torch.from_numpy(values.astype(np.float32)), torch.from_numpy(labels)
    started = time.perf_counter()
    there = fit_heads(features.to("cuda"), targets.to("cuda"), strengths, n_classes=11)
    seconds, proven = time.perf_counter() - started, int(there.converged.sum())
    here = fit_heads(features, targets, strengths, n_classes=11)
    scores = (
        features.double() @ heads.weights.cpu().transpose(1, 2) + heads.intercepts.cpu()[:, None]
        for heads in (here, there)
    )
    first, second = (score.argmax(2) for score in scores)
    same = float((first == second).double().mean())
    return {
        "ok": proven == len(strengths) and same > 0.999,
        "seconds": round(seconds, 2),
        "proven": proven,
        "same": same,
    }


def neighbours(folder: Path, small: bool) -> dict[str, Any]:
    """Exact neighbours while torch holds most of the memory."""
    import torch

    from ssl_transfer.measures.neighbors import NeighborIndex

    draw, count = np.random.default_rng(0), 500 if small else 100_000
    rows, queries = draw.normal(size=(count, 64)), draw.normal(size=(200, 64))
    free, _ = torch.cuda.mem_get_info()
    held = None if small else torch.empty(int(0.9 * free), dtype=torch.uint8, device="cuda")
    started = time.perf_counter()
    similarities, _ = NeighborIndex(rows).search(queries, 20)
    seconds = time.perf_counter() - started
    del held
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (queries, rows)]
    exact = np.sort(unit[0] @ unit[1].T, axis=1)[:, ::-1][:, :20]
    return {"ok": bool(np.allclose(similarities, exact, atol=1e-5)), "seconds": round(seconds, 3)}


def compiled(folder: Path, small: bool) -> dict[str, Any]:
    """Losses with compiled blocks against those without."""
    if small:
        return {"ok": None, "reason": "a pretend GPU compiles nothing"}
    plain, fast = (_train(folder, str(on), [f"train.compile={on}"])[0] for on in ("false", "true"))
    difference = _median_difference(plain, fast)
    return {"ok": difference <= LOSS_DIFFERENCE, "difference": f"{difference:.1e}"}


def step(folder: Path, small: bool) -> dict[str, Any]:
    """End to end against the bare step."""
    if small:
        return {"ok": None, "reason": "a pretend GPU has no speed"}
    command = [
        sys.executable,
        str(ROOT / "benchmarks/pretrain_throughput.py"),
        "--device",
        "cuda",
        "--batch-size",
        "512",
    ]
    done = subprocess.run([*command, "--rounds", "2", "--steps", "24"], capture_output=True, text=True, check=True)
    ratios = json.loads(done.stdout.splitlines()[-1])
    return {"ok": ratios["of_bare_step_224"] >= 0.95, **ratios}


PARTS = {
    part.__name__: part
    for part in (losses, resume, waits, adaptation, views, embedding, solver, neighbours, compiled, step)
}


def _store(path: Path, images: int, side: int):
    """Made-up CT slices of three classes, five of a patient; 24 more for validation."""
    from ssl_transfer.data.store import ImageStore, StoreWriter

    draw, splits = np.random.default_rng(0), np.repeat(["train", "val"], [images, 24])
    with StoreWriter(path, (1, side, side), np.int16) as writer:
        for number in range(len(splits)):
            image = draw.normal(40 * (number % 3), 60, (1, side, side)).astype(np.int16)
            writer.append(image, {"patient": f"p{number // 5}", "slice": number % 5, "label": "abc"[number % 3]})
        writer.finish(splits, split_by="patient", units="hu", domain="ct")
    return ImageStore(path)


def _train(folder: Path, name: str, overrides: list[str]) -> list[list[float]]:
    """Losses and norms of the gradients of a run of 15 steps, which continues if it was interrupted."""
    from ssl_transfer.pretraining.stage import pretrain
    from ssl_transfer.recipe import parse_overrides

    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        recipe.write_text(RECIPE.format(store=_store(folder / "store", 120, 40).path))
    pretrain(recipe, folder / name, **parse_overrides(overrides))
    lines = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    return [[line[key] for line in lines] for key in ("loss", "gradient_norm")]


def _losses(folder: Path) -> dict[str, list[list[float]]]:
    return {name: _train(folder, f"run-{name}", overrides) for name, overrides in METHODS.items()}


def _median_difference(expected: list[float], found: list[float]) -> float:
    pairs = zip(expected, found, strict=True)
    return statistics.median(abs(one - other) / max(abs(one), 1e-2) for one, other in pairs)


def _milliseconds(work, times: int = 10) -> float:
    """Mean time of `work`, called with 0, 1, …, on the GPU."""
    import torch

    for number in range(3):
        work(number)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(times):
        work(number)
    torch.cuda.synchronize()
    return round((time.perf_counter() - started) / times * 1e3, 3)


if __name__ == "__main__":
    main()
