"""Fingerprints: an image is recognised after what happens to images between two archives, and no other one is."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ssl_transfer.measures.fingerprint import FINGERPRINT_BYTES, TRIMMED, fingerprint, query, without_marks
from ssl_transfer.measures.near_duplicates import near_duplicates

SIDE, COUNT = 96, 24


def body(seed):
    """A made-up CT slice in HU, int16 (SIDE, SIDE): air around an ellipse of tissue with organs, bones and noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    inside = (x / draw.uniform(0.65, 0.85)) ** 2 + (y / draw.uniform(0.5, 0.7)) ** 2 < 1
    tissue = 40 + 60 * ndimage.gaussian_filter(draw.normal(size=x.shape), 3) / 0.1
    for _ in range(6):
        cy, cx, r = draw.uniform(-0.4, 0.4), draw.uniform(-0.5, 0.5), draw.uniform(0.05, 0.25)
        tissue[(x - cx) ** 2 + (y - cy) ** 2 < r * r] += draw.choice([-700, -80, 60, 600])
    return np.where(inside, tissue + draw.normal(0, 15, x.shape), -1000 + draw.normal(0, 8, x.shape)).astype(np.int16)


def windowed(image, low=-160, high=240):
    return np.clip((image.astype(float) - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


CHANGES = {
    "none": lambda image: image,
    "smaller": lambda image: resized(image.astype(np.float32), 56),
    "larger": lambda image: resized(image.astype(np.float32), 200),
    "PNG in the soft-tissue window": windowed,
    "PNG in the lung window": lambda image: windowed(image, -1350, 150),
    "PNG in the bone window": lambda image: windowed(image, -500, 1300),
    "PNG of the whole range": lambda image: windowed(image, -1000, 1500),
    "stored values": lambda image: (image.astype(np.int32) + 1024).clip(0).astype(np.uint16),
    "gamma": lambda image: (255 * (windowed(image) / 255) ** 0.7).astype(np.uint8),
    "JPEG": lambda image: jpeg(windowed(image)),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "rotated by 90 degrees": lambda image: np.rot90(image),
    "cropped by 4 %": lambda image: windowed(image)[4:-4, 4:-4],
    "cropped to the body": lambda image: windowed(image)[np.ix_((image > -300).any(1), (image > -300).any(0))],
    "padded": lambda image: np.pad(windowed(image), 20),
    "padded in white": lambda image: np.pad(windowed(image), 13, constant_values=255),
    "padded in HU": lambda image: np.pad(image, 20, constant_values=-2000),
    "padded on two sides": lambda image: np.pad(windowed(image), ((0, 17), (31, 0))),
    "padded, JPEG": lambda image: jpeg(np.pad(windowed(image), 20)),
    "letterboxed": lambda image: np.pad(windowed(image), ((24, 24), (0, 0))),
    "in a grey frame in a black one": lambda image: np.pad(np.pad(windowed(image), 3, constant_values=90), 9),
    "noise": lambda image: image + np.random.default_rng(0).normal(0, 20, image.shape),
    "smaller PNG, mirrored": lambda image: jpeg(resized(windowed(image), 64)[:, ::-1]),
}


def recognised(images, known):
    """Which images (H, W) are near-duplicates of known ones."""
    return near_duplicates(queries(images), known, [np.ascontiguousarray(image)[None] for image in images].__getitem__)


def queries(images):
    return np.stack([query(np.ascontiguousarray(image)[None]) for image in images])


@pytest.fixture(scope="module")
def known():
    fingerprints = np.stack([fingerprint(body(seed)[None]) for seed in range(COUNT)])
    return lambda: [fingerprints]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_recognised(known, change):
    found = recognised([CHANGES[change](body(seed)) for seed in range(COUNT)], known)
    lost = {
        "smaller PNG, mirrored": 0.4,
        "JPEG": 0.1,
        "padded, JPEG": 0.1,
    }  # JPEG takes the noise away that tells bodies apart
    assert found.mean() >= 1 - lost.get(change, 0)


def test_other_images_are_not(known):
    assert not recognised([body(seed) for seed in range(1000, 1200)], known).any()
    assert not recognised([windowed(body(seed)) for seed in range(1000, 1200)], known).any()


def on_a_table(seed):
    """A body in a large field, on a table that all patients lie on."""
    image = np.full((240, 240), -1000, np.int16)
    image[60 : 60 + SIDE, 70 : 70 + SIDE] = body(seed)
    image[165:171, 30:210] = 60
    return image


def test_a_common_table_and_outline_do_not_make_two_patients_one():
    known = np.stack([fingerprint(on_a_table(seed)[None]) for seed in range(200)])
    assert not recognised([on_a_table(seed) for seed in range(1000, 1100)], lambda: [known]).any()
    copies = [jpeg(windowed(on_a_table(seed))) for seed in range(20)]
    assert recognised(copies, lambda: [known]).sum() >= 16


@pytest.mark.parametrize(
    "image", [body(0), windowed(body(1)), np.pad(windowed(body(2)), 5), windowed(body(3))[30:60, 30:80]]
)
def test_constant_borders_are_taken_away_whatever_they_are(image):
    """In any order and of any values; what is left does not depend on them."""
    draw = np.random.default_rng(0)
    expected = query(image[None])
    for _ in range(5):
        framed = image
        for value in draw.integers(0, 255, 3):
            framed = np.pad(framed, draw.integers(0, 12, (2, 2)), constant_values=value)
        whole = query(framed[None])[TRIMMED]
        assert (whole == expected[TRIMMED if expected[TRIMMED].any() else 0]).all()


def test_colour_is_compared_as_luminance(known):
    grey = windowed(body(3))
    assert near_duplicates(query(np.stack([grey] * 3))[None], known, [np.stack([grey] * 3)].__getitem__).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 40, 40), np.uint8),
        np.full((1, 40, 40), -1000, np.int16),
        np.full((1, 40, 40), np.nan, np.float32),
        np.full((3, 8, 8), 7, np.uint8),
        np.arange(4, dtype=np.uint8).reshape(1, 2, 2),
    ],
    ids=["zeros", "air", "NaN", "colour", "2 x 2"],
)
def test_an_image_without_content_has_no_code_and_matches_nothing(image):
    assert not fingerprint(image).any()
    assert not near_duplicates(
        query(image)[None], lambda: [np.stack([fingerprint(image)] * 3)], [image].__getitem__
    ).any()


def test_nan_and_infinity_beside_values_do_not_hide_them(known):
    image = body(5).astype(np.float32)
    image[0, :3] = np.nan, np.inf, -np.inf
    assert recognised([image], known).all()


def test_a_fingerprint_has_a_fixed_size_and_does_not_depend_on_the_run():
    first, second = fingerprint(body(0)[None]), fingerprint(body(0)[None])
    assert first.shape == (FINGERPRINT_BYTES,) and first.dtype == np.uint8 and (first == second).all()


def skyline(seed):
    """A photograph of sky above roofs in one corner, uint8 (SIDE, SIDE): a bright background, and less than half is content."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    roofs = 90 + 40 * ndimage.gaussian_filter(draw.normal(size=x.shape), 1.5) / 0.19
    edge = 0.55 + 0.1 * ndimage.gaussian_filter1d(draw.normal(size=SIDE), 4)
    return np.where((y > edge) & (x < 0.45), roofs, 235 + 3 * y).clip(0, 255).astype(np.uint8)


def test_small_content_before_a_bright_background_is_no_body_on_a_table():
    """Copies need fewer positions that agree, since roofs, unlike tables, are those of one photograph."""
    images = [skyline(seed) for seed in range(COUNT)]
    known = np.stack([fingerprint(image[None]) for image in images])
    marked, bright = (without_marks(codes)[1] for codes in (known.reshape(COUNT, 2, -1), queries(images)))
    assert marked.all() and bright.all()
    assert not without_marks(queries([on_a_table(seed) for seed in range(COUNT)]))[1].any()
    assert recognised([jpeg(resized(image, 70)) for image in images], lambda: [known]).mean() > 0.9
    assert not recognised([skyline(seed) for seed in range(1000, 1100)], lambda: [known]).any()
