"""Segments to arrays and back, on the reference geometry of their segmentation, without touching the scene.

Arrays are indexed (K, J, I) and cover the whole reference geometry, which the segmentation keeps even where its
reference volume is gone.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..errors import InputError
from ..i18n import _
from .vocabulary import LABELS, structure

BINARY = "Binary labelmap"


def geometryOf(segmentationNode):
    """The reference geometry as a vtkOrientedImageData without voxels. Raises InputError where there is none."""
    text = segmentationNode.GetSegmentation().GetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    )
    geometry = slicer.vtkOrientedImageData()
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry, False):
        raise InputError(
            _("{segmentation} has no reference geometry. Set its source volume in the Segment Editor.").format(
                segmentation=segmentationNode.GetName()
            )
        )
    return geometry


def shapeOf(geometry) -> tuple[int, int, int]:
    """(K, J, I) of a vtkOrientedImageData."""
    low, high = geometry.GetExtent()[::2], geometry.GetExtent()[1::2]
    return tuple(b - a + 1 for a, b in zip(low, high))[::-1]


def matrixOf(geometry) -> np.ndarray:
    """(4, 4) voxel to RAS mm matrix of a vtkOrientedImageData whose first voxel is (0, 0, 0)."""
    matrix = vtk.vtkMatrix4x4()
    geometry.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def cutGeometry(segmentationNode, segmentIds, images=()):
    """The reference geometry, cut to the box that holds the segments and `images` (vtkOrientedImageData).

    A tumor fills a small part of a head: what is computed in the box takes a tenth of the time. Where an image has
    another grid, or nothing is there, the whole geometry.
    """
    whole = geometryOf(segmentationNode)
    found, box = list(images), [None, None]
    for segmentId in segmentIds:
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
        image = segment.GetRepresentation(BINARY) if segment is not None else None
        found += [image] if image is not None and not image.IsEmpty() else []
    inverse = np.linalg.inv(matrixOf(whole))
    for image in found:
        step = inverse @ matrixOf(image)
        offset = np.rint(step[:3, 3])
        if not np.allclose(step[:3, :3], np.eye(3), atol=1e-4) or not np.allclose(step[:3, 3], offset, atol=1e-3):
            return whole
        extent = np.array(image.GetExtent())
        low, high = extent[::2] + offset, extent[1::2] + offset
        box = [low, high] if box[0] is None else [np.minimum(box[0], low), np.maximum(box[1], high)]
    if box[0] is None:
        return whole
    limits = np.array(whole.GetExtent())
    low, high = np.maximum(box[0], limits[::2]), np.minimum(box[1], limits[1::2])
    if (high < low).any():
        return whole
    return boxGeometry(whole, low, high)


def boxGeometry(whole, low, high):
    """A part of the geometry `whole`: the voxels from `low` to `high`, both (I, J, K) and both in it."""
    cut = slicer.vtkOrientedImageData()
    cut.CopyDirections(whole)
    cut.SetOrigin(whole.GetOrigin())
    cut.SetSpacing(whole.GetSpacing())
    cut.SetExtent([int(edge) for pair in zip(low, high) for edge in pair])
    return cut


def segmentArray(segmentationNode, segmentId: str, geometry=None) -> np.ndarray:
    """(K, J, I) bool, the voxels of one segment on the reference geometry, or on `geometry`, a part of it; all False
    for a segment that is not there or empty. Raises InputError for one that has a surface alone."""
    geometry = geometry or geometryOf(segmentationNode)
    empty = np.zeros(shapeOf(geometry), bool)
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    if segment is None:
        return empty
    if segment.GetRepresentation(BINARY) is None:
        raise InputError(
            _(
                "{segmentation} has no binary labelmap. In the module Segmentations, under Representations, create it "
                "and make it the source."
            ).format(segmentation=segmentationNode.GetName())
        )
    image = slicer.vtkOrientedImageData()
    if not segmentationNode.GetBinaryLabelmapRepresentation(segmentId, image) or image.IsEmpty():
        return empty
    return onGeometry(image, geometry) > 0


def onGeometry(image, geometry) -> np.ndarray:
    """(K, J, I) copy of the image's voxels on `geometry`, by nearest neighbour, 0 outside of it."""
    resampled = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, geometry, resampled)
    voxels = numpy_support.vtk_to_numpy(resampled.GetPointData().GetScalars())
    return voxels.reshape(shapeOf(resampled)).copy()


def toImage(array: np.ndarray, geometry):
    """A vtkOrientedImageData (uint8) of `array` (K, J, I), cut to the box around what is not 0."""
    image = slicer.vtkOrientedImageData()
    image.CopyDirections(geometry)
    image.SetOrigin(geometry.GetOrigin())
    image.SetSpacing(geometry.GetSpacing())
    box = boundingBox(array)
    if box is None:
        image.SetExtent(0, -1, 0, -1, 0, -1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        return image
    first = geometry.GetExtent()[::2]
    extent = [offset + edge for offset, part in zip(first, box[::-1]) for edge in (part.start, part.stop - 1)]
    image.SetExtent(extent)
    voxels = np.ascontiguousarray(array[box], dtype=np.uint8)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels.ravel(), deep=True))
    return image


def boundingBox(array: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Slices around the voxels that are not 0; None where all are."""
    parts = []
    for axis in range(3):
        used = np.flatnonzero(array.any(axis=tuple(other for other in range(3) if other != axis)))
        if not used.size:
            return None
        parts.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(parts)


def addLabels(segmentationNode, labels: np.ndarray, geometry=None) -> None:
    """NCR, ED and ET on one layer, where they cannot overlap. labels: (K, J, I) uint8 on the reference geometry, or on
    `geometry`, a part of it."""
    image = toImage(labels, geometry or geometryOf(segmentationNode))
    for segmentId, value in LABELS.items():
        _add(segmentationNode, segmentId, image, value)


def addRegion(segmentationNode, segmentId: str, region: np.ndarray, geometry=None) -> None:
    """One segment on a layer of its own. region: (K, J, I) bool, likewise."""
    _add(segmentationNode, segmentId, toImage(region, geometry or geometryOf(segmentationNode)), 1)


def _add(segmentationNode, segmentId: str, image, value: int) -> None:
    kind = structure(segmentId)
    segment = slicer.vtkSegment()
    segment.SetName(kind.name)
    segment.SetColor(*kind.color)
    segment.SetNameAutoGenerated(False)  # else Slicer names and paints it anew after its terminology
    segment.SetColorAutoGenerated(False)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), kind.terminology)
    segment.SetLabelValue(value)
    segment.AddRepresentation(BINARY, image)
    segmentationNode.GetSegmentation().AddSegment(segment, segmentId)
