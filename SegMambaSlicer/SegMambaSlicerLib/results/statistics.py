"""What was found, in numbers: volumes and diameters of labels and regions, in a table of the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from ..i18n import _
from ..volumes.scene import parentMatrix
from .history import ORIGINAL_ROLE, TABLE_ROLE, keptImage, keptLabels
from .masks import cutGeometry, matrixOf
from .segments import labelArray, regionsFromLabels, representation
from .vocabulary import LABELS, MODES, REGIONS, structure


@dataclass(frozen=True)
class Measurement:
    """One structure. Volumes in mL, diameters in mm (0 where it is empty); changed is what was edited since, in mL.

    longest: the longest diameter in one axial slice; perpendicular: the width at right angles to it in that slice.
    Both run from the middle of one voxel to the middle of another, and over a slice as a whole, also where it holds
    two lesions. The RANO criteria measure a chord for the second, which can be shorter.
    """

    id: str
    name: str
    volume: float
    longest: float
    perpendicular: float
    changed: float | None


def measure(segmentationNode) -> list[Measurement]:
    """WT, TC, ET, then NCR and ED, from the segments as they are now (either representation).

    As the segmentation stands in the world, under its parent transforms, which is what is exported and followed up.
    Raises InputError where it was not made here, is under a warp, or has no binary labelmap.
    """
    world = parentMatrix(segmentationNode)
    kept = keptImage(segmentationNode)
    geometry = cutGeometry(segmentationNode, MODES[representation(segmentationNode)], [kept] if kept else [])
    labels, _notes = labelArray(segmentationNode, geometry=geometry)
    original = keptLabels(segmentationNode, ORIGINAL_ROLE, geometry)
    matrix = world @ matrixOf(geometry)
    milliliters = abs(np.linalg.det(matrix[:3, :3])) / 1000
    now, before = _structures(labels), None if original is None else _structures(original)
    return [
        Measurement(
            name,
            structure(name).name,
            float(mask.sum() * milliliters),
            *diameters(mask, matrix),
            None if before is None else float((mask ^ before[name]).sum() * milliliters),
        )
        for name, mask in now.items()
    ]


def updateTable(segmentationNode, tableNode=None, rows: list[Measurement] | None = None):
    """Writes `measure` into a vtkMRMLTableNode and returns it; the segmentation's own table unless one is given.

    rows: what `measure` returned, where it has been called already.
    """
    rows = measure(segmentationNode) if rows is None else rows
    tableNode = tableNode or segmentationNode.GetNodeReference(TABLE_ROLE)
    if tableNode is None:
        tableNode = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTableNode", _("{segmentation} volumes").format(segmentation=segmentationNode.GetName())
        )
    segmentationNode.SetNodeReferenceID(TABLE_ROLE, tableNode.GetID())
    columns = [
        _column(_("Structure"), [row.name for row in rows]),
        _column(_("Volume (mL)"), [round(row.volume, 2) for row in rows]),
        _column(_("Longest diameter (mm)"), [round(row.longest, 1) for row in rows]),
        _column(_("Perpendicular (mm)"), [round(row.perpendicular, 1) for row in rows]),
    ]
    if all(row.changed is not None for row in rows):
        columns.append(_column(_("Edited (mL)"), [round(row.changed, 2) for row in rows]))
    wasModified = tableNode.StartModify()
    tableNode.RemoveAllColumns()
    for column in columns:
        tableNode.AddColumn(column)
    tableNode.SetUseColumnTitleAsColumnHeader(True)
    tableNode.EndModify(wasModified)
    return tableNode


def _column(title: str, values: list):
    column = vtk.vtkStringArray() if isinstance(values[0], str) else vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    return column


def diameters(mask: np.ndarray, matrix: np.ndarray) -> tuple[float, float]:
    """(longest, perpendicular) in mm of a (K, J, I) bool mask in the slice where the longest is; (0, 0) if empty.

    Slices are those of the grid's axis that lies closest to the body's, so of an oblique grid its own.
    """
    step = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    axis = int(np.argmax(np.abs(step[2])))  # I, J or K
    slices = np.moveaxis(mask, 2 - axis, 0)
    across = [other for other in (2, 1, 0) if other != axis]  # of the rows and columns of a slice
    spacing = np.linalg.norm(matrix[:3, across], axis=0)
    slices = slices[slices.any(axis=(1, 2))]
    diagonals = np.linalg.norm([_reach(slices.any(axis=2)), _reach(slices.any(axis=1))] * spacing[:, None], axis=0)
    best = (0.0, 0.0)
    for index in np.argsort(-diagonals, kind="stable"):
        if diagonals[index] <= best[0]:
            break  # not even the diagonals of the boxes that are left are longer
        ends = _ends(slices[index]) * spacing
        squares = sum((x[:, None] - x[None]) ** 2 for x in ends.T)  # a third of the time that a norm takes
        longest = float(np.sqrt(squares.max()))
        if longest > best[0]:
            i, j = np.unravel_index(squares.argmax(), squares.shape)
            direction = (ends[i] - ends[j]) / longest
            best = (longest, float(np.ptp(ends @ (-direction[1], direction[0]))))
    return best


def _reach(used: np.ndarray) -> np.ndarray:
    """(N, size) bool -> (N,) voxels from the first to the last."""
    return used.shape[1] - 1 - used[:, ::-1].argmax(1) - used.argmax(1)


def _ends(image: np.ndarray) -> np.ndarray:
    """(N, 2) first and last voxel of each row and each column: the outline's corners are among them."""
    points = []
    for turned, order in ((image, (0, 1)), (image.T, (1, 0))):
        rows = np.flatnonzero(turned.any(1))
        first, last = turned[rows].argmax(1), turned.shape[1] - 1 - turned[rows][:, ::-1].argmax(1)
        for columns in (first, last):
            points.append(np.stack([rows, columns], 1)[:, order])
    return np.unique(np.concatenate(points), axis=0).astype(float)


def _structures(labels: np.ndarray) -> dict[str, np.ndarray]:
    inner = {name: labels == value for name, value in LABELS.items() if name not in REGIONS}
    return {**regionsFromLabels(labels), **inner}
