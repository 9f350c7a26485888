"""Volumes to NIfTI files with the geometry that Slicer shows, and images from files back to a volume's own grid.

Slicer reads a left-handed NIfTI file (LAS, RAI, LPI ...) with its slices in reverse order, and other programs do not.
So nothing here relies on the order of voxels in a file: what comes back is put in place by its geometry.

Arrays are indexed (K, J, I), as `slicer.util.arrayFromVolume` has them; matrices map (I, J, K) to RAS mm.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import slicer
import vtk

from ..errors import InputError
from ..i18n import _
from .nifti import whatIsMissing

# Grids are one where no corner of the volume is farther away than this; NIfTI files hold float32 matrices.
GRID_TOLERANCE_MM = 1e-2
# Largest cosine between two axes that still counts as no shear (0.06 degrees); less of a volume that a result lies on.
SHEAR_TOLERANCE = 1e-3
LABEL_VALUES = (0, 1, 2, 3)
DERIVED = "SegMamba.Derived"  # attribute of a volume that was computed here and is no image of a patient: what it is


def ijkToRas(node) -> np.ndarray:
    """(4, 4) matrix of the volume's own grid, without its parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def ijkToWorld(node) -> np.ndarray:
    """(4, 4) matrix of the grid as it stands in the scene, under its parent transforms.

    Raises InputError for a transform that no matrix describes, and where the axes do not span a space.
    """
    matrix = parentMatrix(node) @ ijkToRas(node)
    if _isFlat(matrix):
        text = _("{volume} has axes without length or direction. Correct its spacing (Volumes), or load it again.")
        raise InputError(text.format(volume=node.GetName()))
    return matrix


class Moment(NamedTuple):
    """A volume as it is at one moment; equal as long as it is given to the engine alike.

    id: of its node; time: when its voxels were last written; place: of `ijkToWorld`, rounded to 0.001 mm.
    """

    id: str
    time: int
    place: tuple[float, ...]


def momentOf(node) -> Moment:
    """As `node`, a volume with voxels, is now. Raises InputError for a transform that no matrix describes."""
    return Moment(node.GetID(), node.GetImageData().GetMTime(), tuple(ijkToWorld(node).round(3).ravel().tolist()))


def parentMatrix(node) -> np.ndarray:
    """(4, 4) matrix from the node's own RAS to the world; the identity without a parent transform.

    Raises InputError for a transform that no matrix describes, or that leaves no space.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            _(
                "{volume} is warped by the transform {transform}, which is not linear. "
                "Harden the transform on the volume (Transforms module), or take the volume out of it."
            ).format(volume=node.GetName(), transform=transform.GetName())
        )
    found = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(found)
    matrix = slicer.util.arrayFromVTKMatrix(found)
    if _isFlat(matrix):
        text = _(
            "The transform {transform}, in which {volume} lies, has axes without length or direction. Correct it "
            "(Transforms module), or take {volume} out of it."
        )
        raise InputError(text.format(transform=transform.GetName(), volume=node.GetName()))
    return matrix


def _isFlat(matrix: np.ndarray) -> bool:
    return not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3


def shearOf(matrix: np.ndarray) -> float:
    """Largest cosine between two axes of the grid, 0 where all are at right angles."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def cornerDistance(shape: tuple[int, int, int], matrix: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in mm between the corner voxels of two grids of one `shape` (K, J, I)."""
    k, j, i = shape
    corners = np.array([(x, y, z, 1) for x in (0, i - 1) for y in (0, j - 1) for z in (0, k - 1)], float).T
    return float(np.linalg.norm(((matrix - other) @ corners)[:3], axis=0).max())


def isSheared(shape: tuple[int, int, int], matrix: np.ndarray, isReference: bool = False) -> bool:
    """Whether a grid of `shape` (K, J, I) is too far from one with right angles, which is all that NIfTI holds.

    Of a reference a result comes back on the grid that was written, and has to lie on its own.
    """
    if shearOf(matrix) > SHEAR_TOLERANCE:
        return True
    return isReference and cornerDistance(shape, matrix, _atRightAngles(matrix)) > GRID_TOLERANCE_MM


def _atRightAngles(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix without shear, as Slicer writes it."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    left, _lengths, right = np.linalg.svd(matrix[:3, :3] / spacing)
    nearest = matrix.copy()
    nearest[:3, :3] = left @ right * spacing
    return nearest


def exportVolume(node, path: str | Path, isReference: bool = False) -> Path:
    """Writes a scalar volume as NIfTI (.nii, .nii.gz) as it stands in the scene; returns the path.

    Linear parent transforms are applied to the geometry of a copy outside the scene, which stays as it is. The file
    appears under its name when it is whole, with voxels in another type where Slicer does not write theirs.
    isReference: a result will come back on its grid. Raises InputError for what NIfTI cannot hold (shear, a warp) and
    where the file cannot be written.
    """
    path = Path(path)
    matrix = ijkToWorld(node)
    if isSheared(node.GetImageData().GetDimensions()[::-1], matrix, isReference):
        raise InputError(
            _("{volume} has axes that are not at right angles. Resample it first (Resample Scalar Volume).").format(
                volume=node.GetName()
            )
        )
    copy = slicer.vtkMRMLScalarVolumeNode()
    array = slicer.util.arrayFromVolume(node)
    writable = _writable(array)
    if writable is array:
        copy.SetAndObserveImageData(node.GetImageData())
    else:
        slicer.util.updateVolumeFromArray(copy, writable)
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    suffix = ".nii.gz" if path.name.endswith(".nii.gz") else ".nii"
    temporary = path.with_name(f".{os.getpid()}.{path.name.removesuffix(suffix)}.tmp{suffix}")
    try:
        _write(copy, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise InputError(
            _("{volume} could not be written to {folder} ({error}). Check free space and permissions.").format(
                volume=node.GetName(), folder=path.parent, error=error
            )
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def exportCase(volumes: dict, folder: str | Path, reference: str = "t1c", ownGrids: bool = False) -> dict[str, Path]:
    """Writes the volumes (modality -> node) into `folder` as NAME.nii, all in the voxel order of `reference`.

    Volumes that hold the same voxels in another order of axes are turned in the file, not in the scene; the result
    then lies on the reference's grid. With `ownGrids` a volume on another grid is written as it stands in the scene.
    Raises InputError where a volume is on another grid or cannot be written.
    """
    paths, target = {}, volumes[reference]
    shape, matrix = slicer.util.arrayFromVolume(target).shape, ijkToWorld(target)
    for modality, node in volumes.items():
        array, own = slicer.util.arrayFromVolume(node), ijkToWorld(node)
        if not ownGrids or turnBetween(array.shape, own, shape, matrix) is not None:
            node = _copyOf(target, toVolumeGrid(array, own, target, node.GetName()), node.GetName())
        paths[modality] = exportVolume(node, Path(folder) / f"{modality}.nii", modality == reference)
    return paths


def exportLabels(labels: np.ndarray, volume, path: str | Path) -> Path:
    """Writes a (K, J, I) uint8 label map on the grid of `volume`, as that stands in the scene; returns the path."""
    return exportVolume(_copyOf(volume, labels), path)


def rightHanded(volume):
    """`volume` or, where its own grid is left-handed, a copy outside the scene with its slices in reverse order.

    So Slicer has them when it loads the volume again. The copy lies where the volume stands, without parent transforms.
    """
    matrix, array = ijkToRas(volume), slicer.util.arrayFromVolume(volume)
    if np.linalg.det(matrix[:3, :3]) > 0:
        return volume
    turn = np.diag([1.0, 1, -1, 1])
    turn[2, 3] = array.shape[0] - 1
    copy = _copyOf(volume, array[::-1])
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToWorld(volume) @ turn))
    return copy


def _copyOf(volume, array: np.ndarray, name: str = ""):
    """A volume outside the scene with other voxels, where `volume` stands."""
    copy = slicer.vtkMRMLScalarVolumeNode()
    copy.SetName(name or volume.GetName())
    slicer.util.updateVolumeFromArray(copy, np.ascontiguousarray(_writable(array)))
    copy.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToWorld(volume)))
    return copy


def _writable(array: np.ndarray) -> np.ndarray:
    """`array` in a type that Slicer writes: int8 as int16, 64-bit integers in 32 bits or, too large, as float64."""
    if array.dtype == np.int8:
        return array.astype(np.int16)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        low, high = int(array.min()), int(array.max())
        fitting = (kind for kind in (np.int32, np.uint32) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        return array.astype(next(fitting, np.float64))
    return array


def _write(node, path: Path) -> None:
    scene = slicer.vtkMRMLScene()  # a private one: the user's scene sees no event
    scene.AddNode(node)
    storage = scene.AddNode(slicer.vtkMRMLVolumeArchetypeStorageNode())
    storage.SetUseCompression(path.name.endswith(".gz"))
    storage.SetFileName(str(path))
    if not storage.WriteData(node) or not path.is_file():
        raise RuntimeError(storage.GetUserMessages().GetAllMessagesAsString().strip() or _("the writer failed"))
    missing = whatIsMissing(path)
    if missing:
        raise RuntimeError(missing)


def readImage(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(K, J, I) array and (4, 4) IJK to RAS matrix of an image file, read by Slicer outside the scene.

    Raises InputError for a file that is missing or is no image of one number a voxel.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(_("{path}: no such file.").format(path=path))
    missing = whatIsMissing(path)
    if missing:
        raise InputError(_("{path}: truncated or damaged ({what}).").format(path=path, what=missing))
    scene = slicer.vtkMRMLScene()
    node = scene.AddNode(slicer.vtkMRMLScalarVolumeNode())
    storage = scene.AddNode(slicer.vtkMRMLVolumeArchetypeStorageNode())
    storage.SetFileName(str(path))
    storage.SetSingleFile(True)  # else files with numbers in their names are taken for the slices of one series
    storage.SetCenterImage(0)
    try:
        done = storage.ReadData(node)
    except RuntimeError as error:
        raise InputError(
            _("{path}: not an image that Slicer can read ({error}).").format(path=path, error=error)
        ) from error
    if not done or node.GetImageData() is None:
        raise InputError(_("{path}: not an image that Slicer can read.").format(path=path))
    return slicer.util.arrayFromVolume(node).copy(), ijkToRas(node)


def turnBetween(shape, matrix, referenceShape, referenceMatrix) -> tuple[list[int], list[int]] | None:
    """How to turn an array on one grid into the voxel order of another: (order of axes, axes to flip), for I, J, K.

    Shapes are (K, J, I). None where the two grids are not the same voxels.
    """
    toFile = np.linalg.inv(matrix) @ referenceMatrix  # reference IJK -> IJK: a permutation with signs and an offset
    turn = np.rint(toFile[:3, :3])
    if not all(np.array_equal(np.abs(turn).sum(axis), [1, 1, 1]) for axis in (0, 1)):
        return None
    order = [int(np.flatnonzero(turn[:, axis])[0]) for axis in range(3)]
    size = [shape[::-1][axis] for axis in order]
    flips = [axis for axis in range(3) if turn[order[axis], axis] < 0]
    exact = np.eye(4)
    exact[:3, :3] = turn
    for axis in flips:
        exact[order[axis], 3] = size[axis] - 1
    if tuple(size) != tuple(referenceShape)[::-1]:
        return None
    if cornerDistance(referenceShape, matrix @ exact, referenceMatrix) > GRID_TOLERANCE_MM:
        return None
    return order, flips


def toVolumeGrid(array: np.ndarray, matrix: np.ndarray, referenceVolume, name: str = "") -> np.ndarray:
    """`array` on the grid `matrix`, in the voxel order of `referenceVolume`, which is taken as it stands in the world.

    The grids must hold the same voxels, in whatever order of axes and directions. Raises InputError otherwise.
    """
    shape = slicer.util.arrayFromVolume(referenceVolume).shape
    found = turnBetween(array.shape, matrix, shape, ijkToWorld(referenceVolume))
    if found is None:
        raise InputError(
            _("{name} is not on the grid of {volume}. Was the volume moved or replaced since? Run it again.").format(
                name=name or _("The image"), volume=referenceVolume.GetName()
            )
        )
    order, flips = found
    return np.ascontiguousarray(np.flip(array.transpose(2, 1, 0).transpose(order), flips).transpose(2, 1, 0))


def readLabelMap(path: str | Path, referenceVolume) -> np.ndarray:
    """(K, J, I) uint8 label map (1 NCR, 2 ED, 3 ET) from a file, on the grid of `referenceVolume`.

    Raises InputError for another grid and for values that are none of the labels.
    """
    array, matrix = readImage(path)
    unknown = sorted(set(np.unique(array).tolist()) - set(LABEL_VALUES))
    if unknown:
        raise InputError(
            _("{path}: labels {unknown} are unknown; expected 0 to 3 (1 NCR, 2 ED, 3 ET).").format(
                path=path, unknown=", ".join(f"{value:g}" for value in unknown[:5])
            )
        )
    return toVolumeGrid(array.astype(np.uint8), matrix, referenceVolume, Path(path).name)


def readScalarMap(path: str | Path, referenceVolume) -> np.ndarray:
    """(K, J, I) float32 image from a file, on the grid of `referenceVolume`. Raises InputError for another grid."""
    array, matrix = readImage(path)
    return toVolumeGrid(array.astype(np.float32, copy=False), matrix, referenceVolume, Path(path).name)


def addVolume(array: np.ndarray, referenceVolume, name: str, className: str = "vtkMRMLScalarVolumeNode"):
    """A new volume in the scene with the grid and the parent transform of `referenceVolume`; returns the node."""
    matrix = vtk.vtkMatrix4x4()
    referenceVolume.GetIJKToRASMatrix(matrix)
    node = slicer.util.addVolumeFromArray(np.ascontiguousarray(array), name=name, nodeClassName=className)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
    return node


def addRegistered(volume, transform, name: str):
    """A hidden copy of `volume` in the scene where it lies after `transform`, (4, 4) RAS mm in the world; the node.

    It shares the voxels, is not saved with the scene, and is no volume to choose.
    """
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAndObserveImageData(volume.GetImageData())
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.asarray(transform, float) @ ijkToWorld(volume)))
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSaveWithScene(False)
    return node


def putBeside(node, referenceVolume) -> None:
    """Moves `node` to where `referenceVolume` is in the subject hierarchy: DICOM export wants both in one study."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    item, reference = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(referenceVolume)
    if item and reference:  # the application makes items, its libraries alone do not
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(reference))
