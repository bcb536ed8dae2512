"""The CT phantom's canvas: ellipses of tissue, blended over each other with soft edges."""

from __future__ import annotations

import numpy as np

from ssl_transfer.data.readers.phantom.body import Organ

AIR = -1000
MASK_NAMES = ("liver", "lesion")  # as in LiTS: mask values 1 and 2


class Canvas:
    """The slices of one series while they are drawn.

    Args:
        z: Position of each slice in the body, mm; shape (S,).
        n: Number of rows and columns.
        step_mm: Size of a pixel, mm.
        scale: Scale of x and y in each slice, relative to the average adult; shape (S, 2).
        rng: Generator of the deformation and the position.
        shift_mm: Shift of the body in the field of view, (x, y), mm.
        warp_mm: Amplitude of the smooth deformation of the ellipses, mm.
        masks: Whether the shares of liver and lesion in each pixel are recorded.
    """

    def __init__(self, z, n: int, step_mm: float, scale, rng, shift_mm, warp_mm: float, masks: bool):
        self.z, self.n, self.step = z, n, step_mm
        self.scale, self.shift = scale[:, :, None, None], shift_mm
        turn = np.deg2rad(rng.normal(0, 5))
        self.cos, self.sin = np.cos(turn), np.sin(turn)
        axis = (np.arange(n, dtype=np.float32) + 0.5 - n / 2) * step_mm
        u, v = axis[None, None, :] - shift_mm[0], axis[None, :, None] - shift_mm[1]
        x = (u * self.cos + v * self.sin) / self.scale[:, 0]
        y = (v * self.cos - u * self.sin) / self.scale[:, 1]
        self.x, self.y = x.astype(np.float32), y.astype(np.float32)
        for wave in range(3):
            for target in (self.x, self.y):
                k = rng.normal(0, 0.018, 3) * (1 + wave)
                phase = (k[0] * x + k[1] * y + 0.4 * k[2] * z[:, None, None] + rng.uniform(0, 7)).astype(np.float32)
                target += warp_mm / (1 + wave) * np.sin(phase)
        self.reach = 2.5 * warp_mm + 2 * step_mm
        self.values = np.zeros((3 if masks else 1, len(z), n, n), np.float32)
        self.values[0] = AIR
        self.has_masks = masks

    def ellipse(self, x, y, rx, ry, hu, angle=0.0, within=None, organ: str = "") -> None:
        """Draw one ellipse in every slice. x to hu are numbers or have shape (S,); radii are 0 where it is absent."""
        x, y, rx, ry, hu = (np.broadcast_to(np.asarray(a, np.float32), self.z.shape) for a in (x, y, rx, ry, hu))
        alive = np.flatnonzero((rx > 0) & (ry > 0))
        if not len(alive):
            return
        box = self._box(alive, x, y, rx, ry)
        x, y, rx, ry, hu = (a[box[0], None, None] for a in (x, y, rx.clip(1e-2), ry.clip(1e-2), hu))
        dx, dy = self.x[box] - x, self.y[box] - y
        if angle:
            c, s = np.float32(np.cos(np.deg2rad(angle))), np.float32(np.sin(np.deg2rad(angle)))
            dx, dy = dx * c + dy * s, dy * c - dx * s
        small = np.minimum(rx, ry)
        inside = (1 - np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2)) * (small / self.step) + 0.5
        share = np.clip(inside, 0, np.minimum(1, 2 * small / self.step))  # an edge is one pixel wide: partial volume
        self.paint(box, share if within is None else share * within(box), hu, organ)

    def paint(self, box, share, hu, organ: str = "") -> None:
        """Blend `hu` over the box, and reduce the share of the liver in the pixels that are painted over."""
        values = self.values[(slice(None), *box)]
        for channel, full in zip(values, (hu, organ in MASK_NAMES, organ == "lesion"), strict=False):
            channel += share * (full - channel)

    def draw(self, organ: Organ, hu: float, jitter=(0,) * 6, within=None) -> None:
        """Draw the section of an ellipsoid in every slice; `jitter` moves its centre and radii a little."""
        rz = organ.rz * (1 + 0.06 * jitter[5])
        along = np.abs((self.z - organ.z - 0.05 * organ.rz * jitter[2]) / rz)
        section = (1 - along.clip(0, 1) ** organ.tube) ** (1 / organ.tube)
        rx, ry = organ.rx * (1 + 0.07 * jitter[3]) * section, organ.ry * (1 + 0.07 * jitter[4]) * section
        for side in (1, -1) if organ.paired else (1,):
            x = side * organ.x + 2.5 * jitter[0] * (1 if organ.x else 0.5)
            self.ellipse(x, organ.y + 2.5 * jitter[1], rx, ry, hu, side * organ.angle, within, organ.tissue)

    def _box(self, alive, x, y, rx, ry) -> tuple[slice, slice, slice]:
        """Slices, rows and columns that an ellipse can touch."""
        slices = slice(int(alive[0]), int(alive[-1]) + 1)
        sx, sy = self.scale[slices, 0, 0, 0], self.scale[slices, 1, 0, 0]
        x, y = x[slices] * sx, y[slices] * sy
        u, v = x * self.cos - y * self.sin + self.shift[0], y * self.cos + x * self.sin + self.shift[1]
        reach = np.maximum(rx, ry)[slices] * np.maximum(sx, sy) + self.reach
        ranges = []
        for centre in (v, u):
            low, high = (centre - reach).min() / self.step + self.n / 2, (centre + reach).max() / self.step + self.n / 2
            ranges.append(slice(int(np.clip(low, 0, self.n)), int(np.clip(high + 1, 0, self.n))))
        return slices, *ranges
