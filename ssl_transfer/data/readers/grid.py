"""Voxel grids in space: orientation, spacing, positions of slices, and whether two grids are the same.

Axes are made canonical: those of an array run towards right, anterior and superior (RAS), as nearly as its own axes allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_transfer.data.readers.reader import Unreadable

TOLERANCE_VOXELS = 0.1  # of the smaller voxel: rounding in headers is less, a shift by half a voxel is more


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of voxels.

    Attributes:
        shape: Voxels along the three axes of the file.
        affine: From voxel indices to mm, (4, 4).
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def orientation(self) -> np.ndarray:
        """Canonical axis and direction of each axis, (3, 2), in nibabel's notation."""
        import nibabel

        return nibabel.io_orientation(self.affine)

    def canonical(self) -> Grid:
        """The same grid with canonical axes."""
        from nibabel.orientations import inv_ornt_aff

        orientation = self.orientation
        shape = tuple(self.shape[int(axis)] for axis in np.argsort(orientation[:, 0]))
        return Grid(shape, self.affine @ inv_ornt_aff(orientation, self.shape))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis, mm."""
        return tuple(round(float(length), 5) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    def normal(self, axis: int) -> np.ndarray:
        """Unit normal of the slices across an axis, on the side to which the axis points."""
        first, second = (self.affine[:3, other] for other in range(3) if other != axis)
        normal = np.cross(first, second)
        normal /= np.linalg.norm(normal)
        return normal if normal @ self.affine[:3, axis] > 0 else -normal

    def heights(self, axis: int) -> np.ndarray:
        """Position of each slice across an axis, along the normal of the slices, mm."""
        normal = self.normal(axis)
        return normal @ self.affine[:3, 3] + np.arange(self.shape[axis]) * (normal @ self.affine[:3, axis])

    def thickness(self, axis: int) -> float:
        """Distance between neighbouring slices along their normal, mm; the voxel size, unless the grid is sheared."""
        return round(float(self.normal(axis) @ self.affine[:3, axis]), 5)

    def corners(self) -> np.ndarray:
        """Positions of the eight corner voxels, mm, (8, 3)."""
        ends = np.stack(np.meshgrid(*([0, count - 1] for count in self.shape), indexing="ij"), -1).reshape(8, 3)
        return ends @ self.affine[:3, :3].T + self.affine[:3, 3]


def to_canonical(array: np.ndarray, grid: Grid) -> np.ndarray:
    """Reorder an array of a grid to canonical axes."""
    import nibabel

    return nibabel.apply_orientation(array, grid.orientation)


def reorientation(mask: Grid, image: Grid) -> np.ndarray:
    """How the axes of a mask are exchanged and flipped to be those of an image, (3, 2), in nibabel's notation.

    Raises:
        Unreadable: If its voxels are not those of the image: the message says what was found.
    """
    import nibabel
    from nibabel.orientations import inv_ornt_aff

    between = np.linalg.inv(image.affine) @ mask.affine  # from voxels of the mask to voxels of the image
    orientation = nibabel.io_orientation(between)
    shape = tuple(mask.shape[int(axis)] for axis in np.argsort(orientation[:, 0]))
    if shape != tuple(image.shape):
        raise Unreadable(f"has {_times(mask.shape)} voxels, the volume {_times(image.shape)}")
    turned = Grid(shape, mask.affine @ inv_ornt_aff(orientation, mask.shape))
    distance = float(np.linalg.norm(turned.corners() - image.corners(), axis=1).max())
    if distance > TOLERANCE_VOXELS * min(image.spacing):
        raise Unreadable(
            f"lies elsewhere: {_described(mask)}; the volume: {_described(image)}; corners are up to {distance:.3g} mm apart. "
            "If its voxels are those of the volume all the same, in the order of the file, add --mask-grid shape"
        )
    return orientation


def _described(grid: Grid) -> str:
    import nibabel

    if np.allclose(grid.affine, np.eye(4)):
        return "identity affine (a header without position)"
    codes = "".join(code or "?" for code in nibabel.aff2axcodes(grid.affine))
    origin = ", ".join(f"{value:.5g}" for value in grid.affine[:3, 3])
    return f"origin ({origin}) mm, spacing {_times(tuple(round(s, 4) for s in grid.spacing))} mm, axes {codes}"


def _times(numbers: tuple) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
