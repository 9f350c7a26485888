"""The phantom itself: draw the parts, look at them on a grid, write them to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segmamba.cases.labels import LABELS
from segmamba.datasets.phantom.anatomy import FINE, make_head
from segmamba.datasets.phantom.atlas import load_atlas
from segmamba.datasets.phantom.contrast import paint
from segmamba.datasets.phantom.lattice import rotation
from segmamba.datasets.phantom.scanner import draw_scanner, scan
from segmamba.datasets.phantom.shapes import Shape, place
from segmamba.datasets.phantom.tumour import Tumour, grow, label
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, naming
from segmamba.images.modalities import MODALITIES

_FIELD_OF_VIEW = np.array([240.0, 240.0, 155.0])  # mm, as in BraTS
_ORIGIN = np.array([0.0, 239.0, 0.0])  # of the BraTS grid, RAS mm
_AXES = np.diag([-1.0, -1.0, 1.0])  # stored left, posterior, superior


@dataclass(frozen=True)
class Phantom:
    """A synthetic case on one grid."""

    images: dict[str, np.ndarray]
    """t1n, t1c, t2w, t2f: (X, Y, Z) float32, whole numbers, 0 outside the brain."""
    label_map: np.ndarray
    """(X, Y, Z) uint8: 1 NCR, 2 ED, 3 ET."""
    affine: np.ndarray
    """(4, 4), voxel indices to RAS mm."""
    seed: int
    """That it was drawn with."""
    description: dict
    """What was drawn, plain JSON."""


def make_phantom(
    seed: int,
    *,
    spacing: tuple[float, float, float] = (1, 1, 1),
    oblique_degrees: float = 0.0,
    enhancing: bool | None = None,
    shrunk_mm: float = 0.0,
    shapes: Sequence[Shape] = (),
) -> Phantom:
    """A synthetic case with exact labels, on a grid like that of BraTS: 240 x 240 x 155 mm, axes LPS.

    One seed gives one head and one tumour in the world, whatever the grid; noise differs.

    Args:
        seed: of the case, 0 or more.
        spacing: mm along X, Y and Z, 0.4 to 10 inclusive.
        oblique_degrees: turns the grid about a random axis; the affine says so.
        enhancing: True or False asks for a tumour with or without ET; None draws it (half enhance, one in seven has a
            trace).
        shrunk_mm: makes a later date of the same patient: the tumour's core is smaller by so much on all sides, or
            larger, below 0; where it was there is oedema, and the noise is another.
        shapes: tumours of real label maps (`read_shapes`), of which one is taken in place of a drawn one.

    Returns:
        The case.

    Raises:
        InputError: for a spacing, an angle, a length or a seed that makes no sense, where no shape fits into the head,
            and for `enhancing` or `shrunk_mm` of a shape, which is what it is.
    """
    step = np.asarray(spacing, float)
    if step.shape != (3,) or not np.all(np.isfinite(step)) or step.min() < 0.4 or step.max() > 10:
        raise InputError(
            f"spacing {spacing!r}: expected three lengths between 0.4 and 10 mm; give for example (2, 2, 2)"
        )
    if not np.isfinite(shrunk_mm):
        raise InputError(f"shrunk_mm {shrunk_mm!r}: expected a finite length")
    if not np.isfinite(oblique_degrees):
        raise InputError(f"oblique_degrees {oblique_degrees!r}: expected a finite angle")
    if int(seed) != seed or seed < 0:
        raise InputError(f"seed {seed!r}: expected a whole number, 0 or more")
    if shapes and (shrunk_mm or enhancing is not None):
        raise InputError("a tumour of a label map has its own size and enhancement; leave out enhancing and shrunk_mm")
    # one stream a part, so that a change in one leaves the others as they were
    streams = (np.random.default_rng(s) for s in np.random.SeedSequence(int(seed)).spawn(6))
    of_head, of_tumour, of_grid, of_contrast, of_scanner, of_noise = streams
    head = make_head(of_head, load_atlas())
    tumour = place(of_tumour, head, shapes) if shapes else grow(of_tumour, head, enhancing)
    if shrunk_mm and isinstance(tumour, Tumour):
        tumour = replace(tumour, depth=tumour.depth - shrunk_mm)
        of_noise = np.random.default_rng([int(seed), 1])

    shape, affine = _grid(step, rotation(of_grid.standard_normal(3), oblique_degrees))
    mask, points = _brain(head.depth(), shape, affine)
    tissues = head.tissues(points)
    levels = tumour.at(points, tissues)
    label_map = np.zeros(shape, np.uint8)
    label_map[mask] = label(levels)
    ideal = paint(of_contrast, points, tissues, levels, tumour)
    settings = draw_scanner(of_scanner)
    images = {m: scan(of_noise, ideal[m], mask, points, step, settings[m]) for m in MODALITIES}

    voxel = float(np.prod(step)) / 1000
    volumes = {name: round(float(np.count_nonzero(label_map == value)) * voxel, 3) for name, value in LABELS.items()}
    description = {
        "spacing_mm": step.tolist(),
        "oblique_degrees": float(oblique_degrees),
        "enhancing": volumes["ET"] > 0,
        "volumes_ml": volumes,
        "brain_ml": round(float(mask.sum()) * voxel, 1),
        **head.description,
        **tumour.description,
        "slice_thickness_mm": {m: round(s["thick"], 1) for m, s in settings.items()},
        "noise": {m: round(s["noise"], 3) for m, s in settings.items()},
    }
    return Phantom(images=images, label_map=label_map, affine=affine, seed=int(seed), description=description)


def save_phantom(phantom: Phantom, folder: Path, case_id: str) -> dict[str, Path]:
    """Writes a case under BraTS 2023 names: {case_id}-t1n.nii.gz and so on, int16, and {case_id}-seg.nii.gz, uint8.

    Args:
        phantom: the case.
        folder: made where it does not exist.
        case_id: a file name.

    Returns:
        The paths by name (t1n, t1c, t2w, t2f, seg).

    Raises:
        InputError: for a `case_id` that is no file name.
    """
    images = {m: (image, phantom.affine) for m, image in phantom.images.items()}
    return write_images(images | {"seg": (phantom.label_map, phantom.affine)}, folder, case_id)


def write_images(images: dict[str, tuple[np.ndarray, np.ndarray]], folder: Path, case_id: str) -> dict[str, Path]:
    """Writes images as {case_id}-{name}.nii.gz, int16 but for label maps.

    Args:
        images: name -> (array (X, Y, Z), affine to RAS mm).
        folder: made where it does not exist.
        case_id: a file name.

    Returns:
        The paths by name.

    Raises:
        InputError: for a `case_id` that is no file name.
    """
    import nibabel

    if case_id in ("", "..") or Path(case_id).name != case_id:
        raise InputError(f"case id {case_id!r}: expected a plain name without folders")
    folder = Path(folder)
    make_folder(folder)
    paths = {}
    for name, (array, affine) in images.items():
        path = folder / f"{case_id}-{name}.nii.gz"
        aside = folder / f".{case_id}-{name}.{os.getpid()}.part.nii.gz"
        image = nibabel.Nifti1Image(array if array.dtype == np.uint8 else array.astype(np.int16), affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        try:
            with naming(path):
                nibabel.save(image, aside)
                aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        paths[name] = path
    return paths


def _grid(step: np.ndarray, turn: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a grid of this spacing with the field of view and the middle of a BraTS file."""
    count = np.maximum(np.rint(_FIELD_OF_VIEW / step).astype(int), 1)
    middle = _ORIGIN + _AXES @ ((_FIELD_OF_VIEW - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = turn @ _AXES @ np.diag(step)
    affine[:3, 3] = middle - affine[:3, :3] @ ((count - 1) / 2)
    x, y, z = (int(n) for n in count)
    return (x, y, z), affine


def _brain(depth: np.ndarray, shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels within the brain, bool (X, Y, Z), and their world positions, (3, N) float32."""
    nodes = FINE.points()[:, depth.ravel() > -FINE.step * 2]
    index = np.linalg.inv(affine) @ np.vstack([nodes, np.ones(nodes.shape[1])])
    first = np.clip(np.floor(index[:3].min(1)).astype(int), 0, shape)
    last = np.clip(np.ceil(index[:3].max(1)).astype(int) + 1, 0, shape)
    box = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(first, last)), indexing="ij")).reshape(3, -1)
    points = (affine[:3, :3] @ box + affine[:3, 3:]).astype(np.float32)
    inside = FINE.sample(depth, points) > 0
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(first, last))] = inside.reshape(last - first)
    return mask, points[:, inside]
