"""The head that is laid over a patient's: the MNI152 brain of nilearn's package, in a plain skull and scalp.

The package holds the brain alone. Registered as it is to a whole head it grows until its black surroundings meet the
air, or sinks into the scalp; so layers of typical thickness are put around it: fluid, bone, scalp, air. Mutual
information asks only that each layer looks alike everywhere, not how bright it is. Below the skull base, where no
layer is like the other, nothing is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

STEP = 2.0  # mm
_MARGIN = 46  # mm around the brain
# mm outside the brain at which each layer ends
_FLUID = 2.0
_BONE = 8.5
_SCALP = 15.0


@dataclass(frozen=True)
class Template:
    """The MNI152 head: (X, Y, Z) float32 maps with voxels of STEP mm along R, A, S."""

    origin: np.ndarray
    """(3,) MNI mm, the centre of the first voxel."""
    head: np.ndarray
    """0 to 255, smooth layers."""
    depth: np.ndarray
    """mm inside the brain's surface, negative outside."""
    compared: np.ndarray
    """bool: brain, and what lies over the vault."""
    volume: float
    """mL of the brain."""


@lru_cache(maxsize=1)  # read-only arrays; about 2 s to make
def load_template() -> Template:
    """The template, of the MNI152 brain inside the package nilearn."""
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    t1 = np.asarray(image.dataobj, np.float32)
    components, _ = ndimage.label(t1 > 0)
    brain = ndimage.binary_fill_holes(components == np.bincount(components.ravel())[1:].argmax() + 1)
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    pads = [(_MARGIN, _MARGIN + (s.stop - s.start) % 2) for s in box]
    t1, brain = np.pad(t1[box] * brain[box], pads), np.pad(brain[box], pads)
    volume = float(brain.sum()) / 1000
    # blocks of 2 x 2 x 2
    origin = image.affine[:3, 3] + [s.start - _MARGIN + 0.5 for s in box]
    t1, share = _halve(t1), _halve(brain.astype(np.float32))
    inside = share > 0.5
    depth = ndimage.distance_transform_edt(inside, sampling=STEP) - ndimage.distance_transform_edt(
        ~inside, sampling=STEP
    )
    depth = depth - np.sign(depth) * STEP / 2  # from the surface, not from the next voxel
    depth = ndimage.gaussian_filter(depth.astype(np.float32), 0.5)
    t1 = t1 / np.maximum(share, 0.3) / np.percentile(t1[depth > 4], 99)
    out = -depth
    layers = np.select([out < _FLUID, out < _BONE, out < _SCALP], [0.3, 0.12, 1.4], 0.0).astype(np.float32)
    head = np.where(inside, t1, ndimage.gaussian_filter(layers, 0.7))
    index = np.indices(head.shape, np.float32)
    _, y, z = (axis * STEP + start for axis, start in zip(index, origin))
    above = z > -22 + 0.3 * (y - 20) * (y < 20) + 0.15 * (y - 20) * (y > 20)
    compared = (inside & (z > -60)) | ((out < _FLUID + 2) & (z > -45)) | (above & (out < _SCALP + 26))
    maps = (np.round(head * 150).astype(np.float32), depth.astype(np.float32), compared)
    for value in maps:
        value.setflags(write=False)
    return Template(origin, *maps, volume)


def _halve(values: np.ndarray) -> np.ndarray:
    x, y, z = (n // 2 for n in values.shape)
    return values[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2).mean((1, 3, 5))
