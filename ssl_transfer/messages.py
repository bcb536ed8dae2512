"""Messages between a process and its workers, whose arrays go through shared memory."""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing.connection import Connection
from typing import Any

SHARED_BYTES = 24 * 2**20  # of memory in which a worker leaves the arrays of an answer; larger ones are sent


def new_memory() -> int:
    """File descriptor of memory that is shared with a worker; −1 where the system has no such memory."""
    try:
        memory = os.memfd_create("ssl_transfer_answers")
        os.ftruncate(memory, SHARED_BYTES)
    except (AttributeError, OSError):  # not Linux, or none is left
        return -1
    return memory


def mapped(memory: int) -> mmap.mmap | None:
    """The memory of a descriptor; None for −1."""
    return mmap.mmap(memory, SHARED_BYTES) if memory >= 0 else None


def send(connection: Connection, value: Any, shared: mmap.mmap | None = None) -> None:
    """Send a value. Its arrays go through shared memory, if there is any and they fit.

    The memory is free for the next value when this one is received: a worker has one task at a time.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    is_shared = shared is not None and sum(sizes) <= SHARED_BYTES
    if is_shared and shared is not None:
        shared.seek(0)
        for view in views:
            shared.write(view)
    connection.send_bytes(pickle.dumps((content, sizes, is_shared)))
    for view in () if is_shared else views:
        while view:
            view = view[os.write(connection.fileno(), view) :]


def receive(connection: Connection, shared: mmap.mmap | None = None) -> Any:
    """Receive what `send` has sent; its arrays are copied into their memory.

    Raises:
        EOFError, OSError: If the other process has ended.
    """
    import numpy as np

    content, sizes, is_shared = pickle.loads(connection.recv_bytes())
    if is_shared and shared is not None:
        ends = np.cumsum([0, *sizes])
        copies = [np.frombuffer(shared, np.uint8, size, begin).copy() for size, begin in zip(sizes, ends, strict=False)]
        return pickle.loads(content, buffers=copies)
    buffers = [np.empty(size, np.uint8) for size in sizes]  # a bytearray would be filled with zeros first
    for buffer in buffers:
        view = buffer.data
        while view:
            count = os.readv(connection.fileno(), [view])
            if not count:
                raise EOFError
            view = view[count:]
    return pickle.loads(content, buffers=buffers)
