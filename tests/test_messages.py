"""Messages come as they were sent, whether their arrays go through shared memory or not."""

import multiprocessing
import os
import threading

import numpy as np
import pytest

from ssl_transfer import messages
from ssl_transfer.messages import mapped, new_memory, receive, send

VALUES = [np.arange(12).reshape(3, 4), np.zeros((0, 2)), "text", {"a": np.float32(2)}, np.arange(300_000)]


@pytest.mark.parametrize("largest", [0, 2**20, 24 * 2**20], ids=["sent", "too large", "shared"])
def test_arrays_arrive_in_memory_of_their_own(monkeypatch, largest):
    memory = new_memory() if largest else -1
    shared = mapped(memory)
    monkeypatch.setattr(messages, "SHARED_BYTES", largest)
    here, there = multiprocessing.Pipe()
    for _ in range(2):  # the second message overwrites the memory
        sender = threading.Thread(target=send, args=(there, VALUES, shared))
        sender.start()
        found = receive(here, shared)
        sender.join()
        if shared is not None:
            shared[:] = b"\1" * len(shared)
        assert all(np.array_equal(a, b) for a, b in zip(found, VALUES, strict=True))
        found[0][0] = 7  # it may be changed
    if memory >= 0:
        os.close(memory)
