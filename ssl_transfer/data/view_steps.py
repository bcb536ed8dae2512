"""The steps of views that compute on pixels: for a CPU, and the same to rounding in fewer and larger kernels for a GPU.

At 224 px a view of one channel costs a GPU 29 kernels and 6.5 MB of reads and writes by `GPUSteps`, and 87 and 21 MB by
`Steps`, which are faster on a CPU (`tests/pretend_gpu/test_views.py` counts them).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as functional

from ssl_transfer.data.display import LUMINANCE
from ssl_transfer.data.intensity import Intensity, Scale
from ssl_transfer.data.transfer import constant

UNIT = Scale(0.0, 1.0)
BIAS_TERMS = tuple((i, j) for i in range(4) for j in range(4) if 0 < i + j <= 3)  # exponents of x and y
# Optical density of haematoxylin, eosin and DAB in R, G, B: Ruifrok & Johnston 2001, Anal. Quant. Cytol. Histol. 23: 291.
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
DARKEST = 1 / 255  # the optical density of 0 is infinite


class Steps:
    """Steps on images (B, C, H, W), each with parameters per image, shape (B, …)."""

    @staticmethod
    def values(images: torch.Tensor, scale: Scale) -> tuple[torch.Tensor, Scale]:
        """Float32 values of images, in unit intensity if there is one scale for them, and the scale of these values."""
        return (images.float(), scale) if scale.further else (scale.unit(images), UNIT)

    @staticmethod
    def window(values: torch.Tensor, centre: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        """Map each `centre` (B, K) to 0.5 and so many values as `width` to 1, and clip: (B, C, H, W) to (B, C · K, H, W)."""
        return ((values[:, :, None] - of_windows(centre)) / of_windows(width)).add_(0.5).clamp_(0, 1).flatten(1, 2)

    @staticmethod
    def bias_field(unit: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Multiply the exponential of a polynomial with coefficients (B, 9), and clip."""
        field = (bias @ _polynomials(unit.shape[-1], unit.device)).exp_()
        return (unit * field.view(len(unit), 1, *unit.shape[2:])).clamp_(0, 1)

    @staticmethod
    def gamma(unit: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """Raise to a power."""
        return unit ** each(gamma)

    @staticmethod
    def stain(unit: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Map the optical density of RGB by (B, 3, 3), add an offset (B, 3), and clip."""
        density = -unit.clamp(min=DARKEST).log_().flatten(2)
        changed = torch.baddbmm(offset[..., None], matrix, density)
        return changed.neg_().exp_().view_as(unit).clamp_(0, 1)

    @staticmethod
    def contrast(unit: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
        """Multiply the difference from mid-grey, add an offset, and clip."""
        return (unit - 0.5).mul_(each(contrast)).add_(each(0.5 + brightness)).clamp_(0, 1)

    @staticmethod
    def colours(
        unit: torch.Tensor, saturation: torch.Tensor, rotation: torch.Tensor, grey: torch.Tensor
    ) -> torch.Tensor:
        """Multiply the difference from luminance, rotate RGB by (B, 3, 3), or replace it by luminance, and clip."""
        luminance = (unit * constant(LUMINANCE, unit.device, unit.dtype, channels=True)).sum(1, keepdim=True)
        unit = luminance + (unit - luminance) * each(saturation)
        unit = torch.einsum("bij,bjhw->bihw", rotation, unit)
        return torch.where(each(grey) > 0, luminance, unit).clamp_(0, 1)

    @staticmethod
    def blur(unit: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Convolve rows and columns with the kernel (B, 2 · radius + 1) of each image, as a sum of shifted images."""
        side, radius = unit.shape[-1], kernel.shape[1] // 2
        for axis in (2, 3):
            pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
            padded = functional.pad(unit, pad, mode="reflect")
            unit = torch.zeros_like(unit)
            for i, weight in enumerate(kernel.T):
                unit.addcmul_(each(weight), padded.narrow(axis, i, side))
        return unit

    @staticmethod
    def noise(unit: torch.Tensor, normal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Add normal numbers of the same shape, times sigma; they are overwritten."""
        return normal.mul_(each(sigma)).add_(unit)

    @staticmethod
    def normalise(unit: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """The input of a backbone."""
        return intensity.normalise(unit)


class GPUSteps(Steps):
    """The same steps for a GPU."""

    @staticmethod
    def values(images: torch.Tensor, scale: Scale) -> tuple[torch.Tensor, Scale]:
        """Values as they are: the scale becomes a part of the window."""
        return images.float(), scale

    @staticmethod
    def window(values: torch.Tensor, centre: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        """See `Steps`."""
        offset, factor = of_windows(0.5 - centre / width), of_windows(1 / width)
        return torch.addcmul(offset, values[:, :, None], factor).clamp_(0, 1).flatten(1, 2)

    @staticmethod
    def contrast(unit: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
        """See `Steps`."""
        return torch.addcmul(each(0.5 + brightness - 0.5 * contrast), unit, each(contrast)).clamp_(0, 1)

    @staticmethod
    def colours(
        unit: torch.Tensor, saturation: torch.Tensor, rotation: torch.Tensor, grey: torch.Tensor
    ) -> torch.Tensor:
        """One product with a matrix per image."""
        weights = constant(LUMINANCE, unit.device, unit.dtype).expand(3, 3)  # each row gives the luminance
        saturation, grey = saturation.view(-1, 1, 1), grey.view(-1, 1, 1)
        turned = saturation * rotation + (1 - saturation) * (rotation @ weights)
        matrix = torch.where(grey > 0, weights, turned)
        return torch.bmm(matrix, unit.flatten(2)).view_as(unit).clamp_(0, 1)

    @staticmethod
    def blur(unit: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Two convolutions in which every channel of every image is a group of its own."""
        batch, channels, height, width = unit.shape
        groups, radius = batch * channels, kernel.shape[1] // 2
        kernel = kernel[:, None].expand(-1, channels, -1).reshape(groups, 1, -1)
        unit = unit.reshape(1, groups, height, width)
        for pad, weight in (((0, 0, radius, radius), kernel[..., None]), ((radius, radius, 0, 0), kernel[:, :, None])):
            unit = functional.conv2d(functional.pad(unit, pad, mode="reflect"), weight, groups=groups)
        return unit.view(batch, channels, height, width)

    @staticmethod
    def noise(unit: torch.Tensor, normal: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `Steps`."""
        return torch.addcmul(unit, normal, each(sigma))

    @staticmethod
    def normalise(unit: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        """See `Steps`."""
        offset = tuple(-mean / std for mean, std in zip(intensity.mean, intensity.std, strict=True))
        factor = tuple(1 / std for std in intensity.std)
        offset, factor = (constant(values, unit.device, channels=True) for values in (offset, factor))
        return torch.addcmul(offset, unit.clamp_(0, 1), factor)


def steps_for(device: torch.device) -> type[Steps]:
    """The steps that are faster on a device."""
    return GPUSteps if device.type == "cuda" else Steps


@cache
def _polynomials(size: int, device: torch.device) -> torch.Tensor:
    """x^i y^j of every pixel of a square view, (9, size · size), with coordinates from −1 to 1."""
    with torch.inference_mode(False):
        centres = (torch.arange(size) * 2 + 1) / size - 1
        terms = [centres[None] ** i * centres[:, None] ** j for i, j in BIAS_TERMS]
        return torch.stack(terms).flatten(1).to(device)


def each(values: torch.Tensor) -> torch.Tensor:
    """Reshape a number per image (B,) so that it broadcasts over a batch (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def of_windows(values: torch.Tensor) -> torch.Tensor:
    """Reshape numbers per image and window (B, K) so that they broadcast over the windows of a batch (B, C, K, H, W)."""
    return values[:, None, :, None, None]
