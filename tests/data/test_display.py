"""Display: how an image is shown, by its units; the constants of seeing have one home."""

import ast
from pathlib import Path

import numpy as np
import pytest

import ssl_transfer
from ssl_transfer.data.display import LUMINANCE, SOFT_TISSUE_HU, displayed, text_font

SHAPE = (1, 8, 8)
RANGE = (500.0, 900.0)


def flat(*values):
    """An image of one channel with these values in its first pixels, the last value elsewhere."""
    image = np.full(64, values[-1], np.float32)
    image[: len(values)] = values
    return image.reshape(SHAPE)


def test_hu_are_shown_in_the_soft_tissue_window():
    shown = displayed(flat(-1000, *SOFT_TISSUE_HU, 3000, 40), "hu", RANGE)
    assert shown.ravel()[:5].tolist() == [0, 0, 255, 255, 128]


@pytest.mark.parametrize("units", ["display", "rgb"])
def test_displayed_and_colour_images_are_shown_as_they_are(units):
    assert displayed(flat(0, 17, 255, 300, -4), units, RANGE).ravel()[:5].tolist() == [0, 17, 255, 255, 0]


@pytest.mark.parametrize("units", ["stored", "scaled"])
def test_stored_and_scaled_values_are_shown_in_the_range_of_their_store(units):
    shown = displayed(flat(400, 500, 700, 900, 2000), units, RANGE)
    assert shown.ravel()[:5].tolist() == [0, 0, 128, 255, 255]  # as a backbone reads them


def test_three_channels_are_colours_and_one_is_grey():
    assert displayed(np.zeros((3, 4, 5), np.uint8), "rgb", RANGE).shape == (4, 5, 3)
    assert displayed(np.zeros((1, 4, 5), np.uint8), "display", RANGE).shape == (4, 5)


def test_an_image_of_one_value_or_of_nan_can_be_shown():
    assert np.isfinite(displayed(np.full(SHAPE, 7.0), "stored", (7.0, 7.0))).all()
    assert displayed(np.full(SHAPE, np.nan), "display", RANGE).max() == 0


@pytest.mark.parametrize("value", [SOFT_TISSUE_HU, LUMINANCE])
def test_a_display_constant_is_defined_in_one_file(value):
    def holds(path):
        literals = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Tuple, ast.List)))
        return any(_numbers(node) == list(value) for node in literals)

    homes = [path.name for path in Path(ssl_transfer.__file__).parent.rglob("*.py") if holds(path)]
    assert len(homes) == 1, homes


def _numbers(node) -> list:
    try:
        return list(ast.literal_eval(node))
    except ValueError:
        return []


def test_hu_are_shown_in_the_window_that_is_asked_for():
    assert displayed(flat(-5, 0, 40, 80, 500), "hu", RANGE, (0.0, 80.0)).ravel()[:5].tolist() == [0, 0, 128, 255, 255]


def test_labels_on_pictures_may_have_letters_of_other_languages():
    font = text_font(14)
    unknown = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != unknown for letter in "öÄßéñłΩд²−")
