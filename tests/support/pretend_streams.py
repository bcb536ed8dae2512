"""Streams of the pretend GPU: which of its operations may run at the same time, and a refusal of those that must not.

Every stream counts its operations, and knows how far the other streams were when it last waited for them. An operation may
read a tensor only if its stream knows of the operation that made it: a real GPU would read what is not yet written.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager


class Event:
    """A point in a stream."""

    def __init__(self, *_, **__):
        self.known: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        self.known = dict((stream or current()).known)


class Stream:
    """A queue of operations."""

    def __init__(self, *_, **__):
        self.known: dict[Stream, int] = {self: 0}

    def record_event(self) -> Event:
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.known = {each: max(event.known.get(each, 0), self.known.get(each, 0)) for each in event.known | self.known}

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def knows(self, made: tuple[Stream, int]) -> bool:
        """Whether an operation is over before those that follow in this stream."""
        stream, number = made
        return max(self.known.get(stream, 0), _known_to_host.get(stream, 0)) >= number

    def next(self) -> tuple[Stream, int]:
        """The next operation of this stream."""
        self.known[self] += 1
        return self, self.known[self]


_default = Stream()
_known_to_host: dict[Stream, int] = {}  # operations that the host has waited for
_present = threading.local()


def host_waits() -> None:
    """The host waits for the present stream."""
    _known_to_host.update(current().known)


def current(*_) -> Stream:
    """The present stream of this thread."""
    return getattr(_present, "stream", _default)


@contextmanager
def on(stream: Stream):
    """Stands for `torch.cuda.stream`."""
    before, _present.stream = current(), stream
    try:
        yield
    finally:
        _present.stream = before
