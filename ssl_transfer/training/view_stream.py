"""On a GPU, views of the next batch are made on a CUDA stream of their own, while the step of the present one is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssl_transfer.data.views import ViewBatch


class ViewStream:
    """Makes batches of views on a second stream of a GPU.

    The host is ahead of the GPU: when it asks for a batch, the GPU still computes the step before. On the second stream it
    copies the images and makes the views meanwhile, as soon as that step has begun, so that there are never more than two
    batches of views.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._step_began = torch.cuda.current_stream(device).record_event()

    def made(self, make: Callable[[], ViewBatch]) -> ViewBatch:
        """What `make` returns, computed on the second stream; the present stream waits for it, the host does not."""
        present = torch.cuda.current_stream(self.device)
        self._stream.wait_event(self._step_began)
        with torch.cuda.stream(self._stream):
            batch = make()
        present.wait_stream(self._stream)
        for tensor in (*batch.views, batch.labels):
            if tensor is not None:
                tensor.record_stream(present)  # else its memory could be used for new views before the step has read it
        self._step_began = present.record_event()
        return batch
