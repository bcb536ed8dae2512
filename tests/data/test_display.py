"""Display: how an image is shown, by its units; the constants of seeing have one home."""

import ast
from pathlib import Path

import numpy as np
import pytest

import ssl_transfer
from ssl_transfer.data.display import LUMINANCE, SOFT_TISSUE_HU, displayed

SHAPE = (1, 8, 8)


def flat(*values):
    """An image of one channel with these values in its first pixels, the last value elsewhere."""
    image = np.full(64, values[-1], np.float32)
    image[: len(values)] = values
    return image.reshape(SHAPE)


def test_hu_are_shown_in_the_soft_tissue_window():
    shown = displayed(flat(-1000, *SOFT_TISSUE_HU, 3000, 40), "hu")
    assert shown.ravel()[:5].tolist() == [0, 0, 255, 255, 128]


@pytest.mark.parametrize("units", ["display", "rgb"])
def test_displayed_and_colour_images_are_shown_as_they_are(units):
    assert displayed(flat(0, 17, 255, 300, -4), units).ravel()[:5].tolist() == [0, 17, 255, 255, 0]


def test_stored_values_are_shown_in_the_range_of_their_own_image():
    image = np.linspace(5000, 9000, 64, dtype=np.float32).reshape(SHAPE)
    assert (displayed(image, "stored").min(), displayed(image, "stored").max()) == (0, 255)


def test_three_channels_are_colours_and_one_is_grey():
    assert displayed(np.zeros((3, 4, 5), np.uint8), "rgb").shape == (4, 5, 3)
    assert displayed(np.zeros((1, 4, 5), np.uint8), "display").shape == (4, 5)


def test_an_image_of_one_value_or_of_nan_can_be_shown():
    assert np.isfinite(displayed(np.full(SHAPE, 7.0), "stored")).all()
    assert displayed(np.full(SHAPE, np.nan), "display").max() == 0


@pytest.mark.parametrize("value", [SOFT_TISSUE_HU, LUMINANCE])
def test_a_display_constant_is_defined_in_one_file(value):
    def holds(path):
        literals = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Tuple, ast.List)))
        return any(_numbers(node) == list(value) for node in literals)

    homes = [path.name for path in Path(ssl_transfer.__file__).parent.rglob("*.py") if holds(path)]
    assert homes == ["display.py"]


def _numbers(node) -> list:
    try:
        return list(ast.literal_eval(node))
    except ValueError:
        return []
