"""Views on the pretend GPU: the values of the CPU, in few kernels and bytes, without a wait."""

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.views import NOISE_TABLE, ViewMaker

CASES = {  # preset, side of the stored images, their channels, dtype, units, scale
    "ct": (252, 1, torch.int16, "hu", Scale(-160.0, 240.0)),
    "natural": (256, 3, torch.uint8, "rgb", Scale(0.0, 255.0)),
    "microscopy": (256, 3, torch.uint8, "rgb", Scale(0.0, 255.0)),
    "mr": (256, 1, torch.int16, "stored", Scale(0.0, 200.0)),
    "ultrasound": (256, 1, torch.uint8, "display", Scale(0.0, 255.0)),
    "histology": (256, 3, torch.uint8, "rgb", Scale(0.0, 255.0)),
}
COSTS = {  # waits and launches per view, MB read and written per image
    "ct": (0, 29, 6.5),
    "natural": (0, 37, 17.7),
    "microscopy": (0, 39, 20.1),
    "mr": (0, 34, 9.4),
    "ultrasound": (0, 28, 8.3),
    "histology": (0, 35, 23.7),
}
IMAGES = 2


@pytest.mark.parametrize("name", CASES)
def test_views_of_224_px_cost_this(name, gpu):
    side, channels, dtype, units, scale = CASES[name]
    images = torch.randint(0, 200, (IMAGES, channels, side, side), generator=torch.Generator().manual_seed(0)).to(dtype)
    preset = VIEWS[name](224, channels, units)
    maker, rows = ViewMaker([preset], scale, 0, channels), np.arange(IMAGES)
    (expected,) = maker(images, rows, 0)
    with gpu:
        there = images.to("cuda")
        maker(there, rows, 0)  # builds constants
        with gpu.counting() as counts:
            (found,) = maker(there, rows, 0)
        found = found.cpu()
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    table = 4 * NOISE_TABLE if preset.noise else 0  # is read by the noise, a part by each image
    waits, launches, megabytes = COSTS[name]
    assert (counts.waits.total(), counts.launches) == (waits, launches), counts.waits
    assert (counts.bytes - table) / IMAGES / 1e6 == pytest.approx(megabytes, abs=0.1)


def test_slices_and_windows_are_made_as_on_a_cpu(gpu):
    hu = torch.randint(-1024, 2000, (IMAGES, 3, 48, 48), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    maker = ViewMaker([VIEWS["ct"](32, 9, "hu")], Scale(-160.0, 240.0, ((-1350.0, 150.0), (-500.0, 1300.0))), 0, 9)
    (expected,) = maker(hu, np.arange(IMAGES), 0)
    with gpu:
        there = hu.to("cuda")
        maker(there, np.arange(IMAGES), 0)  # builds constants
        with gpu.counting() as counts:
            (found,) = maker(there, np.arange(IMAGES), 0)
        found = found.cpu()
    assert found.shape == (IMAGES, 9, 32, 32) and torch.allclose(found, expected, rtol=0, atol=2e-5)
    assert (counts.waits.total(), counts.launches) == (0, 30), counts.waits  # one more than of one channel
