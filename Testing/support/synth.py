"""Small volumes and label maps on awkward grids, made on the spot: no two axes equal in length or spacing."""

from __future__ import annotations

import numpy as np
import slicer

SHAPE = (11, 17, 23)  # K, J, I
SPACING = (0.9, 1.3, 2.7)  # I, J, K in mm


def matrixFor(kind: str = "oblique") -> np.ndarray:
    """(4, 4) IJK to RAS: RAS, LPS, left-handed LAS, PIR (axes exchanged), oblique, left-handed oblique-left."""
    axes = {
        "RAS": np.eye(3),
        "LPS": np.diag([-1.0, -1, 1]),
        "LAS": np.diag([-1.0, 1, 1]),
        "PIR": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    }
    turn = _turn(0.4, -0.3, 0.2)
    axes |= {"oblique": turn, "oblique-left": turn @ np.diag([1.0, 1, -1])}
    matrix = np.eye(4)
    matrix[:3, :3] = axes[kind] @ np.diag(SPACING)
    matrix[:3, 3] = (-12.5, 7.25, 31.0)
    return matrix


def labelMap(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """(K, J, I) uint8: a core (1) with an enhancing rim (3) inside an oedema (2), off centre, so that no flip hides."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    distance = np.sqrt((k / 1.1 + 0.15) ** 2 + (j - 0.2) ** 2 + ((i + 0.1) / 0.9) ** 2)
    labels = np.zeros(shape, np.uint8)
    for value, radius in ((2, 0.65), (3, 0.4), (1, 0.22)):
        labels[distance < radius] = value
    labels[1, 2, 3] = 2  # one voxel far away in a corner
    return labels


def addVolume(name: str, kind: str = "oblique", array: np.ndarray | None = None, seed: int = 0):
    """A scalar volume in the scene; random int16 voxels unless `array` (K, J, I) is given."""
    if array is None:
        array = np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)
    return slicer.util.addVolumeFromArray(array, ijkToRAS=matrixFor(kind), name=name)


def addTransform(name: str = "Moved", scale: float = 1.0):
    """A linear transform in the scene: turned, shifted, and scaled alike in all directions."""
    matrix = np.eye(4)
    matrix[:3, :3] = _turn(0.1, 0.5, -0.7) * scale
    matrix[:3, 3] = (4, -9, 2.5)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def addShear(tangent: float):
    """A linear transform in the scene that moves what lies in front (y) to the right (x)."""
    matrix = np.eye(4)
    matrix[0, 1] = tangent
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Sheared")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def fullSize(seed: int = 0) -> np.ndarray:
    """Random uint8 voxels (K, J, I), as many as a prepared head has."""
    return np.random.default_rng(seed).integers(0, 255, (155, 240, 240), np.uint8)


def addSeries():
    """A phantom's four series in the scene: thick slices, the patient moved before FLAIR, which has another grid."""
    from scipy import ndimage
    from segmamba.datasets.phantom import make_phantom

    phantom = make_phantom(4, spacing=(3.0, 3.5, 4.0), enhancing=True)
    middle = phantom.affine @ [*((np.array(phantom.label_map.shape) - 1) / 2), 1]
    volumes = {}
    for modality, image in phantom.images.items():
        flair = modality == "t2f"
        shape, spacing = ((80, 40, 75), (2.4, 5.0, 2.2)) if flair else ((85, 90, 31), (2.1, 2.3, 5.5))
        matrix = np.diag([*spacing, 1.0])
        matrix[:3, 3] = middle[:3] - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
        move = np.eye(4)
        move[:3, 3] = (7, -5, 6) if flair else 0
        index = np.linalg.inv(move @ phantom.affine) @ matrix
        array = ndimage.affine_transform(image, index[:3, :3], index[:3, 3], shape, order=1, output=np.float32)
        array = np.ascontiguousarray(np.rint(array).transpose(2, 1, 0).astype(np.int16))
        name = {"t1n": "AX T1", "t1c": "AX T1 +C", "t2w": "AX T2", "t2f": "COR FLAIR"}[modality]
        volumes[modality] = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name)
    return volumes


def _turn(a: float, b: float, c: float) -> np.ndarray:
    """Rotation by three angles in radians."""
    about = []
    for axis, angle in enumerate((a, b, c)):
        matrix = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        about.append(matrix)
    return about[0] @ about[1] @ about[2]
