"""Images per second of pretraining, end to end, against its limit and against lightly, in one run.

    python benchmarks/pretrain_throughput.py                  # CPU: ResNet-18, batch 64, 64 and 128 px; about half an hour
    python benchmarks/pretrain_throughput.py --device cuda    # GPU: ResNet-50, 224 px, batch as large as fits
    python benchmarks/pretrain_throughput.py --with train.compile=true   # also measures ours with an override

Measured in interleaved rounds, so that a slow minute of the machine affects all equally; ours and the bare step, which are
close, are measured twice in each round, at its beginning and end:

- ours: `pretrain` itself on a one-channel int16 store, online probes off, images per second from `log.jsonl`;
- bare step: forward, backward and optimiser of the same method on views in memory: the limit;
- lightly: its `SimCLRTransform` on PIL images in a DataLoader (with the fastest number of workers), ResNet and SimCLR
  head from its documentation's example, in float32, and in bf16 with channels_last, to separate the effect of precision. It runs
  in its own process, because our memory settings (`ssl_transfer/models/memory.py`) would speed it up, too.

The last line is one JSON object of ratios, medians over rounds: `of_bare_step_64`, `of_lightly_64`, `of_lightly_bf16_64`, …
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssl_transfer.processes import end_with_parent, worker_processes

WARMUP_STEPS = 8  # of each round; more than the loaders read ahead
RECIPE = """
data:      {{store: {store}, views: ct, size: {size}}}
backbone:  {{name: {architecture}, in_channels: 1}}
method:    {{name: simclr, temperature: 0.5}}
optimizer: {{name: sgd, lr: 0.06}}
train:     {{epochs: 1, batch_size: {batch}, precision: auto, log_every_steps: {steps}, checkpoint_every_steps: 1000000}}
monitor:   {{every_epochs: 1000000, images: 10}}
tracker:   none
"""


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", help="pixels; default 64 128, on a GPU 224")
    parser.add_argument("--architecture", help="default resnet18, on a GPU resnet50")
    parser.add_argument("--batch-size", type=int, help="default 64, on a GPU as large as fits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16, help="timed steps per round")
    parser.add_argument("--with", dest="override", help="override of the recipe; ours is also measured with it")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    on_gpu = options.device == "cuda"
    options.architecture = options.architecture or ("resnet50" if on_gpu else "resnet18")
    ratios: dict[str, float | bool | int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes or ([224] if on_gpu else [64, 128]):
            with ExitStack() as stack:
                ratios |= measure(Path(folder), size, options, on_gpu, stack)
    print(json.dumps(ratios))


def measure(
    folder: Path, size: int, options: argparse.Namespace, on_gpu: bool, stack: ExitStack
) -> dict[str, float | bool | int]:
    """Measure all contestants at one size, round by round."""
    from ssl_transfer.training.machine import native_precision

    batch = options.batch_size or (largest_batch(options.architecture, size) if on_gpu else 64)
    steps = WARMUP_STEPS + options.steps
    store = make_store(folder / f"store-{size}", size, batch * steps)
    recipe = folder / f"recipe-{size}.yaml"
    recipe.write_text(
        RECIPE.format(store=store, size=size, architecture=options.architecture, batch=batch, steps=WARMUP_STEPS)
    )
    run = folder / "run"
    contestants: dict[str, Callable[[], float]] = {
        "ours": lambda: ours(recipe, run),
        "bare step": bare_step(recipe, steps),
    }
    if options.override:
        contestants["with override"] = lambda: ours(recipe, run, options.override)
    if not on_gpu:
        for name, bf16 in (("lightly", False), ("lightly bf16", True)):
            contestants[name] = in_own_process(stack, lightly, store, options.architecture, size, batch, steps, bf16)
    order = [*contestants, *reversed([name for name in contestants if not name.startswith("lightly")])]
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for name in order:
            seconds[name].append(1 / contestants[name]())
        for name, taken in seconds.items():
            if number:  # the first round warms up
                speeds[name].append(1 / statistics.mean(taken))
    precision = native_precision()
    print(
        f"\n{options.architecture}, {size} px, batch {batch}, {precision}, {torch.get_num_threads()} threads, images/s"
    )
    for name, rates in speeds.items():
        print(
            f"  {name:14s} {statistics.median(rates):8.0f}   ({min(rates):.0f} to {max(rates):.0f} in {len(rates)} rounds)"
        )

    def ratio(name: str, peer: str) -> float:
        return round(statistics.median(a / b for a, b in zip(speeds[name], speeds[peer], strict=True)), 3)

    ratios: dict[str, float | bool | int] = {"native_bf16": precision == "bf16", f"batch_{size}": batch}
    ratios[f"of_bare_step_{size}"] = ratio("ours", "bare step")
    if not on_gpu:
        ratios[f"of_lightly_{size}"] = ratio("ours", "lightly")
        ratios[f"of_lightly_bf16_{size}"] = ratio("ours", "lightly bf16")
    if options.override:
        ratios[f"with_over_without_{size}"] = ratio("with override", "ours")
    return ratios


def ours(recipe: Path, run: Path, *overrides: str) -> float:
    """Images per second of a complete `pretrain`, from its log after the warm-up."""
    from ssl_transfer.pretraining.stage import pretrain
    from ssl_transfer.recipe import parse_overrides

    shutil.rmtree(run, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        pretrain(recipe, run, **parse_overrides(overrides))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][1:]
    steps = np.diff([WARMUP_STEPS, *(line["step"] for line in lines)])
    return float(steps.sum() / np.sum(steps / [line["images_per_second"] for line in lines]))


def bare_step(recipe: Path, steps: int) -> Callable[[], float]:
    """The training step alone: the same method, precision and memory format on views in memory."""
    from ssl_transfer.models.memory import keep_freed_memory
    from ssl_transfer.pretraining.setup import PretrainSetup, resolve
    from ssl_transfer.recipe import PretrainRecipe, load_recipe
    from ssl_transfer.training.machine import Machine
    from ssl_transfer.training.optim import OPTIMIZERS

    setup = PretrainSetup.build(resolve(load_recipe(PretrainRecipe, recipe), str(recipe)), str(recipe))
    train, training_set = setup.recipe.train, setup.training_set
    machine = Machine.chosen(train.precision, train.memory_format, setup.recipe.data.size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = setup.objective.to(device, memory_format=getattr(torch, machine.memory_format)).train()
    keep_freed_memory(device)
    component, batch = setup.recipe.optimizer, train.batch_size
    optimizer = OPTIMIZERS[component.name](objective.groups(), batch, **component.options)
    rows = training_set.rows(0, np.arange(batch))
    resident = [batch._replace(images=batch.images.to(device)) for batch in training_set.read(rows)]
    views = training_set.views(resident, rows, 0)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=machine.precision == "bf16"):
            loss = objective(views, 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return lambda: timed(step, batch, steps)


def in_own_process(stack: ExitStack, contestant: Callable[..., Callable[[], float]], *arguments) -> Callable[[], float]:
    """A contestant that is set up and measured in a new process, which ends with the stack."""
    process = stack.enter_context(worker_processes(1, _set_up, (contestant, *arguments)))
    return lambda: process.submit(_measured).result()


def _set_up(contestant: Callable[..., Callable[[], float]], *arguments) -> None:
    global _speed
    _speed = contestant(*arguments)


def _measured() -> float:
    return _speed()


def lightly(store: Path, architecture: str, size: int, batch: int, steps: int, bf16: bool) -> Callable[[], float]:
    """lightly's SimCLR example on PIL images, with the number of workers that was fastest in the first round."""
    import timm
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader, Dataset

    class Pictures(Dataset):
        def __len__(self) -> int:
            return batch * steps

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            return transform(images[index % len(images)])

    images, transform = pil_images(store, batch * 8), SimCLRTransform(input_size=size)
    backbone = timm.create_model(architecture, num_classes=0)
    network = nn.Sequential(backbone, SimCLRProjectionHead(backbone.num_features, 2048, 128)).train()
    if bf16:
        network.to(memory_format=torch.channels_last)
    criterion, optimizer = NTXentLoss(), torch.optim.SGD(network.parameters(), lr=0.06)
    best: list[int] = []

    def train(batches: Iterator) -> None:
        views = [view.contiguous(memory_format=torch.channels_last) if bf16 else view for view in next(batches)]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            projections = [network(view) for view in views]
        loss = criterion(*(projection.float() for projection in projections))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def with_workers(workers: int) -> float:
        loader = DataLoader(
            Pictures(),
            batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            prefetch_factor=2,
            multiprocessing_context="fork",
            worker_init_fn=lambda number: end_with_parent(),
        )
        batches = iter(loader)
        return timed(lambda: train(batches), batch, steps)

    def speed() -> float:
        if not best:
            candidates = range(1, (os.cpu_count() or 1) + 1)
            best.append(max(candidates, key=with_workers))
        return with_workers(best[0])

    return speed


def timed(step: Callable[[], None], batch: int, steps: int) -> float:
    """Images per second after the warm-up."""
    for number in range(steps):
        if number == WARMUP_STEPS:
            synchronise()
            started = time.perf_counter()
        step()
    synchronise()
    return batch * (steps - WARMUP_STEPS) / (time.perf_counter() - started)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_store(path: Path, size: int, images: int) -> Path:
    """A one-channel int16 store of smooth noise in HU, a little larger than the views; its content does not matter here."""
    from ssl_transfer.data.store import StoreWriter

    side = size + size // 8
    coarse = torch.randn((64, 1, side // 8, side // 8), generator=torch.Generator().manual_seed(0)) * 300
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bilinear").numpy().astype(np.int16)
    with StoreWriter(path, (1, side, side), np.int16) as writer:
        for index in range(images):
            writer.append(pixels[index % len(pixels)] + index, {"patient": None, "slice": index})
        writer.finish(np.full(images, "train"), units="hu", domain="ct")
    return path


def pil_images(store: Path, count: int) -> list:
    """The store's first images in the format for lightly: 8 bit, RGB."""
    from PIL import Image

    from ssl_transfer.data.store import ImageStore

    images = ImageStore(store).read(np.arange(count))[:, 0]
    grey = ((np.clip(images, -160, 240) + 160) * (255 / 400)).astype(np.uint8)
    return [Image.fromarray(image).convert("RGB") for image in grey]


def largest_batch(architecture: str, size: int) -> int:
    """The largest power of two whose training step fits the GPU, two views each."""
    import timm

    batch = 64
    while True:
        try:
            network = timm.create_model(architecture, in_chans=1).cuda().to(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                network(torch.zeros(4 * batch, 1, size, size, device="cuda")).sum().backward()
        except torch.cuda.OutOfMemoryError:
            return batch
        finally:
            network = None
            torch.cuda.empty_cache()
        batch *= 2


if __name__ == "__main__":
    main()
