"""Speed-up on a CPU if a process keeps freed memory (`ssl_transfer/models/memory.py`).

    python benchmarks/kept_memory.py     # some minutes

Two processes, one that keeps freed memory and one that returns it to the system (malloc's default), work in turns: training
steps of a ResNet-18 at 64 and 128 px (two views of 64 images, bf16, channels_last), and features of 64 images of 224 px in
float32 and bf16. The last line is one JSON object: seconds with kept memory over seconds without (medians over rounds), and
the same ratio of peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time

from ssl_transfer.processes import worker_processes

JOBS = {
    "step_64": (64, True, True),
    "step_128": (128, True, True),
    "features_224_fp32": (224, False, False),
    "features_224_bf16": (224, False, True),
}
IMAGES = 64
WARMUP = 12


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ratios = {}
    for job, arguments in JOBS.items():
        seconds, peaks = {True: [], False: []}, {}
        with (
            worker_processes(1, _start, (True, *arguments)) as keeping,
            worker_processes(1, _start, (False, *arguments)) as giving_back,
        ):
            processes = {True: keeping, False: giving_back}
            for process in processes.values():
                process.submit(_work, WARMUP).result()  # warm-up, also of malloc
            for _ in range(rounds):
                for kept, process in processes.items():
                    took, peaks[kept] = process.submit(_work, 4).result()
                    seconds[kept].append(took)
        with_it, without = (statistics.median(seconds[kept]) for kept in (True, False))
        print(f"{job:18s} kept {1000 * with_it:6.0f} ms   returned {1000 * without:6.0f} ms", flush=True)
        ratios |= {job: round(with_it / without, 3), f"{job}_peak": round(peaks[True] / peaks[False], 3)}
    print(json.dumps(ratios))


def _start(kept: bool, size: int, train: bool, bf16: bool) -> None:
    """Prepare `_once`, one training step or forward pass, in a new process."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import timm
    import torch

    from ssl_transfer.models.memory import keep_freed_memory

    if kept:
        keep_freed_memory(torch.device("cpu"))
    network = (
        timm.create_model("resnet18", num_classes=128, in_chans=1).to(memory_format=torch.channels_last).train(train)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(IMAGES, 1, size, size)

    def once() -> None:
        with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            views = [network(images) for _ in range(1 + train)]
        if train:
            sum(view.square().mean() for view in views).backward()
            optimizer.step()
            optimizer.zero_grad()

    global _once
    _once = once


def _work(repeats: int) -> tuple[float, int]:
    """Median seconds, and the peak memory of this process."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        _once()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
