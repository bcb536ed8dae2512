"""Machine settings of a training: processes, precision, memory format and threads, chosen once and recorded."""

from __future__ import annotations

import importlib.util
import os
import socket
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch.distributed.fsdp import MixedPrecisionPolicy

from ssl_transfer.environment import FLOAT32
from ssl_transfer.errors import RecipeError, RunError

# On a CPU, torch 2.15 computes wrong bf16 gradients of 3 x 3 convolutions with stride 2 on 1 x 1 maps; smaller views reach these.
SMALLEST_BF16_VIEW = 32


@dataclass(frozen=True)
class Machine:
    """Settings that change the last digits of results. They are chosen once, recorded, and kept when a run is resumed.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`.
        memory_format: `channels_last` or `contiguous`.
        threads: Number of CPU threads of torch.
        deterministic: Whether the same kernels are taken in every run (see `numerics`).
        float32: What float32 is: `ieee`, never TF32.
    """

    precision: str
    memory_format: str
    threads: int
    deterministic: bool = False
    float32: str = FLOAT32

    @classmethod
    def chosen(cls, precision: str, memory_format: str, smallest_view: int, deterministic: bool = False) -> Machine:
        """The requested settings, with the fastest ones of this machine in place of `auto`.

        Args:
            precision: `fp32`, `bf16`, `fp16` or `auto`.
            memory_format: `channels_last`, `contiguous` or `auto`.
            smallest_view: Height and width of the smallest views in pixels.
            deterministic: See `numerics`.

        Raises:
            RecipeError: If weights are to be sharded in channels_last.
        """
        if precision == "auto":
            precision = native_precision()
            if precision == "bf16" and not torch.cuda.is_available() and smallest_view < SMALLEST_BF16_VIEW:
                precision = "fp32"
        if memory_format == "auto":
            memory_format = "contiguous" if _is_sharded() else "channels_last"  # FSDP 2 refuses channels_last weights
        if memory_format == "channels_last" and _is_sharded():
            raise RecipeError("train.memory_format: FSDP cannot shard channels_last weights. Set auto or contiguous.")
        return cls(precision, memory_format, torch.get_num_threads(), deterministic)

    def to_card(self) -> dict[str, Any]:
        """The settings as run, checkpoint and card record them."""
        return asdict(self)


def native_precision() -> str:
    """bf16 if the GPU or the CPU computes it natively, otherwise fp16 on a GPU and fp32 on a CPU."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "fp32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def start_accelerator(
    precision: str,
    batch_size: int,
    accumulate: int = 1,
    tracker: str = "none",
    folder: Path | None = None,
    some_unused: bool = False,
    longest_wait_minutes: float = 60,
) -> Accelerator:
    """The Accelerator of this launch.

    Args:
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: Global batch size.
        accumulate: Number of consecutive parts that the batch is computed in.
        tracker: `none`, or a tracker of Accelerate.
        folder: Folder that the tracker writes into.
        some_unused: Whether parameters have no gradient in some steps. Processes then agree on these in every step; without it,
            they would wait for their gradients.
        longest_wait_minutes: How long a process waits for the others, which may probe a backbone or score cases alone.

    Raises:
        RunError: If Accelerate counts fewer processes than the launcher started.
        RecipeError: If the tracker is missing, or the batch cannot be split evenly over processes.
    """
    if tracker != "none" and not importlib.util.find_spec(tracker):  # Accelerate would ignore it silently
        raise RecipeError(f"tracker: {tracker} is not installed here: pip install {tracker}, or tracker=none.")
    AcceleratorState._reset_state(reset_partial_state=False)  # several runs in one process may differ in precision
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
        fsdp_plugin=_sharding(),
        kwargs_handlers=[  # buffers are equal on every rank
            DistributedDataParallelKwargs(
                broadcast_buffers=False, find_unused_parameters=some_unused, gradient_as_bucket_view=True
            ),
            InitProcessGroupKwargs(timeout=timedelta(minutes=longest_wait_minutes)),
        ],
    )
    launched, counted = int(os.environ.get("WORLD_SIZE", "1")), accelerator.num_processes
    if counted != launched:
        raise RunError(
            f"the launcher started {launched} processes, but Accelerate counts {counted}: each would train alone. On a CPU: "
            "ACCELERATE_USE_CPU=true accelerate launch --config_file launch/accelerate/cpu2.yaml …"
        )
    micro_batch = batch_size // accumulate
    if micro_batch < counted:
        raise RecipeError(
            f"train.batch_size: {micro_batch} images at a time are fewer than the {counted} processes. Start fewer, or "
            "set a larger train.batch_size (it is global)."
        )
    if micro_batch % counted:
        raise RecipeError(
            f"train.batch_size: {micro_batch} images cannot be shared evenly by {counted} processes; gathered losses "
            "need equal parts. Choose a multiple."
        )
    return accelerator


def start_trackers(accelerator: Accelerator, tracker: str) -> None:
    """Start the trackers of an Accelerator, with a file of TensorBoard that is not named after this machine."""
    host_name = socket.gethostname
    socket.gethostname = lambda: "host"  # it would become a part of the file's name, and be shared with the run
    try:  # TensorBoard's project name becomes its folder in the run
        accelerator.init_trackers("tensorboard" if tracker == "tensorboard" else "ssl_transfer")
    finally:
        socket.gethostname = host_name


def _is_sharded() -> bool:
    """Whether the launch requests FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"


def _sharding() -> FullyShardedDataParallelPlugin | None:
    """FSDP settings: weights in full precision, so that autocast applies to the same operations as on one GPU; None without it.

    Raises:
        RunError: If the launch requests version 1 of FSDP.
    """
    if not _is_sharded():
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RunError("the launch requests FSDP version 1. Set fsdp_version: 2, as launch/accelerate/fsdp8.yaml does.")
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())
