"""SIGTERM as a flag that the training loop reads between steps."""

from __future__ import annotations

import signal
from typing import Any

import torch
from accelerate import Accelerator


class TerminationFlag:
    """A context in which SIGTERM sets a flag and does not end the process. It has no effect outside the main thread."""

    def __enter__(self) -> TerminationFlag:
        self.raised = False
        try:
            self._previous = signal.signal(signal.SIGTERM, self._raise)
        except ValueError:  # only the main thread receives signals
            self._previous = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _raise(self, *arguments: object) -> None:
        self.raised = True

    def on_any_rank(self, accelerator: Accelerator) -> bool:
        """Whether any process received the signal. All ranks must call it together, and get the same answer."""
        if accelerator.num_processes == 1:
            return self.raised
        flag = torch.tensor(float(self.raised), device=accelerator.device)
        total: Any = accelerator.reduce(flag, "sum")
        return bool(total > 0)
