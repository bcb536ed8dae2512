"""The CT phantom's scanner: draws the body of `body` slice by slice, in Hounsfield units.

A series covers a random stretch around its region, so that neighbouring regions overlap as they do in an archive; field
of view, position, table, noise and streaks vary too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from ssl_transfer.data.readers.phantom import body
from ssl_transfer.data.readers.phantom.body import Organ, Patient, outline
from ssl_transfer.data.readers.phantom.canvas import Canvas

FINE_SIZE = 128  # below this, two by two drawn pixels make one


class Series(NamedTuple):
    """One scan: HU (S, H, W) int16, mask (S, H, W) uint8, position of each slice and the pixel in mm."""

    hu: np.ndarray
    mask: np.ndarray
    z_mm: np.ndarray
    spacing_mm: float
    thickness_mm: float


def scan(patient: Patient, region: str, slices: int, size: int, rng: np.random.Generator) -> Series:
    """Scan one region of a patient from top to bottom.

    Args:
        patient: The patient.
        region: One of `REGIONS`.
        slices: Number of slices.
        size: Number of rows and columns.
        rng: Generator of this series.
    """
    top, bottom = body.REGIONS[region]
    ends = rng.uniform(-0.12, 0.3, 2) * (bottom - top)
    z = np.linspace(top + ends[0], bottom - ends[1], slices + 2)[1:-1]
    view = "body" if region != "EXTREMITY" else str(rng.choice(["legs", "leg", "arm"], p=[0.4, 0.3, 0.3]))
    width_mm = _width(patient, z, view)
    zoom = rng.uniform(0.8, 1.0) if rng.random() < 0.15 else rng.uniform(1.03, 1.38)
    field_mm = float(np.round(width_mm * zoom))
    oversampling = 2 if size < FINE_SIZE else 1
    canvas = Canvas(
        z,
        size * oversampling,
        field_mm / size / oversampling,
        _scale(patient, z),
        rng,
        shift_mm=rng.normal(0, 0.035 * field_mm, 2),
        warp_mm=rng.uniform(1.0, 0.016 * width_mm),
        masks=region in ("THORAX", "ABDOMEN"),
    )
    draw_table(canvas, _depth(patient, z, view) + rng.uniform(8, 25))
    if view == "body":
        draw_body(canvas, patient)
    else:
        draw_limbs(canvas, patient, view)
    values = canvas.values.reshape(-1, slices, size, oversampling, size, oversampling).mean((3, 5))
    hu = expose(values[0], field_mm / size, patient.noise_hu, rng)
    mask = np.zeros(hu.shape, np.uint8)
    if canvas.has_masks:
        mask = (values[1] > 0.5).astype(np.uint8)
        mask[(values[2] > 0.5 * values[1]) & (mask == 1)] = 2
    spacing = float(np.diff(z).mean()) * patient.stature if slices > 1 else 5.0
    thickness = round(min(5.0, spacing), 2)
    return Series(hu, mask, np.round(-z * patient.stature, 2), field_mm / size, thickness)


def _width(patient: Patient, z: np.ndarray, view: str) -> float:
    """Width in mm that the operator fits the field of view to."""
    if view == "body":
        width = 2 * (outline(body.TRUNK, z)[0] + _fat(patient, z)).max() * patient.girth
        return max(width, 150.0) + (60.0 if patient.arms_down and z[0] > 320 else 0.0)
    radius = outline(body.LIMB, _along_limb(z))[0].max() + 0.5 * patient.fat_mm
    return {"legs": 2 * radius + 175, "leg": 2.2 * radius, "arm": 1.4 * radius}[view]


def _depth(patient: Patient, z: np.ndarray, view: str) -> float:
    """From the body's axis down to the table, mm."""
    if view == "body":
        return float((outline(body.TRUNK, z)[1] + _fat(patient, z)).max() * patient.depth)
    radius = outline(body.LIMB, _along_limb(z))[0].max() + 0.5 * patient.fat_mm
    return float(radius * (0.6 if view == "arm" else 1.0))


def _scale(patient: Patient, z: np.ndarray) -> np.ndarray:
    """Scale of x and y in each slice, shape (S, 2): girth shows in the trunk more than in the head."""
    weight = np.interp(z, [0, 200, 340, 1000, 1700], [0.3, 0.45, 1.0, 1.0, 0.6])[:, None]
    return (1 + weight * (np.array([[patient.girth, patient.depth]]) - 1)).astype(np.float32)


def _fat(patient: Patient, z: np.ndarray) -> np.ndarray:
    return 4 + patient.fat_mm * np.interp(z, [0, 160, 300, 560, 700, 950], [0.08, 0.12, 0.45, 0.6, 1.0, 0.9])


def _along_limb(z: np.ndarray) -> np.ndarray:
    return (z - 1000) / 680


def draw_table(canvas: Canvas, below_mm: float) -> None:
    """The table: a thin curved shell below the patient."""
    axis = (np.arange(canvas.n) + 0.5 - canvas.n / 2) * canvas.step
    u, v = axis[None, :] - canvas.shift[0], axis[:, None] - canvas.shift[1]
    shell = np.abs(v - below_mm + 0.0007 * u**2)
    share = np.clip(6 / canvas.step * (1 - shell / (6 + canvas.step)), 0, 1) * (np.abs(u) < 230)
    everywhere = (slice(None),) * 3
    canvas.paint(everywhere, share.astype(np.float32)[None], -120)


def draw_body(canvas: Canvas, patient: Patient) -> None:
    """Head to hips: skin, muscle and cavity, then the organs of `body` in their order."""
    z, hu = canvas.z, patient.tissues
    half_width, half_depth = outline(body.TRUNK, z)
    fat = _fat(patient, z) * (half_width > 0)
    if patient.arms_down and z[-1] > 330:
        for side in (1, -1):
            draw_limb(canvas, patient, side * (np.maximum(half_width, 150) + fat + 44), 12, (z - 330) / 560, 0.56, side)
    canvas.ellipse(0, 0, half_width + fat, half_depth + fat, hu["fat"])
    canvas.ellipse(0, 0, half_width, half_depth, hu["muscle"])
    if z[-1] > 935:
        draw_limbs(canvas, patient, "legs")
    cavity = draw_cavity(canvas, half_width, half_depth, hu["fat"])
    draw_organs(canvas, patient, body.NECK)
    draw_organs(canvas, patient, body.GIRDLE)
    draw_organs(canvas, patient, body.THORAX, cavity)
    draw_organs(canvas, patient, patient.vessels, lambda box: canvas.values[(0, *box)] < -600)
    draw_organs(canvas, patient, patient.bowel, cavity)
    draw_organs(canvas, patient, body.ABDOMEN, cavity)
    if canvas.has_masks:
        draw_organs(canvas, patient, patient.lesions, lambda box: canvas.values[(1, *box)])
    draw_ribs(canvas, 2.2 * hu["cancellous"], half_width, half_depth)
    draw_spine(canvas, patient)
    draw_organs(canvas, patient, body.PELVIS)
    draw_head(canvas, patient)


def draw_organs(canvas: Canvas, patient: Patient, organs, within=None) -> None:
    """Draw those organs that the series meets."""
    for organ in organs:
        if organ.z - 1.2 * organ.rz < canvas.z[-1] and canvas.z[0] < organ.z + 1.2 * organ.rz:
            canvas.draw(organ, patient.tissues[organ.tissue], patient.jitter_of(organ), within)


def draw_cavity(canvas: Canvas, half_width, half_depth, fat_hu: float):
    """Fill chest, abdomen and pelvis with fat, before organs are drawn. Returns the share of each pixel inside, by box."""
    there = (canvas.z > 325) & (canvas.z < 945)
    rx, ry = (np.where(there, a - 18, 1e-2)[:, None, None] for a in (half_width, half_depth))
    radius = np.sqrt((canvas.x / rx) ** 2 + ((canvas.y + 4) / ry) ** 2)
    share = np.clip((1 - radius) * ry / canvas.step + 0.5, 0, 1).astype(np.float32) * there[:, None, None]
    canvas.paint((slice(None),) * 3, share, fat_hu)
    return share.__getitem__


def draw_ribs(canvas: Canvas, hu: float, half_width, half_depth) -> None:
    """Draw oblique ribs. A slice meets each of them once, further to the front the higher the rib starts."""
    z = canvas.z
    there = (z > 305) & (z < 668)
    if not there.any():
        return
    rx, ry = (np.maximum(a - 10, 1)[:, None, None] for a in (half_width, half_depth))
    radius = np.sqrt((canvas.x / rx) ** 2 + ((canvas.y + 2) / ry) ** 2)
    wall = np.clip((6 - np.abs(radius - 1) * 0.5 * (rx + ry)) / canvas.step + 0.5, 0, 1)
    front = 0.5 - 0.5 * canvas.y / (ry * np.maximum(radius, 0.1))
    bone = np.clip(3 * np.cos(2 * np.pi * (z[:, None, None] - 75 * front) / 29) + 0.3, 0, 1)
    reach = np.interp(z, [480, 520, 660], [1.05, 0.85, 0.1])[:, None, None]  # the lower ones end early
    bone *= np.clip((reach - front) * 12, 0, 1) * np.clip((np.abs(canvas.x) - 22) / 8, 0, 1)
    canvas.paint((slice(None),) * 3, (wall * bone * there[:, None, None]).astype(np.float32), hu)


def draw_spine(canvas: Canvas, patient: Patient) -> None:
    """Draw alternating vertebral bodies and discs, the canal, and the processes behind it."""
    z, hu = canvas.z, patient.tissues
    y, r = outline(body.SPINE, z)
    if not r.any():
        return
    level = np.cos(2 * np.pi * z / np.interp(z, [200, 320, 780], [17, 24, 34]))
    disc, arch = level > 0.8, level < 0.35
    arch_r = r * arch
    canvas.ellipse(0, y + r + 5, 0.95 * arch_r, 0.8 * arch_r, 0.8 * hu["cortical"])
    for side in (1, -1):
        canvas.ellipse(side * (r + 9), y + r + 2, 0.8 * arch_r, 0.28 * arch_r, 0.6 * hu["cortical"], 20 * side)
    canvas.ellipse(0, y + 2.1 * r + 8, 0.22 * arch_r, 0.9 * arch_r, 0.8 * hu["cortical"])
    canvas.ellipse(0, y, r * 1.05, r * 0.85, np.where(disc, hu["disc"], 0.55 * hu["cortical"]))
    canvas.ellipse(0, y, r * 0.86, r * 0.66, np.where(disc, hu["disc"], hu["cancellous"] * 0.8))
    canvas.ellipse(0, y + r + 4, 0.55 * r, 0.42 * r, hu["nerve"])


def draw_head(canvas: Canvas, patient: Patient) -> None:
    """Face, jaw and teeth, then the skull with the brain in it."""
    z, hu = canvas.z, patient.tissues
    if z[0] > 215:
        return
    draw_organs(canvas, patient, body.HEAD)
    for position in np.linspace(-1, 1, 13):  # jaw and teeth are arches
        x, y = 44 * position, -74 + 62 * position**2
        jaw = Organ("cortical", x, y, 172, 7, 6, 20, tube=4)
        teeth = Organ("tooth", 0.7 * x, -74 + 36 * position**2, 158, 4, 4, 9, tube=4)
        draw_organs(canvas, patient, (jaw, teeth) if abs(position) < 0.8 else (jaw,))
    y, rx, ry = outline(body.BRAIN_CASE, z)
    bone = 7.5 * (rx > 0)
    canvas.ellipse(0, y, rx + bone, ry + bone, hu["cortical"] * 1.1)
    canvas.ellipse(0, y, rx, ry, hu["fluid"])
    canvas.ellipse(0, y, (rx - 2).clip(0), (ry - 2).clip(0), hu["grey"])
    draw_organs(canvas, patient, body.BRAIN)


def draw_limbs(canvas: Canvas, patient: Patient, view: str) -> None:
    """Both `legs`, one `leg`, or an `arm` alone."""
    along = _along_limb(canvas.z)
    if view == "legs":
        for side in (1, -1):
            draw_limb(canvas, patient, side * np.interp(along, [-0.1, 0.5, 1], [92, 84, 70]), 0, along, 1.0, side)
    else:
        side = 1 if patient.number % 2 else -1
        draw_limb(canvas, patient, 0, 0, along, 1.0 if view == "leg" else 0.56, side)


def draw_limb(canvas: Canvas, patient: Patient, x, y, along, scale: float, side: int) -> None:
    """One leg, or an arm at a smaller scale; `along` runs from the hip (0) to the ankle (1), shape (S,)."""
    hu = patient.tissues
    (r,) = outline(body.LIMB, along)
    r = r * scale
    there = r > 0
    canvas.ellipse(
        x, y, r + 0.45 * patient.fat_mm * scale * there, r + 0.45 * patient.fat_mm * scale * there, hu["fat"]
    )
    joint = np.exp(-(((along - 0.5) / 0.06) ** 2)) + np.exp(-(((along - 0.99) / 0.05) ** 2))
    canvas.ellipse(x, y, r * (1 - 0.12 * joint), r * (1 - 0.12 * joint), hu["muscle"])
    for angle in (25, 145, 260):  # fat planes between the muscles
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        canvas.ellipse(x + 0.55 * r * c, y + 0.55 * r * s, 0.42 * r, 0.035 * r, hu["fat"], angle)
    canvas.ellipse(x - side * 0.35 * r, y + 0.25 * r, 0.09 * r, 0.09 * r, hu["blood"])
    upper, lower = (along < 0.505) & there, (along >= 0.505) & there
    width = scale * (15 + 24 * joint)
    first_x, first_y = x + side * 0.1 * r * (1 - joint), y - 0.1 * r
    cortex = np.where(joint > 0.35, 0.6, 1.15) * hu["cortical"]
    marrow = np.where(joint > 0.35, hu["cancellous"], -30)
    for bone, hollow in ((1.0, cortex), (0.6, marrow)):
        bone = np.where((joint > 0.35) & (bone < 1), 0.88, bone)
        canvas.ellipse(first_x, first_y, width * bone * upper, 0.8 * width * bone * upper, hollow)
        canvas.ellipse(first_x - side * 0.15 * r, first_y, width * bone * lower, 0.75 * width * bone * lower, hollow)
    second = scale * 7.5 * lower * (along > 0.53)
    canvas.ellipse(x + side * 0.55 * r, y + 0.35 * r, second, second, hu["cortical"])


def expose(hu: np.ndarray, pixel_mm: float, noise_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Add effects of the scanner: noise that grows with the path through the body, streaks along it, a round field of view.

    Args:
        hu: Noise-free slices, shape (S, H, W).
        pixel_mm: Size of a pixel, mm.
        noise_hu: Standard deviation of the noise behind 300 mm of water, HU.
        rng: Generator of the series.

    Returns:
        Slices with noise, int16, shape (S, H, W), at least -1024.
    """
    size = hu.shape[-1]
    path_mm = (hu + 1000).clip(0, 2500).sum(2, keepdims=True) / 1000 * pixel_mm
    strength = noise_hu * (0.3 + 0.7 * (path_mm / 300) ** 1.5)
    grain = gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0, 0.5, 0.5)) * 1.7
    streaks = gaussian_filter1d(rng.standard_normal(hu.shape, np.float32), size / 10, axis=2) * np.sqrt(size / 10)
    hu = hu + strength * (grain + 0.9 * streaks * (path_mm > 230))
    if rng.random() < 0.3:
        axis = (np.arange(size) + 0.5) / size - 0.5
        hu[:, axis[:, None] ** 2 + axis**2 > 0.25] = -1024
    return np.rint(hu.clip(-1024, 3071)).astype(np.int16)
