"""What the steps of a training cost; floating-point operations are counted in one step, and hold for those that do the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssl_transfer.cost import Cost
from ssl_transfer.models.flops import counted_flops
from ssl_transfer.schedule import Schedule


class StepCost:
    """Counts a rank's operations in the first step with a frozen backbone, and in the first one without; adds up the time.

    The forward and backward passes of all micro-batches of a step count, with those of momentum networks and teachers, but
    no validation, no making of views, and no gradients that a strategy measures before a step.

    Args:
        schedule: Length of the training, and in which steps the backbone is frozen.

    Attributes:
        earlier: Seconds of earlier processes, of which this one continues the training.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self._flops: dict[bool, int] = {}  # of a step, by whether the backbone is frozen
        self._counting: int | None = None  # the step that is being counted
        self.earlier, self._started = 0.0, time.perf_counter()

    @contextmanager
    def counted(self, step: int) -> Iterator[None]:
        """Context of the passes of a micro-batch of a step, counted from 0."""
        frozen = self.schedule.freezes_at(step)
        if frozen in self._flops and step != self._counting:
            yield
            return
        self._counting = step
        with counted_flops() as flops:
            yield
        self._flops[frozen] = self._flops.get(frozen, 0) + flops.count

    def until(self, steps: int, ranks: int, gpus: int) -> Cost:
        """The cost of the first steps of the training, on so many ranks and GPUs."""
        frozen = min(steps, self.schedule.freeze_steps)
        flops = frozen * self._flops.get(True, 0) + (steps - frozen) * self._flops.get(False, 0)
        return Cost(steps * self.schedule.batch_size, steps, flops=ranks * flops).lasting(self._seconds, gpus)

    @property
    def _seconds(self) -> float:
        return self.earlier + time.perf_counter() - self._started

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"flops": self._flops, "seconds": self._seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._flops, self.earlier = dict(state["flops"]), state["seconds"]
