"""Intensity: units of a store become what a backbone reads."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Intensity, Scale, match_channels
from ssl_transfer.errors import StoreError
from ssl_transfer.run import from_json, to_json


def card(units, **more):
    return SimpleNamespace(units=units, id="made up", **more)


@pytest.mark.parametrize(
    ("units", "low", "high"),
    [("hu", -160, 240), ("display", 0, 255), ("rgb", 0, 255), ("stored", 12.5, 700), ("scaled", 12.5, 700)],
)
def test_the_ends_of_a_store_s_range_are_zero_and_one(units, low, high):
    scale = Scale.of_store(card(units, value_range=[12.5, 700]), (-160, 240))
    unit = scale.unit(torch.tensor([low, (low + high) / 2, high]))
    assert unit.tolist() == pytest.approx([0, 0.5, 1])


def test_unit_intensity_is_not_clipped_so_that_a_window_can_still_move():
    scale = Scale.of_store(card("hu"), (0.0, 100.0))
    assert scale.unit(torch.tensor([-1024, 3000], dtype=torch.int16)).tolist() == pytest.approx([-10.24, 30.0])


def test_a_store_of_one_value_has_a_finite_scale():
    unit = Scale.of_store(card("stored", value_range=[5.0, 5.0]), (0, 1)).unit(torch.tensor([5.0]))
    assert unit.item() == 0


def test_unknown_units_are_refused():
    with pytest.raises(StoreError, match=r"unknown units 'tesla'; known: hu, display, rgb, stored, scaled"):
        Scale.of_store(card("tesla"), (0, 1))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32])
def test_scaling_leaves_the_store_s_values_as_they_were(dtype):
    images = torch.arange(8, dtype=dtype)
    before = images.clone()
    Scale(1.0, 3.0).unit(images)
    assert torch.equal(images, before)


def test_normalising_clips_subtracts_the_mean_and_divides_by_the_standard_deviation():
    intensity = Intensity(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))
    values = torch.tensor([-3.0, 0.0, 1.0, 7.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    found = intensity.normalise(values)[0, :, 0]
    assert torch.allclose(found, torch.tensor([[-2.0, -2, 2, 2], [-2, -2, 3, 3], [-3, -3, 7, 7]]))


def test_an_intensity_is_read_back_from_its_card():
    intensity = Intensity((-1000.0, 1000.0), (0.1,), (0.9,))
    assert from_json(Intensity, json.loads(json.dumps(to_json(intensity)))) == intensity


def test_grey_is_repeated_for_a_backbone_of_three_channels():
    grey = torch.randn(2, 1, 4, 4)
    assert torch.equal(match_channels(grey, 3), grey.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colour_becomes_luminance_for_a_backbone_of_one_channel(dtype):
    colours = np.random.default_rng(0).integers(0, 255, (2, 3, 5, 5)).astype(dtype)
    expected = np.tensordot([0.299, 0.587, 0.114], colours.astype(float), axes=(0, 1))[:, None]
    assert np.allclose(match_channels(torch.from_numpy(colours), 1).numpy(), expected, atol=1e-3)
