"""The pretend GPU itself: what it computes, refuses and counts."""

import numpy as np
import pytest
import torch
from support.pretend_gpu import MixedDevices, Race
from torch import nn


def test_a_network_trains_as_on_the_cpu(gpu):
    def trained(device):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        images = torch.randn(5, 1, 8, 8).to(device)
        optimizer = torch.optim.AdamW(network.to(device).parameters(), lr=0.1)
        for _ in range(3):
            loss = network(images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.device.type == device and next(network.parameters()).device.type == device
        return [parameter.detach().cpu() for parameter in network.parameters()]

    expected = trained("cpu")
    with gpu:
        found = trained("cuda")
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here,
        lambda here, there: here[there.long()],
        lambda here, there: torch.cat([here, there]),
        lambda here, there: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda here, there: nn.functional.cross_entropy(there, here.argmax(1)),
        lambda here, there: here.add_(there),
    ],
)
def test_operands_on_two_devices_are_refused(gpu, mixed):
    with gpu, pytest.raises(MixedDevices):
        mixed(torch.ones(2, 2), torch.ones(2, 2, device="cuda"))


def test_numbers_and_copies_may_cross_and_arrays_may_not(gpu):
    with gpu:
        there = torch.ones(3, device="cuda") * torch.tensor(2.0)
        here = torch.zeros(3)
        here.copy_(there)
        assert here.tolist() == [2, 2, 2] and there.cpu().numpy().tolist() == [2, 2, 2]
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\)"):
            np.asarray(there)


def test_waits_are_counted_with_their_cause(gpu):
    with gpu, gpu.counting() as counts:
        there = torch.arange(4, device="cuda")
        there[there > 1]
        there.sum().item()
        torch.ones(2).to("cuda")
        torch.ones(2).to("cuda", non_blocking=True)
        there.new_tensor([1, 2])
    causes = sorted(place.partition(":")[0] for place in counts.waits.elements())
    assert causes == ["_local_scalar_dense", "boolean mask", "copy to the GPU", "copy to the GPU"]


def test_launches_and_bytes_are_those_of_kernels(gpu):
    with gpu:
        first, second = torch.ones(1000, device="cuda"), torch.ones(1000, device="cuda")
        with gpu.counting() as counts:
            first + second  # reads two, writes one
            first.view(10, 100).t()  # no kernel
            first.mul_(2)  # reads and writes one
    assert (counts.launches, counts.bytes) == (2, 4000 * (3 + 2))


def test_a_tensor_of_another_stream_is_refused_until_it_was_waited_for(gpu):
    with gpu:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            there = torch.ones(3, device="cuda")
        with pytest.raises(Race, match="another stream"):
            there + 1
        torch.cuda.current_stream().wait_stream(stream)
        there.add_(1)
        with torch.cuda.stream(stream), pytest.raises(Race):
            there.sum()
        there.sum().item()  # the host waits
        with torch.cuda.stream(stream):
            assert (there + there).cpu().tolist() == [4, 4, 4]


@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_autocast_casts_products_and_keeps_losses_and_gradients(gpu, lower):
    with gpu:
        layer, rows = nn.Linear(3, 2).to("cuda"), torch.randn(4, 3, device="cuda")
        with torch.autocast("cuda", lower):
            logits = layer(rows)
            loss = nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.int64, device="cuda"))
            with torch.autocast("cuda", enabled=False):
                assert layer(rows).dtype == torch.float32
        loss.backward()
        assert logits.dtype == lower and loss.dtype == layer.weight.grad.dtype == layer(rows).dtype == torch.float32
