"""The places that are most worth a look: where the model is least certain over some depth, in order.

Finding them in a whole head takes the better part of a second, so it is done in steps of at most a fifth of that; what
is there is told at once, from the segments of the moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..i18n import _
from ..volumes.scene import ijkToWorld, parentMatrix
from .masks import boundingBox, boxGeometry, geometryOf, matrixOf
from .segments import labelArray
from .vocabulary import LABELS

THRESHOLD = 0.35  # of the entropy of four classes: what two equally likely ones give is 0.5
SMOOTHING_MM = 3.0
RADII = 2.0  # standard deviations that the smoothing looks at
APART_MM = 12.0
COUNT = 10
STEP_VOXELS = 1_000_000  # smoothed at once


@dataclass(frozen=True)
class Place:
    """ras: (R, A, S) in mm, in the world; volume: mL of uncertain tissue around it; text: the question to answer."""

    ras: tuple[float, float, float]
    volume: float
    text: str


@dataclass(frozen=True)
class _Peak:
    """voxel: (K, J, I) in the map; around: (N, 3) voxels near it; volume: mL of uncertain ones among them."""

    voxel: np.ndarray
    around: np.ndarray
    volume: float


class Places:
    """The places of one uncertainty map: `steps` finds them, then `place` says where each is and what is there."""

    def __init__(self, uncertaintyNode, count: int = COUNT):
        self._node = uncertaintyNode
        self._most = count
        self._time = _timeOf(uncertaintyNode)
        self._peaks: list[_Peak] | None = None

    @property
    def count(self) -> int | None:
        """How many there are; None before they are found."""
        return None if self._peaks is None else len(self._peaks)

    def isOf(self, uncertaintyNode) -> bool:
        """Whether they are those of this map as it is now."""
        return uncertaintyNode is self._node and _timeOf(uncertaintyNode) == self._time

    def steps(self) -> Iterator[None]:
        """Finds them, a moment's work at each step.

        Every outline is uncertain a voxel deep, and these thin shells join into one; so the map is smoothed (Gaussian,
        3 mm), which lets thick spots stand out, and its peaks are taken, none nearer than 12 mm to a better one.
        """
        found: list[_Peak] = []
        map_, matrix = slicer.util.arrayFromVolume(self._node), ijkToWorld(self._node)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]  # of K, J, I
        box = _around(map_ >= THRESHOLD / 2, spacing)
        if box is not None:
            milliliters = abs(np.linalg.det(matrix[:3, :3])) / 1000
            first = np.array([part.start for part in box])
            map_ = np.nan_to_num(map_[box]).astype(np.float32)
            yield
            smooth = yield from _smoothed(map_, spacing)
            left = np.where(smooth >= THRESHOLD / 2, smooth, 0)  # of what is not near a peak yet
            reach = np.ceil(APART_MM / spacing).astype(int)
            while len(found) < self._most:
                yield
                peak = np.array(np.unravel_index(left.argmax(), left.shape))
                if not left[tuple(peak)]:
                    break
                low = np.maximum(peak - reach, 0)
                window = tuple(slice(start, stop) for start, stop in zip(low, peak + reach + 1))
                steps = np.indices(left[window].shape).reshape(3, -1).T + low - peak
                near = np.linalg.norm(steps[:, ::-1] @ matrix[:3, :3].T, axis=1) < APART_MM
                near = near.reshape(left[window].shape)
                left[window][near] = 0
                around = np.argwhere(near & (smooth[window] >= THRESHOLD / 2)) + low
                uncertain = map_[tuple(around.T)] >= THRESHOLD
                found.append(_Peak(peak + first, around + first, float(uncertain.sum() * milliliters)))
        self._peaks = found

    def place(self, number: int, segmentationNode=None) -> Place:
        """The place with this number, from 0. Raises InputError for a segmentation that was not made here."""
        peak, matrix = self._peaks[number], ijkToWorld(self._node)
        ras = (matrix @ [*peak.voxel[::-1], 1])[:3]
        text = ""
        if segmentationNode is not None:
            points = peak.around[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
            text = _question(_labelsAt(segmentationNode, points))
        return Place(tuple(float(x) for x in ras), peak.volume, text)


def placesToCheck(uncertaintyNode, segmentationNode=None, count: int = COUNT) -> list[Place]:
    """Up to `count` places, the most uncertain first, without waiting for anything in between."""
    places = Places(uncertaintyNode, count)
    for _step in places.steps():
        pass
    return [places.place(number, segmentationNode) for number in range(places.count)]


def _timeOf(uncertaintyNode):
    image = uncertaintyNode.GetImageData() if uncertaintyNode is not None else None
    return None if image is None else image.GetMTime()


def _labelsAt(segmentationNode, points: np.ndarray) -> np.ndarray:
    """(N,) labels of the segments as they are now at (N, 3) points in the world; 0 outside their geometry."""
    whole = geometryOf(segmentationNode)
    matrix = np.linalg.inv(parentMatrix(segmentationNode) @ matrixOf(whole))
    voxels = np.rint(points @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    limits = np.array(whole.GetExtent())
    inside = ((voxels >= limits[::2]) & (voxels <= limits[1::2])).all(1)
    found = np.zeros(len(points), np.uint8)
    if inside.any():
        low, high = voxels[inside].min(0), voxels[inside].max(0)
        labels, _notes = labelArray(segmentationNode, geometry=boxGeometry(whole, low, high))
        found[inside] = labels[tuple((voxels[inside] - low)[:, ::-1].T)]
    return found


def _question(labels: np.ndarray) -> str:
    """What is to be decided at a place: between the two structures that are there most."""
    counts = np.bincount(labels, minlength=4)
    names = {
        0: _("no tumor"),
        LABELS["NCR"]: _("necrotic core"),
        LABELS["ED"]: _("edema"),
        LABELS["ET"]: _("enhancing tumor"),
    }
    common = [int(value) for value in np.argsort(-counts, kind="stable")[:2] if counts[value]]
    if len(common) == 2:
        inner, outer = sorted(common, reverse=True)
        return _("{one} or {other}?").format(one=names[inner], other=names[outer])
    if common[0] == 0:
        return _("is there tumor here?")
    return _("is all of this {structure}?").format(structure=names[common[0]])


def _around(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...] | None:
    """The box of what can be a peak once it is smoothed, with all that the smoothing looks at; None for nothing."""
    box = boundingBox(mask)
    reach = 2 * np.ceil(RADII * SMOOTHING_MM / spacing).astype(int) + 1
    return box and tuple(slice(max(0, part.start - r), part.stop + r) for part, r in zip(box, reach))


def _smoothed(array: np.ndarray, spacing: np.ndarray) -> Iterator[None]:
    """Smooths along one axis after the other, a slab at each step; returns the smooth array."""
    for axis in range(3):
        across = 0 if axis else 1
        smooth = np.empty_like(array)
        length = array.shape[across]
        slabs = np.array_split(np.arange(length), min(length, max(1, array.size // STEP_VOXELS)))
        for slab in slabs:
            part = (slice(None),) * across + (slice(slab[0], slab[-1] + 1),)
            smooth[part] = _smoothAlong(array[part], axis, SMOOTHING_MM / spacing[axis])
            yield
        array = smooth
    return array


def _smoothAlong(array: np.ndarray, axis: int, deviation: float) -> np.ndarray:
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    gaussian = vtk.vtkImageGaussianSmooth()
    gaussian.SetInputData(image)
    gaussian.SetStandardDeviations(*(deviation if of == axis else 0 for of in (2, 1, 0)))
    gaussian.SetRadiusFactors(RADII, RADII, RADII)
    gaussian.Update()
    return numpy_support.vtk_to_numpy(gaussian.GetOutput().GetPointData().GetScalars()).reshape(array.shape)
