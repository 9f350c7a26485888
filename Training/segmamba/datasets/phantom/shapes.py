"""Tumours of real label maps in a phantom: their shapes and labels; head, place and intensities are the phantom's own.

Label maps are files as `cases.label_files` finds them, or an .npz with
    ids         (N,)          of the label maps
    label       (N, X, Y, Z)  whole numbers, 0 outside the tumour
    spacing_mm  (3,)          of X, Y, Z
Where their axes lead does not matter: a shape is turned at random, and mirrored or not.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from segmamba.cases.label_files import find_label_maps, read_label_map
from segmamba.cases.labels import CONVENTIONS, LABELS, REGIONS, find_convention, to_standard
from segmamba.datasets.phantom.anatomy import FINE, Head
from segmamba.datasets.phantom.lattice import rotation
from segmamba.datasets.phantom.tumour import displace, in_tissue, supratentorial
from segmamba.errors import InputError
from segmamba.limits import VOXELS

_CORE, _WHOLE = (tuple(LABELS[name] for name in REGIONS[region]) for region in ("TC", "WT"))
_KEYS = ("ids", "label", "spacing_mm")
_SPACING = 0.1, 20.0  # mm, inclusive
_TRIES = 40  # shapes and turns, each tried in _PLACES places
_PLACES = 60
_CELL = 4.0  # mm, of the cells by which a shape is tried
_WITHIN = 3.0  # mm below the surface that the middle of each cell must lie, or the voxels at its corners may not
_MARGIN = 8.0  # mm around a tumour in which distances to it are kept: beyond, nothing of it shows


@dataclass(frozen=True, eq=False)
class Shape:
    """The tumour of a label map."""

    id: str
    """Of the label map."""
    label_map: np.ndarray
    """(X, Y, Z) uint8, cropped to the tumour: 1 NCR, 2 ED, 3 ET."""
    spacing: np.ndarray
    """mm along X, Y, Z."""


@dataclass
class PlacedShape:
    """A shape in a head, as `tumour.Tumour` for what paints it."""

    core: np.ndarray
    """Signed mm inside NCR and ET, on the grid of the shape with a margin."""
    enhancing: np.ndarray
    """Inside ET, likewise."""
    whole: np.ndarray
    """Inside all three, likewise."""
    to_voxels: np.ndarray
    """(3, 4), from world mm to voxel indices of these."""
    texture: np.ndarray
    """The finest noise, sd 1, on FINE."""
    cyst: float
    """0 solid to 1 fluid."""
    infiltration: float
    """Share of the tissue that still shows within the core."""
    description: dict
    """What was drawn, plain JSON."""

    def at(self, points: np.ndarray, tissues: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Tumour.at`."""
        index = self.to_voxels[:, :3].astype(np.float32) @ points + self.to_voxels[:, 3:].astype(np.float32)
        core, enhancing, whole = (
            ndimage.map_coordinates(field, index, order=1, mode="nearest")
            for field in (self.core, self.enhancing, self.whole)
        )
        texture = FINE.sample(self.texture, points)
        oedema = in_tissue(whole, tissues)
        return {"core": core, "enhancing": np.minimum(core, enhancing), "oedema": oedema, "texture": texture}


def read_shapes(where: Path | str, convention: str | None = None) -> list[Shape]:
    """The tumours of label maps, without those that are empty.

    Args:
        where: a folder of label maps or of case folders, a label map, or an .npz.
        convention: what the labels mean (cases.labels.CONVENTIONS); None: as values and names tell.

    Returns:
        One of each label map with a tumour.

    Raises:
        InputError: for files that cannot be read, labels that fit no convention or several, and where none is left.
    """
    where = Path(where)
    stored = [_cropped(*one) for one in (_from_npz(where) if where.suffix == ".npz" else _from_files(where))]
    found = [shape for shape in stored if shape.label_map.size]
    if not found:
        raise InputError(f"{where}: all {len(stored)} label maps are empty; expected tumours to take the shapes of")
    try:
        values = {int(value) for shape in found for value in np.unique(shape.label_map)}
        told = {convention or find_convention(values, shape.id) for shape in found}
        if len(told) > 1:
            raise InputError(f"label maps of {' and '.join(sorted(told))}; give those of one at a time")
        told = told.pop()
        return [Shape(shape.id, to_standard(shape.label_map, told), shape.spacing) for shape in found]
    except InputError as error:
        raise InputError(f"{where}: {error}, with --labels {'|'.join(CONVENTIONS)}") from None


def _cropped(name: str, label_map: np.ndarray, spacing: np.ndarray) -> Shape:
    boxes = ndimage.find_objects((label_map > 0).astype(np.uint8))
    return Shape(name, label_map[boxes[0]].copy() if boxes else label_map[:0], spacing)


def _from_files(where: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for case, file in find_label_maps(where).items():
        label_map, affine = read_label_map(file)
        yield case, label_map, voxel_sizes(affine)


def _from_npz(where: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    try:
        with np.load(where, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in _KEYS if key in stored}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{where} cannot be read as .npz: {error}") from None
    if missing := [key for key in _KEYS if key not in arrays]:
        raise InputError(f"{where} has no {', '.join(missing)}; expected {', '.join(_KEYS)}")
    ids, label, spacing = (arrays[key] for key in _KEYS)
    if label.ndim != 4 or label.dtype.kind not in "iu" or not label.size or ids.shape != label.shape[:1]:
        raise InputError(
            f"{where}: label of {label.dtype} {label.shape} with ids {ids.shape}; expected whole numbers (N, X, Y, Z) "
            "and (N,)"
        )
    if label[0].size > VOXELS or label.min() < 0 or label.max() > 255:
        raise InputError(f"{where}: label of {label.shape} from {label.min()} to {label.max()}; expected 0 to 255")
    sizes = spacing.dtype.kind in "iuf" and spacing.shape == (3,) and np.isfinite(spacing).all()
    if not sizes or spacing.min() < _SPACING[0] or spacing.max() > _SPACING[1]:
        raise InputError(f"{where}: spacing_mm {spacing}; expected three lengths of {_SPACING[0]} to {_SPACING[1]} mm")
    for name, label_map in zip(ids, label):
        yield str(name), label_map.astype(np.uint8), spacing.astype(float)


def place(rng: np.random.Generator, head: Head, shapes: Sequence[Shape]) -> PlacedShape:
    """One of the shapes in a head, which it pushes aside: turned at random, whole inside the brain.

    Args:
        rng: draws all of it.
        head: is changed.
        shapes: to choose from; one that does not fit is left for another.

    Returns:
        The tumour.

    Raises:
        InputError: where none that was tried fits.
    """
    depth, allowed = head.depth(), np.flatnonzero(supratentorial(head) & (head.depth() > 6))
    for _ in range(_TRIES):
        shape = shapes[int(rng.integers(len(shapes)))]
        turn = rotation(rng.standard_normal(3), rng.uniform(0, 180))
        turn[:, 0] *= rng.choice([-1, 1])
        tumour, core = (np.argwhere(np.isin(shape.label_map, values)) for values in (_WHOLE, _CORE))
        middle = (core if len(core) else tumour).mean(0)
        offsets = turn @ ((tumour - middle) * shape.spacing).T
        cells = np.unique(np.rint(offsets / _CELL), axis=1) * _CELL
        centres = FINE.points()[:, rng.choice(allowed, _PLACES)]
        at = (centres[:, :, None] + cells[:, None, :]).reshape(3, -1).astype(np.float32)
        inside = (FINE.sample(depth, at) > _WITHIN).reshape(_PLACES, -1).all(1)
        if inside.any():
            return _placed(rng, head, shape, turn, middle, centres[:, np.argmax(inside)].astype(float))
    raise InputError(
        f"none of {_TRIES} tumour shapes tried fits into this head, such as {shape.id} of "
        f"{np.count_nonzero(shape.label_map) * shape.spacing.prod() / 1000:.0f} mL; leave out the largest"
    )


def _placed(
    rng: np.random.Generator, head: Head, shape: Shape, turn: np.ndarray, middle: np.ndarray, centre: np.ndarray
) -> PlacedShape:
    core = np.isin(shape.label_map, _CORE)
    push = rng.uniform(0.0, 0.75) * rng.uniform(0.5, 1)
    if core.any():
        volume = np.count_nonzero(core) * shape.spacing.prod()
        displace(head, centre, (volume / 4.19) ** (1 / 3), push)
    margin = np.ceil(_MARGIN / shape.spacing).astype(int)
    label_map = np.pad(shape.label_map, [(n, n) for n in margin])
    fields = (_signed(np.isin(label_map, values), shape.spacing) for values in (_CORE, (LABELS["ET"],), _WHOLE))
    to_voxels = np.diag(1 / shape.spacing) @ turn.T  # a turn, mirrored or not, is undone by its transpose
    cyst = float(np.clip(rng.normal(0.5, 0.28), 0.05, 1))
    infiltration = rng.uniform(0.1, 0.8) if rng.random() < 0.35 else 0.0
    return PlacedShape(
        *fields,
        to_voxels=np.column_stack([to_voxels, middle + margin - to_voxels @ centre]),
        texture=FINE.fractal(rng, 6.0, 2, 0.8),
        cyst=cyst,
        infiltration=infiltration,
        description={
            "kind": "shape",
            "shape": shape.id,
            "centre_mm": [round(float(v), 1) for v in centre],
            "mass_effect": round(push, 2),
            "cyst": round(cyst, 2),
            "infiltration": round(infiltration, 2),
        },
    )


def _signed(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """mm inside `mask`, negative outside; the border lies midway between voxels."""
    if not mask.any():
        return np.full(mask.shape, -2 * _MARGIN, np.float32)
    inside, outside = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (mask, ~mask))
    return (inside - outside).astype(np.float32)
