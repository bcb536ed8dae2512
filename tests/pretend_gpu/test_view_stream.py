"""Views of the next batch are made on a stream of their own, while the present step is computed."""

import torch

from ssl_transfer.data.transfer import constant
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.training.view_stream import ViewStream


def test_views_wait_for_the_beginning_of_the_step_before_and_not_for_its_end(gpu):
    with gpu:
        present, known, steps = torch.cuda.current_stream(), [], []
        stream = ViewStream(torch.device("cuda"))

        def make():
            here = torch.cuda.current_stream()
            assert here is not present
            known.append([here.knows(step.made) for step in steps])
            view = torch.ones(2, device="cuda")
            return ViewBatch([view, view + 1], torch.arange(2), None if not steps else view.long())

        for _ in range(3):
            batch = stream.made(make)
            tensors = [*batch.views, *([] if batch.labels is None else [batch.labels])]
            assert all(tensor.streams == [present] for tensor in tensors)  # their memory is kept for the step
            steps.append(batch.views[0] + batch.views[1])  # waits for the views
    assert known == [[], [False], [True, False]]


def test_a_constant_that_was_made_on_one_stream_is_read_by_others(gpu):
    with gpu:
        with torch.cuda.stream(torch.cuda.Stream()):
            made = constant((0.123, 4.56), torch.device("cuda"), channels=True)
        assert torch.equal(
            (torch.zeros(1, 2, 1, 1, device="cuda") + made).cpu(), torch.tensor([0.123, 4.56]).view(1, 2, 1, 1)
        )
