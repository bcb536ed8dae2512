"""What a run has cost: images, optimiser steps, time and floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What a training, a pass over images, or several of them have cost.

    Attributes:
        images: Images that went through the network: of each training step, or of features; all views of an image are one.
        steps: Optimiser steps.
        seconds: Wall time.
        gpu_hours: Wall time in hours times the number of GPUs; 0 on a CPU.
        flops: Floating-point operations of matrix products and convolutions, a multiplication and an addition being two: of the
            forward and backward passes of training steps, and of the forward passes of features. None: they were not counted.
    """

    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    gpu_hours: float = 0.0
    flops: int | None = 0

    def __add__(self, other: Cost) -> Cost:
        """Both together; FLOPs are known if both are."""
        return Cost(
            self.images + other.images,
            self.steps + other.steps,
            self.seconds + other.seconds,
            self.gpu_hours + other.gpu_hours,
            None if self.flops is None or other.flops is None else self.flops + other.flops,
        )

    def lasting(self, seconds: float, gpus: int) -> Cost:
        """The same work, in so much time on so many GPUs."""
        return replace(self, seconds=seconds, gpu_hours=gpus * seconds / 3600)

    def to_json(self) -> dict[str, Any]:
        """The fields as records state them."""
        return {**asdict(self), "seconds": round(self.seconds, 2), "gpu_hours": round(self.gpu_hours, 6)}

    @classmethod
    def of_record(cls, content: Mapping[str, Any]) -> Cost:
        """The numbers that a record states; one of an earlier version has no FLOPs."""
        known = {name: content[name] for name in cls.__dataclass_fields__ if type(content.get(name)) in (int, float)}
        return cls(**{"flops": None, **known})


class Meter:
    """Adds up what is spent, since it was opened.

    Attributes:
        spent: The reported costs; their seconds are those of earlier processes.
    """

    def __init__(self) -> None:
        self.spent, self._started = Cost(), time.perf_counter()

    def total(self, gpus: int) -> Cost:
        """The cost until now, on so many GPUs."""
        return self.spent.lasting(self.spent.seconds + time.perf_counter() - self._started, gpus)


_open: ContextVar[tuple[Meter, ...]] = ContextVar("open meters", default=())


@contextmanager
def metered() -> Iterator[Meter]:
    """Within the block, the meter collects what trainings and passes over images report by `spend`."""
    meter = Meter()
    token = _open.set((*_open.get(), meter))
    try:
        yield meter
    finally:
        _open.reset(token)


def is_metered() -> bool:
    """Whether anything collects costs."""
    return bool(_open.get())


def spend(cost: Cost) -> None:
    """Report a cost to all open meters."""
    for meter in _open.get():
        meter.spent += cost
