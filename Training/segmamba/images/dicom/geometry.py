"""Slices to a block: their order along the common normal, how far apart they are, and what is wrong with them.

The distance between slices is that of their positions: SliceThickness leaves out the gap, and SpacingBetweenSlices
is read as the gap by some makers (PS3.3 C.7.6.2 gives the equations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmamba.images.dicom.headers import Frame

SAME_PLACE_MM = 0.01
_UNEVEN_MM = 0.05  # positions are text, often rounded to 0.01 mm
_UNEVEN_SHARE = 0.02  # of the distance between slices
_SIDEWAYS_MM = 0.3  # over the whole stack: cosines of 4 digits make 0.1 mm of it
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the slices of a volume lie."""

    shape: tuple[int, int, int]
    """(X, Y, Z), of columns, rows and slices."""
    affine: np.ndarray | None
    """(4, 4) voxel indices to RAS mm, None where there is none."""
    fault: str = ""
    """Why the slices are no volume, or ''."""
    notes: tuple[str, ...] = ()
    """What is odd and does no harm."""

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Between columns, rows and slices, in mm."""
        if self.affine is None:
            return None
        x, y, z = (float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def extent_mm(self) -> float:
        """From the first slice's middle to the last one's, and one slice more."""
        return self.shape[2] * self.spacing[2] if self.spacing is not None else 0.0

    @property
    def plane(self) -> str:
        """'axial', 'coronal' or 'sagittal', the nearest; '' where unknown."""
        if self.affine is None:
            return ""
        return ("sagittal", "coronal", "axial")[int(np.abs(self.affine[:3, 2]).argmax())]

    @property
    def oblique_degrees(self) -> float:
        """The largest angle between an axis of the image and the nearest axis of the body."""
        if self.affine is None:
            return 0.0
        axes = np.abs(self.affine[:3, :3]) / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.degrees(np.arccos(np.clip(axes.max(axis=0), 0, 1))).max())

    def describe(self) -> str:
        """'24 axial slices every 6 mm, 256 x 256 pixels of 0.9 x 0.9 mm, oblique by 8 degrees'."""
        x, y, z = self.shape
        if self.spacing is None:
            return f"{z} slice{'s' * (z != 1)}, {x} x {y} pixels"
        dx, dy, dz = self.spacing
        text = f"{z} {self.plane} slices every {dz:.4g} mm, {x} x {y} pixels of {dx:.4g} x {dy:.4g} mm"
        if self.oblique_degrees > 0.5:
            text += f", oblique by {self.oblique_degrees:.0f} degrees"
        return text


def normal_of(frame: Frame) -> np.ndarray:
    """The unit vector (3,), LPS, at right angles to rows and columns; zeros where the orientation is unknown."""
    if not frame.orientation:
        return np.zeros(3)
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return normal / max(float(np.linalg.norm(normal)), 1e-9)


def places(frames: Sequence[Frame]) -> np.ndarray:
    """Where the slices lie along the first one's normal: (n,) mm; all 0 where positions are unknown."""
    if not all(frame.position for frame in frames):
        return np.zeros(len(frames))
    return np.array([frame.position for frame in frames]) @ normal_of(frames[0])


def arrange(frames: Sequence[Frame]) -> tuple[list[Frame], Geometry]:
    """The slices by place along rows x columns, so that the affine is right-handed, and their geometry."""
    first = frames[0]
    shape = (first.header.columns, first.header.rows, len(frames))
    fault = _attributes_fault(first) or next((f for f in map(_attributes_fault, frames) if f), "")
    if fault:
        return list(frames), Geometry(shape, None, fault)
    order = np.argsort(places(frames), kind="stable")
    frames = [frames[i] for i in order]
    if len(frames) == 1:
        return frames, Geometry(shape, None, "one slice, which is not a volume")
    normal, positions = normal_of(frames[0]), np.array([frame.position for frame in frames])
    steps = np.diff(positions @ normal)
    if steps.min() < SAME_PLACE_MM:
        count = int((steps < SAME_PLACE_MM).sum())
        return frames, Geometry(shape, None, f"{count} places hold several slices, and nothing tells them apart")
    move = (positions[-1] - positions[0]) / (len(frames) - 1)
    step = float(move @ normal)
    fault = _uneven(steps) or _sideways(positions, normal)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = normal * step, positions[0]
    return frames, Geometry(shape, _TO_RAS @ affine, fault, _notes(frames, step))


def _attributes_fault(frame: Frame) -> str:
    header = frame.header
    if header.samples != 1 or header.photometric not in ("MONOCHROME2", ""):
        return f"pixels are {header.photometric or 'colours'}, expected MONOCHROME2"
    if not (frame.orientation and frame.position):
        return "no position or orientation in space"
    if not frame.spacing or min(frame.spacing) <= 0:
        return "no pixel spacing"
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    gram = np.array([row @ row - 1, column @ column - 1, row @ column])
    return "rows and columns are not at right angles" if np.abs(gram).max() > 1e-2 else ""


def _uneven(steps: np.ndarray) -> str:
    """What is wrong with the distances between neighbours, or ''."""
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= max(_UNEVEN_MM, _UNEVEN_SHARE * usual):
        return ""
    smallest = float(steps[steps <= usual * (1 + _UNEVEN_SHARE)].mean())
    times = np.rint(steps / smallest)
    if np.abs(steps - times * smallest).max() <= max(_UNEVEN_MM, _UNEVEN_SHARE * smallest) * times.max():
        missing = int((times - 1).sum())
        after = ", ".join(str(k + 1) for k in np.flatnonzero(times > 1)[:5])
        return f"{missing} slice{'s' * (missing != 1)} missing, after slice {after} of {len(steps) + 1}"
    return f"uneven distances between slices, {steps.min():.3g} to {steps.max():.3g} mm"


def _sideways(positions: np.ndarray, normal: np.ndarray) -> str:
    """What the slices leave of a straight stack along the normal, the last slice against the first, or ''."""
    moves = positions - positions[0]
    aside = float(np.linalg.norm(moves - np.outer(moves @ normal, normal), axis=1).max())
    if aside <= _SIDEWAYS_MM:
        return ""
    return f"slices lie up to {aside:.3g} mm sideways of the first (a tilted gantry or a sheared stack)"


def _notes(frames: Sequence[Frame], step: float) -> tuple[str, ...]:
    thickness = frames[0].header.thickness
    if thickness and thickness > 0.05 and abs(thickness - step) > 0.05 * step:
        return (f"slices are {thickness:.4g} mm thick, one every {step:.4g} mm",)
    return ()
