"""Signals that request an end, as a flag that the training loop reads between steps."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as distributed
from accelerate import Accelerator

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
INSISTING_SECONDS = 1.0  # a launcher may pass on the SIGINT that the terminal sent to all of its processes


class TerminationFlag:
    """A context in which SIGTERM and Ctrl-C set a flag and do not end the process. It has no effect outside the main thread.

    A second Ctrl-C, a second or more later, raises `KeyboardInterrupt`.
    """

    def __enter__(self) -> TerminationFlag:
        self.number: int = 0  # of the first signal
        self._at = 0.0
        self._previous: dict[int, Any] = {}
        try:
            for number in NAMES:
                self._previous[number] = signal.signal(number, self._raise)
        except ValueError:  # only the main thread receives signals
            pass
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        """Name of the signal, for messages."""
        return NAMES.get(signal.Signals(self.number), "") if self.number else "a signal to another process"

    @property
    def status(self) -> int:
        """Exit status of the command: 128 and the number of the signal."""
        return 128 + (self.number or signal.SIGTERM)

    def _raise(self, number: int, frame: object) -> None:
        if self.number and number == signal.SIGINT and time.monotonic() - self._at > INSISTING_SECONDS:
            raise KeyboardInterrupt
        if not self.number:
            self.number, self._at = number, time.monotonic()

    def on_any_rank(self, accelerator: Accelerator) -> bool:
        """Whether any process received a signal. All ranks must call it together, and get the same answer."""
        if accelerator.num_processes == 1:
            return bool(self.number)
        flag = torch.tensor(float(bool(self.number)))
        requested: Any = accelerator.init_handler  # of `start_accelerator`
        distributed.all_reduce(flag, group=_hosts(requested.timeout))
        return bool(flag > 0)


@cache
def _hosts(longest_wait: timedelta) -> Any:
    """A group of processes that exchanges CPU tensors; None: the default one does.

    A flag that the GPUs exchange could be read only after all that they were told before, at every step.
    """
    if "gloo" in distributed.get_backend():
        return None
    return distributed.new_group(backend="gloo", timeout=longest_wait)
