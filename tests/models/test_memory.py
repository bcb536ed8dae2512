"""A process that computes on the CPU keeps what its tensors give back."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from ssl_transfer.models.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
for number in range(48):
    if number == 32:  # malloc has settled
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    """That sixteen tensors of 64 MiB cost, one after the other."""
    return int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, check=True, text=True).stdout)


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_a_new_tensor_reuses_the_memory_of_a_freed_one():
    assert page_faults("kept") < page_faults("given back") / 20
