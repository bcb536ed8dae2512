"""Views: parameters of each image's own, reproducible by counter, and each step does what it says."""

from inspect import signature

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.views import DRAWS, ViewMaker
from ssl_transfer.errors import RecipeError

SIDE = 32
UNIT = Scale(0.0, 1.0)
HU = Scale(-160.0, 240.0)
STRENGTHS = {  # options that switch a step off at 0
    "flip",
    "flip_vertical",
    "rotation_degrees",
    "window_shift",
    "window_stretch",
    "bias_field",
    "gamma",
    "brightness",
    "contrast",
    "colour",
    "grey",
    "stain",
    "blur_share",
    "speckle",
    "noise",
}


def off(preset):
    """Options of a preset with which its views are the whole image, unchanged."""
    return {"crop_scale": (1, 1), **dict.fromkeys(STRENGTHS & set(signature(VIEWS[preset]).parameters), 0)}


def only(preset="ct", size=SIDE, channels=1, units="display", **options):
    """A preset with every step off but those given, and crops of the image's own shape."""
    views = VIEWS[preset](size, channels, units, **{**off(preset), **options})
    return type(views)(**{**vars(views), "crop_ratio": (1.0, 1.0)})


def draws(count, seed=0, view=0):
    return uniforms(seed, 0, np.arange(count), view, DRAWS)


def make(views, images, scale=UNIT, seed=0):
    """One view of each image, in unit intensity."""
    made = views.make(images, scale, draws(len(images), seed))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (views.intensity.mean, views.intensity.std))
    return made * std + mean


def gradient(count=1, side=SIDE):
    """Images that grow from left to right, then less from top to bottom; every pixel tells its place."""
    across = torch.linspace(0.1, 0.6, side)
    return (across[None, :] + 0.5 * across[:, None]).expand(count, 1, side, side).clone()


@pytest.mark.parametrize(
    ("preset", "channels", "units"),
    [
        (name, *((3, "rgb") if name in ("microscopy", "histology", "natural", "fundus") else (1, "hu")))
        for name in VIEWS
    ],
)
def test_every_image_of_a_batch_has_parameters_of_its_own(preset, channels, units):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, channels, SIDE, SIDE)).astype(np.float32))
    views = VIEWS[preset](SIDE, channels, units)
    maker = ViewMaker([views, views], HU if units == "hu" else Scale(0, 255), 0, channels)
    views = torch.cat(maker(image.repeat(8, 1, 1, 1), np.arange(8), 0))
    distances = torch.cdist(views.flatten(1), views.flatten(1))
    assert distances[~torch.eye(16, dtype=torch.bool)].min() > 1


def test_there_are_eight_presets():
    assert sorted(VIEWS) == ["ct", "fundus", "histology", "microscopy", "mr", "natural", "ultrasound", "xray"]


@pytest.fixture
def maker():
    views = VIEWS["ct"](16, 1, "hu")
    return ViewMaker([views, views], HU, seed=3, channels=1)


@pytest.fixture
def slices():
    return torch.from_numpy(np.random.default_rng(0).integers(-1000, 1000, (6, 1, SIDE, SIDE)).astype(np.int16))


def test_a_view_is_bit_identical_in_any_batch_and_order(maker, slices):
    rows = np.array([40, 3, 17, 99, 5, 8])
    whole = maker(slices, rows, 2)
    for order in ([5, 4, 3, 2, 1, 0], [2], [4, 1]):
        part = maker(slices[order], rows[order], 2)
        assert all(torch.equal(one, other[order]) for one, other in zip(part, whole, strict=True))


def test_epochs_seeds_and_the_two_views_differ(maker, slices):
    rows = np.arange(6)
    first, second = maker(slices, rows, 0)
    other_epoch = maker(slices, rows, 1)[0]
    other_seed = ViewMaker(maker.presets, HU, 4, 1)(slices, rows, 0)[0]
    for other in (second, other_epoch, other_seed):
        assert ((first - other).flatten(1).abs().amax(1) > 0.1).all()


def test_a_view_depends_on_its_number_and_not_on_the_presets_of_other_views(maker, slices):
    """A method that asks for more views, or for some of another size, leaves the first ones as they are."""
    rows = np.arange(6)
    small = VIEWS["ct"](8, 1, "hu", crop_scale=(0.05, 0.3))
    first, second = maker(slices, rows, 0)
    more = ViewMaker([*maker.presets, small, small], HU, 3, 1)(slices, rows, 0)
    assert [view.shape[-1] for view in more] == [16, 16, 8, 8]
    assert torch.equal(more[0], first) and torch.equal(more[1], second)
    assert ((more[2] - more[3]).flatten(1).abs().amax(1) > 0.1).all()


def test_two_views_of_a_float_store_are_made_from_the_same_values():
    images = torch.rand(4, 1, SIDE, SIDE) * 100 + 500
    maker = ViewMaker([only(), only()], Scale(500.0, 600.0), 0, 1)
    first, second = maker(images, np.arange(4), 0)
    assert torch.equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_backbone_with_other_channels_than_the_store_gets_luminance_or_repeated_grey(channels):
    images = torch.randint(0, 255, (2, 4 - channels, SIDE, SIDE), dtype=torch.uint8)
    views = ViewMaker([only(channels=channels)], Scale(0, 255), 0, channels)(images, np.arange(2), 0)
    grey = (
        images.float()
        if channels == 3
        else (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, True)
    )
    assert torch.allclose(views[0] * 0.25 + 0.5, grey.expand(-1, channels, -1, -1) / 255, atol=1e-4)


@pytest.mark.parametrize("preset", VIEWS)
@pytest.mark.parametrize("size", [32, 20, 48])
def test_with_every_step_off_a_view_is_the_resized_image(preset, size):
    channels = 3 if preset in ("natural", "histology", "fundus") else 1
    images = gradient(2).expand(-1, channels, -1, -1)
    expected = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    assert torch.allclose(make(only(preset, size, channels), images), expected, atol=1e-5)


def test_a_flip_mirrors_left_and_right():
    images = gradient()
    assert torch.allclose(make(only(flip=1.0), images), images.flip(-1), atol=1e-5)


def test_a_vertical_flip_mirrors_up_and_down():
    images = gradient()
    assert torch.allclose(make(only("microscopy", flip_vertical=1.0), images), images.flip(-2), atol=1e-5)


def test_half_of_the_images_are_flipped():
    images = gradient(400)
    flipped = (make(only(flip=0.5), images) - images).flatten(1).abs().amax(1) > 0.1
    assert 160 < int(flipped.sum()) < 240


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (24, 40)])
def test_a_rotation_turns_the_image_by_its_angle_whatever_its_aspect(shape):
    """The direction in which a left-to-right ramp grows across a (square) crop is the angle."""
    height, width = shape
    ramp = (torch.arange(width) / 100 + 0.2).expand(64, 1, height, width).contiguous()
    made = make(only("microscopy", rotation_degrees=20.0, crop_scale=(0.5, 0.5)), ramp)[:, 0, 12:20, 12:20]
    down = (made[:, 1:, :] - made[:, :-1, :]).mean((1, 2))
    across = (made[:, :, 1:] - made[:, :, :-1]).mean((1, 2))
    degrees = torch.rad2deg(torch.atan2(-down, across))
    expected = torch.from_numpy(20 * (2 * draws(64)[:, 6] - 1)).float()
    assert torch.allclose(degrees, expected, atol=0.3)


def test_a_crop_covers_the_requested_share_of_the_area():
    images = gradient(50)
    views = make(only(crop_scale=(0.25, 0.25)), images)[:, :, :, 4:-4]
    step = images[0, 0, 0, 1] - images[0, 0, 0, 0]
    assert torch.allclose(views[:, :, :, 1:] - views[:, :, :, :-1], step / 2, rtol=1e-3)


def test_crops_cover_the_whole_image_evenly():
    """Mean place of many crops is the image's middle, and some reach every edge."""
    images = gradient(2000)
    views = make(only(crop_scale=(0.08, 1.0)), images)
    left, right = views[:, 0, 16, 0], views[:, 0, 16, -1]
    assert views.mean() == pytest.approx(float(images[0].mean()), abs=0.005)
    corners = {name: views[:, 0, row, column] for name, row, column in (("low", 0, 0), ("high", -1, -1))}
    assert corners["low"].min() < images.min() + 0.02 and corners["high"].max() > images.max() - 0.02
    assert right.min() > left.min()


def test_halving_twice_turns_a_checkerboard_grey():
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(3, 1, 64, 64)
    assert torch.allclose(make(only(size=16), board), torch.tensor(0.5), atol=1e-5)


def test_small_and_large_crops_in_one_batch_are_each_resampled_as_if_alone():
    images = torch.rand(12, 1, 64, 64)
    views = only(size=16, crop_scale=(0.02, 1.0))
    whole = make(views, images)
    alone = torch.cat([views.make(images[i : i + 1], UNIT, draws(12)[i : i + 1]) for i in range(12)]) * 0.25 + 0.5
    assert torch.equal(whole, alone)


def test_the_ends_of_the_window_become_the_ends_of_what_the_backbone_reads():
    hu = torch.tensor([-1024, -1000, 0, 1000, 3000], dtype=torch.int16).view(5, 1, 1, 1).expand(5, 1, SIDE, SIDE)
    views = only(units="hu", window_hu=(-1000.0, 1000.0))
    made = views.make(hu, Scale(-1000.0, 1000.0), draws(5))
    assert made[:, 0, 0, 0].tolist() == pytest.approx([-2, -2, 0, 2, 2], abs=1e-5)


def test_a_window_moves_by_a_share_of_its_width_and_clips_outside():
    views = only(units="hu", window_shift=0.2)
    flat = torch.full((500, 1, SIDE, SIDE), 40.0)  # the middle of the window
    middle = make(views, flat, HU)[:, 0, 0, 0]
    assert 0.29 < middle.min() < 0.32 and 0.68 < middle.max() < 0.71
    air = make(views, torch.full((50, 1, SIDE, SIDE), -1000.0), HU)
    assert torch.count_nonzero(air.abs() > 1e-6) == 0


def test_a_window_stretches_by_exp_of_its_strength():
    step = torch.tensor([40.0, 60.0]).repeat_interleave(SIDE // 2).expand(500, 1, SIDE, SIDE)
    made = make(only(units="hu", window_stretch=0.4), step, HU)
    contrast = (made[:, 0, 0, -1] - made[:, 0, 0, 0]) / 0.05
    assert float(contrast.min()) == pytest.approx(np.exp(-0.4), abs=0.02)
    assert float(contrast.max()) == pytest.approx(np.exp(0.4), abs=0.02)


def test_displayed_images_are_jittered_as_strongly_as_windows_in_hu():
    """A slice windowed beforehand (0–255) and the same slice in HU give the same views where nothing is clipped."""
    hu = torch.linspace(-20, 100, SIDE).expand(20, 1, SIDE, SIDE)
    displayed = (hu + 160) / 400 * 255
    options = dict(window_shift=0.2, window_stretch=0.2)
    in_hu = make(only(units="hu", **options), hu, HU)
    shown = make(only(units="display", **options), displayed, Scale(0, 255))
    assert torch.allclose(in_hu, shown, atol=1e-4)


def test_brightness_and_contrast_stay_within_their_strength():
    middle = make(only(brightness=0.1), torch.full((300, 1, SIDE, SIDE), 0.5))[:, 0, 0, 0]
    assert 0.39 < middle.min() < 0.41 and 0.59 < middle.max() < 0.61
    high = make(only(contrast=0.2), torch.full((300, 1, SIDE, SIDE), 0.75))[:, 0, 0, 0]
    assert 0.69 < high.min() < 0.71 and 0.79 < high.max() < 0.81


def test_blur_keeps_the_mean_and_lowers_the_variance_of_every_image():
    images = torch.rand(20, 1, 64, 64) * 0.8 + 0.1
    made = make(only(size=64, blur_share=1.0, blur_sigma=7.0), images)  # sigma 0.1 … 2 pixels
    left = made.var((1, 2, 3)) / images.var((1, 2, 3))
    assert torch.allclose(made.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.01)
    assert left.max() < 1 + 1e-5 and left.min() < 0.05 and left.median() < 0.2


def test_a_share_of_the_images_is_blurred_and_the_rest_untouched():
    images = torch.rand(200, 1, 64, 64)
    same = (make(only(size=64, blur_share=0.3, blur_sigma=7.0), images) - images).flatten(1).abs().amax(1) < 1e-5
    assert 110 < int(same.sum()) < 170


def test_noise_has_its_own_strength_and_pattern_in_every_image():
    made = make(only(noise=0.1), torch.full((200, 1, SIDE, SIDE), 0.5))
    sigma = made.std((1, 2, 3))
    assert 0 < sigma.min() < 0.01 and 0.09 < sigma.max() < 0.11
    patterns = functional.normalize((made - 0.5).flatten(1), dim=1)
    assert ((patterns @ patterns.T) - torch.eye(200)).abs().max() < 0.2


def test_dropping_colour_leaves_luminance():
    images = torch.rand(4, 3, SIDE, SIDE)
    made = make(only("natural", channels=3, units="rgb", grey=1.0), images)
    luminance = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(made, luminance.expand(-1, 3, -1, -1), atol=1e-5)


def test_colour_jitter_leaves_grey_images_grey():
    images = torch.rand(20, 1, SIDE, SIDE).expand(-1, 3, -1, -1)
    made = make(only("natural", channels=3, units="rgb", colour=1.0), images)
    assert torch.allclose(made, images, atol=1e-5)


def test_the_ct_preset_refuses_colour_stores():
    with pytest.raises(RecipeError, match=r"this store is RGB\. Use views: natural or microscopy"):
        VIEWS["ct"](SIDE, 3, "rgb")


@pytest.mark.parametrize(
    ("channels", "units", "message"),
    [
        (1, "display", "the store has one channel"),
        (3, "hu", "the store has one channel"),
        (1, "rgb", "the backbone reads one channel"),
    ],
)
def test_the_natural_preset_refuses_one_channel_unless_colour_is_off(channels, units, message):
    with pytest.raises(
        RecipeError, match=rf"jitters colour, and {message}\. Set data.views.colour=0 data.views.grey=0"
    ):
        VIEWS["natural"](SIDE, channels, units)
    assert VIEWS["natural"](SIDE, channels, units, colour=0, grey=0).size == SIDE
