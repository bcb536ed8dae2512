"""Two processes of one test that meet over gloo."""

import os
from datetime import timedelta

import torch
import torch.distributed as distributed


def join(rank, folder, **environment):
    """Become one of two ranks, on one thread; they meet at a file in `folder`."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",  # asked for by Accelerate, though the ranks have met already
        **environment,
    }
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
