"""Functions that workers import: what a decoder does with files of several kinds."""

import os
import sys
import time

import numpy as np

from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.errors import SourceError


def act(item):
    """What a decoder does with an item."""
    if item == "abort":
        os.abort()
    if item == "hang":
        time.sleep(1000)
    if item == "spin":
        while True:
            pass
    if item == "bomb":
        return np.ones(2**29).sum()  # 4 GiB
    if item == "error":
        raise KeyError("odd layout")
    if item == "refused":
        raise SourceError("the whole source is wrong")
    return f"read {item}"


def fail(item, reason):
    return f"{item}: {reason}"


def native(item):
    return True


def pid(item):
    return os.getpid()


def slow_here(item):
    """The process that reads; that of the test takes its time, so that a worker starts meanwhile."""
    time.sleep(0.03 if "pytest" in sys.modules else 0)
    return os.getpid()


def same(item):
    return item


class HangingReader(ImagesReader):
    """Its items are for a native decoder, which hangs."""

    def scan(self):
        scan = super().scan()
        for item in scan.items:
            item.native = True
        return scan

    def read(self, item):
        time.sleep(1000)
        yield from super().read(item)
