"""Steps of views that belong to one modality: bias field, gamma, speckle, stains, quarter turns; and which preset is whose."""

import numpy as np
import pytest
import torch
from skimage.color import combine_stains, hed_from_rgb, rgb_from_hed, separate_stains

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.intensity import Intensity, Scale
from ssl_transfer.data.presets import VIEWS, preset_of
from ssl_transfer.data.view_steps import BIAS_TERMS, HED, Steps
from ssl_transfer.data.views import DRAWS, Views
from ssl_transfer.domains import FAMILIES

SIDE = 32
PLAIN = {"size": SIDE, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


def make(images, **options):
    """One view of each image in unit intensity, by the steps that `options` switch on."""
    channels = images.shape[1]
    views = Views(**PLAIN, intensity=Intensity(mean=(0.0,) * channels, std=(1.0,) * channels), **options)
    return views.make(images, Scale(0.0, 1.0), uniforms(0, 0, np.arange(len(images)), 0, DRAWS))


def flat(value, count=300):
    return torch.full((count, 1, SIDE, SIDE), value)


def test_gamma_raises_to_a_power_up_to_its_strength_and_keeps_black_and_white():
    powers = make(flat(0.5), gamma=0.3)[:, 0, 0, 0].log() / np.log(0.5)
    assert float(powers.min()) == pytest.approx(np.exp(-0.3), abs=0.01)
    assert float(powers.max()) == pytest.approx(np.exp(0.3), abs=0.01)
    ends = torch.cat([flat(0.0, 5), flat(1.0, 5)])
    assert torch.equal(make(ends, gamma=0.3), ends)


def test_a_bias_field_is_the_exponential_of_its_polynomial():
    """By hand: coefficient c of x y² at the pixel (x, y)."""
    coefficients = torch.zeros(2, len(BIAS_TERMS))
    coefficients[1, BIAS_TERMS.index((1, 2))] = 0.5
    plain, field = Steps.bias_field(torch.full((2, 3, 4, 4), 0.2), coefficients)
    x, y = torch.tensor([-0.75, -0.25, 0.25, 0.75]), torch.tensor([-0.75, -0.25, 0.25, 0.75])[:, None]
    assert torch.allclose(field, (0.2 * torch.exp(0.5 * x * y**2)).expand(3, 4, 4), atol=1e-6)
    assert torch.equal(plain, torch.full((3, 4, 4), 0.2))


def test_bias_fields_are_smooth_differ_between_images_and_are_alike_in_all_channels():
    made = make(torch.full((50, 3, SIDE, SIDE), 0.1), bias_field=0.1)
    assert torch.equal(made[:, 0], made[:, 2])
    field = made[:, 0].log()
    steepest = 0.1 * sum(i for i, _ in BIAS_TERMS) * 2 / SIDE  # per pixel
    assert 0 < (field[:, :, 1:] - field[:, :, :-1]).abs().max() <= steepest
    assert field.std(0)[0, 0] > 0.05  # of a corner, over images


def test_speckle_is_noise_in_proportion_to_the_intensity():
    low, high = (make(flat(value, 200), speckle=0.2).std((1, 2, 3)) for value in (0.2, 0.4))
    assert torch.allclose(high, 2 * low, rtol=1e-3)
    assert 0 < float(low.min()) < 0.003 and 0.036 < float(low.max()) < 0.042
    assert torch.equal(make(flat(0.0, 3), speckle=0.2), flat(0.0, 3))


def stained(count=6):
    """RGB images of random amounts of the three stains."""
    amounts = np.random.default_rng(0).uniform(0.02, 0.1, (count, SIDE, SIDE, 3))
    return torch.from_numpy(combine_stains(amounts, rgb_from_hed)).permute(0, 3, 1, 2).float().contiguous()


def test_stains_are_scaled_and_shifted_as_in_scikit_image():
    """scikit-image counts optical density in units of log(10⁶)."""
    images, rng = stained(), np.random.default_rng(1)
    factors, offsets = rng.uniform(0.8, 1.2, (6, 3)), rng.uniform(0, 0.05, (6, 3))
    amounts = separate_stains(images.permute(0, 2, 3, 1).numpy(), hed_from_rgb)
    changed = amounts * factors[:, None, None] + offsets[:, None, None] / np.log(1e6)
    expected = torch.from_numpy(combine_stains(changed, rgb_from_hed)).permute(0, 3, 1, 2).float()
    stains = torch.tensor(HED)
    matrix = (stains.T * torch.from_numpy(factors[:, None]).float()) @ torch.linalg.inv(stains.T)
    found = Steps.stain(images, matrix, torch.from_numpy(offsets).float() @ stains)
    assert torch.allclose(found, expected, atol=2e-3)


def test_a_view_jitters_each_stain_of_each_image_within_its_strength():
    images = stained(40)
    made = make(images, stain=0.2)
    stains = torch.linalg.inv(torch.tensor(HED))

    def amounts(of):
        return -of.permute(0, 2, 3, 1).log() @ stains

    before, after = amounts(images), amounts(made)
    factors = after.std((1, 2)) / before.std((1, 2))
    assert 0.79 < float(factors.min()) < 0.85 and 1.15 < float(factors.max()) < 1.21
    shifts = after.mean((1, 2)) - factors * before.mean((1, 2))
    assert 0.15 < float(shifts.abs().max()) < 0.21
    assert float(torch.corrcoef(torch.cat([factors, shifts], 1).T).fill_diagonal_(0).abs().max()) < 0.6


def test_stains_of_grey_images_and_white_paper_stay():
    grey = torch.rand(3, 1, SIDE, SIDE)
    assert torch.equal(make(grey, stain=0.2), make(grey))
    one = torch.eye(3)[None]
    assert torch.allclose(Steps.stain(torch.ones(1, 3, 2, 2), one, torch.zeros(1, 3)), torch.ones(1, 3, 2, 2))
    assert Steps.stain(torch.zeros(1, 3, 2, 2), one, torch.zeros(1, 3)).max() <= 1 / 255 + 1e-6


def test_quarter_turns_are_exact_and_equally_frequent():
    image = torch.rand(1, 1, SIDE, SIDE)
    made = make(image.repeat(400, 1, 1, 1), rotation_degrees=180.0, rotation_step=90.0)
    turns = torch.stack([image[0].rot90(turn, (1, 2)) for turn in range(4)])
    distance = (made[:, None] - turns[None]).flatten(2).abs().amax(2)
    assert distance.amin(1).max() < 1e-4
    assert torch.bincount(distance.argmin(1), minlength=4).min() > 70


@pytest.mark.parametrize("domain", FAMILIES)
def test_every_modality_has_a_preset(domain):
    assert preset_of(f"{domain}/region", "rgb") in VIEWS


@pytest.mark.parametrize(
    ("domain", "units", "name"),
    [
        ("xray/chest", "display", "xray"),
        ("mammography", "stored", "xray"),
        ("fluorescence/cell_line", "display", "microscopy"),
        ("web", "rgb", "natural"),
        ("ct/head", "hu", "ct"),
        ("ct/head", "rgb", "natural"),
        ("unknown", "display", "ct"),
        ("unknown", "rgb", "natural"),
    ],
)
def test_the_preset_of_a_domain(domain, units, name):
    assert preset_of(domain, units) == name
