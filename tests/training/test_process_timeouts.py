"""A process that does not answer: the others end with a sentence that says what to type."""

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import spawn

from ssl_transfer.errors import RunError
from ssl_transfer.training.process_timeouts import named_timeouts

MESSAGES = {
    "gloo": "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3600000ms for recv operation",
    "nccl": "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE) ran for 3600029 ms",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_wait_that_was_too_long_is_named_with_the_setting(message, tmp_path):
    expected = r"did not answer for 60 minutes.*train\.longest_wait_minutes=120\."
    with pytest.raises(RunError, match=expected), named_timeouts(tmp_path, 60):
        raise RuntimeError(message)


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match=r"^out of memory$"), named_timeouts(tmp_path, 60):
        raise RuntimeError("out of memory")


def wait(rank, folder):
    limit = timedelta(seconds=2)
    distributed.init_process_group("gloo", f"file://{folder}/meet", limit, world_size=2, rank=rank)
    if rank == 1:
        time.sleep(6)
        return
    with pytest.raises(RunError, match="did not answer"), named_timeouts(folder, limit.total_seconds() / 60):
        distributed.all_reduce(torch.ones(1))


@pytest.mark.long
def test_a_process_that_hangs_is_named_by_the_other(tmp_path):
    spawn(wait, (tmp_path,), nprocs=2)
