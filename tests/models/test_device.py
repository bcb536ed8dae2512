"""The settings of torch for a device."""

import pytest
import torch

from ssl_transfer.models.device import prepare_device


@pytest.fixture
def settings():
    """The settings, which are put back afterwards."""
    torch.backends.cudnn.benchmark = False
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def test_float32_on_a_gpu_is_ieee_in_products_and_convolutions(settings):
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    prepare_device(torch.device("cuda"), equal_shapes=True)
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark


def test_a_cpu_keeps_the_settings_of_the_process(settings):
    torch.backends.cudnn.allow_tf32 = True
    prepare_device(torch.device("cpu"), equal_shapes=True)
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.benchmark
