"""A head simulated around a stripped brain: what brain extraction has to take away again.

Fluid between brain and bone, dura, sinuses of veins, a skull with marrow, scalp, muscle, eyes in their fat, airy
sinuses, marrow of the skull base, neck with a spinal cord, noise, and the brightness of surface coils. Places
of the parts are in mm of the MNI152 space, laid over the brain by its bounding box; thicknesses and shapes are random.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

# brightness over the median of the brain; fluid, compact bone, marrow, fat, muscle, eyeball, mucosa, dura, vein, air
_NAMES = ("fluid", "bone", "marrow", "fat", "muscle", "eye", "mucosa", "dura", "vein", "air")
_BRIGHTNESS = {
    "t1c": (0.28, 0.06, 0.85, 1.60, 0.65, 0.22, 1.50, 1.20, 1.70, 0.02),
    "t1n": (0.30, 0.06, 0.85, 1.70, 0.60, 0.25, 0.80, 0.60, 0.50, 0.02),
    "t2w": (2.20, 0.08, 0.70, 1.40, 0.35, 2.40, 1.80, 0.30, 0.20, 0.02),
    "t2f": (0.22, 0.08, 0.60, 1.10, 0.50, 0.25, 1.40, 0.70, 0.30, 0.02),
}
_COARSE = 2.0  # mm, of the lattice on which surfaces are laid out
_MARGINS = ((26, 26), (34, 30), (60, 22))  # mm of head around the brain: left, right, behind, before, below, above


def add_head(
    brain: np.ndarray, step: float, rng: np.random.Generator, modality: str = "t1c"
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Puts skull, muscle and skin around a brain: `add_heads` of one image.

    Args:
        brain: (X, Y, Z), axes to the right, front and top, 0 outside.
        step: mm from voxel to voxel.
        rng: draws thicknesses and textures.
        modality: decides how bright each tissue is.

    Returns:
        The head and the brain's mask, both on a larger grid, and the voxels added before each axis.
    """
    heads, mask, before = add_heads({modality: brain}, step, rng)
    return heads[modality], mask, before


def add_heads(
    brains: Mapping[str, np.ndarray], step: float, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[int, ...]]:
    """Puts one skull, with muscle and skin, around the images of one brain: laid out once, which takes seconds.

    Args:
        brains: modality, which decides how bright each tissue is, -> (X, Y, Z), axes to the right, front and top, 0
            outside.
        step: mm from voxel to voxel.
        rng: draws thicknesses and textures.

    Returns:
        The heads by modality and the brain's mask, all on a larger grid, and the voxels added before each axis.
    """
    pads = [tuple(round(m / step) for m in pair) for pair in _MARGINS]
    anywhere = np.any([brain > 0 for brain in brains.values()], axis=0)
    box = ndimage.find_objects(anywhere.astype(np.uint8))[0]
    # the brain's own field of view may end right at it, or far from it
    pads = [(max(0, a - s.start), max(0, b - (n - s.stop))) for (a, b), s, n in zip(pads, box, anywhere.shape)]
    brains = {modality: np.pad(brain, pads).astype(np.float32) for modality, brain in brains.items()}
    mask = ndimage.binary_fill_holes(np.pad(anywhere, pads))
    level = {modality: float(np.median(brain[brain > 0])) for modality, brain in brains.items()}
    factors = [rng.uniform(0.85, 1.15) for _ in _NAMES]
    bright = {
        modality: {n: level[modality] * v * factor for n, v, factor in zip(_NAMES, _BRIGHTNESS[modality], factors)}
        for modality in brains
    }

    shape = tuple(int(np.ceil(n * step / _COARSE)) + 1 for n in mask.shape)
    coarse = _at(mask.astype(np.float32), shape, _COARSE / step) > 0.5
    hull = _far(~_grow(coarse, 12)) > 12  # closed: sulci and fissures belong to it
    hull |= coarse
    out = _far(hull) - _far(~hull)  # mm outside
    x, y, z = _places(coarse)
    field = _Fields(rng, shape)

    gap = np.clip(field(25, 1.6, 1.0), 0, 5)
    skull = np.clip(field(35, 6.5, 1.2), 4, 10)
    scalp = np.clip(field(35, 6.0, 1.8), 3, 12)
    temporal = 9 * np.exp(-(((z + 15) / 28) ** 4) - ((y - 12) / 32) ** 4) * (np.abs(x) > 45)
    inner, outer = gap, gap + skull
    skin = outer + scalp + temporal

    face = 1 - np.sqrt((x / 66) ** 2 + ((y - 30) / 60) ** 2 + ((z + 55) / 70) ** 2)
    neck = np.minimum(1 - np.sqrt((x / 58) ** 2 + ((y + 28) / 62) ** 2), (-45 - z) / 60)
    depth = np.maximum(skin - out, 60 * np.maximum(face, neck))  # mm below the skin
    base = z + 28 - 0.25 * (y - 20) + field(20, 0, 2)  # negative below the skull base
    vault = _step(base, 6)

    images = {modality: np.full(shape, of["air"], np.float32) for modality, of in bright.items()}

    def paint(name: str, amount: np.ndarray) -> None:
        amount = np.clip(amount, 0, 1)
        for modality, image in images.items():
            image[:] = image * (1 - amount) + bright[modality][name] * amount

    # soft tissue everywhere below the skin, then what lies within
    texture = field(9, 0, 1)
    paint("muscle", _step(depth, 1))
    paint("fat", _step(depth, 1) * np.maximum(_step(5.5 - np.abs(depth - 4), 1.5), _step(texture - 0.6, 0.25)))
    paint("fat", _step(depth - 1.5, 1) * vault * _step(out - outer - temporal, 1))
    # the vault: two tables with marrow between
    amount = (skull - 2.5) / 2 * np.clip(0.7 + field(30, 0, 0.5), 0, 1)
    for_base = np.maximum(vault, _step(4 - out + inner, 1))
    paint("bone", for_base * _step(outer - out, 0.7))
    paint("marrow", for_base * _step(amount - np.abs(out - (inner + outer) / 2), 0.7))
    # the skull base
    below = 1 - vault
    paint("marrow", below * _step(9 - np.hypot(x / 1.2, (y + 14) + 0.7 * (z + 45)), 1) * _step(z + 66, 1))
    cells = ((np.abs(x) > 26) & (np.abs(x) < 62) & (y < -12) & (y > -42) & (z < -30) & (z > -58)).astype(np.float32)
    paint("bone", below * cells * _step(field(5, 0, 1) + 0.3, 0.3))
    paint("air", below * cells * _step(field(5, 0, 1) - 0.5, 0.3))
    nose = ((np.abs(x) < 20) & (y > 24) & (y < 78) & (z < -32) & (z > -85)).astype(np.float32) * _step(depth - 8, 1)
    paint("air", nose * below)
    paint("mucosa", nose * below * _step(field(5, 0, 1) - 0.4, 0.3))
    paint("air", below * _step(1 - np.sqrt((x / 14) ** 2 + ((y - 18) / 12) ** 2 + ((z + 40) / 9) ** 2), 0.1))
    for side in (-1, 1):
        at = np.array([33.0 * side, 60, -38]) + rng.normal(0, 1.5, 3)
        ball = np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2)
        back = np.clip((at[1] - y) / 38, 0, 1)
        cone = 17 * (1 - 0.75 * back) - np.hypot(x - at[0] * (1 - 0.55 * back), z - at[2] - 6 * back)
        paint("fat", _step(cone, 1) * (y > 20) * (y < at[1]) * _step(depth - 2, 1) * below)
        nerve = np.hypot(x - at[0] * (1 - 0.55 * back), z - at[2] - 6 * back)
        paint("muscle", _step(2.5 - nerve, 0.7) * (y > 22) * (y < at[1]) * below)
        paint("muscle", _step(13 - ball, 0.7))
        paint("eye", _step(11.5 - ball, 0.7))
    # spinal canal, from the lowest part of the brain on
    low = np.argwhere(coarse)[:, 2].min()
    stem = np.argwhere(coarse[:, :, low : low + 3].any(2)).mean(0)
    index = np.indices(shape, np.float32)
    canal = _COARSE * np.hypot(index[0] - stem[0], index[1] - stem[1])
    under = _step(low + 2 - index[2], 0.5)
    paint("bone", under * _step(16 - canal, 1) * _step(texture + 0.5, 0.3))
    paint("fluid", under * _step(10 - canal, 0.7))
    cord = under * _step(6 - canal, 0.7)
    for modality, image in images.items():
        image[:] += (level[modality] * 0.9 - image) * cord
    # what lies directly around the brain
    paint("fluid", _step(inner - out, 0.7))
    paint("dura", 0.8 * _step(0.7 - np.abs(out - inner), 0.3))
    sinus = np.hypot(x / 1.3, out - inner - 1.5)
    paint("vein", _step(4.5 - sinus, 0.7) * vault * (y < 60))
    side = np.hypot((z + 24 + 0.15 * np.abs(x)) / 1.3, out - inner - 1.5)
    paint("vein", _step(4 - side, 0.7) * (y < -40))

    rough = ndimage.gaussian_filter(rng.standard_normal(mask.shape).astype(np.float32), 0.8 / step) * 3
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.35 / step)
    soft = np.where(mask, np.maximum(soft, 0.75), np.minimum(soft, 0.25))
    coil = np.exp(_at(np.clip(field(70, 0, 0.12) + 0.25 * np.exp(-np.clip(depth, 0, None) / 25), -0.5, 0.6),
                      mask.shape, step / _COARSE))  # fmt: skip
    coil_mean = coil[mask].mean()
    drawn = rng.standard_normal((2, *mask.shape)).astype(np.float32)
    heads = {}
    for modality, brain in brains.items():
        whole = _at(images[modality], mask.shape, step / _COARSE)
        whole *= 1 + 0.05 * rough * (whole > 3 * bright[modality]["air"])
        inside = ndimage.maximum_filter(np.where(mask, brain, 0), 3) * ~mask + brain
        head = (whole * (1 - soft) + inside * soft) * coil / coil_mean
        noise = 0.02 * level[modality] * drawn
        heads[modality] = np.hypot(head + noise[0], noise[1]).astype(np.float32)
    return heads, mask, tuple(p[0] for p in pads)


def _places(mask: np.ndarray) -> np.ndarray:
    """MNI mm of each voxel of the coarse lattice, by the brain's bounding box: top, front, back, middle."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    scale = 178 / ((box[1].stop - box[1].start) * _COARSE)
    at = np.indices(mask.shape, np.float32) * _COARSE * scale
    x = at[0] - (box[0].start + box[0].stop - 1) / 2 * _COARSE * scale
    y = at[1] - (box[1].stop - 1) * _COARSE * scale + 72
    z = at[2] - (box[2].stop - 1) * _COARSE * scale + 80
    return np.stack([x, y, z])


class _Fields:
    """Smooth random fields: mean and deviation as asked, of blobs of some mm."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]):
        self.rng, self.shape = rng, shape

    def __call__(self, size: float, mean: float, deviation: float) -> np.ndarray:
        nodes = tuple(max(4, int(n * _COARSE / size) + 3) for n in self.shape)
        values = self.rng.standard_normal(nodes).astype(np.float32)
        place = np.stack(np.meshgrid(*(np.linspace(0, n - 1, m) for n, m in zip(nodes, self.shape)), indexing="ij"))
        values = ndimage.map_coordinates(values, place.astype(np.float32), order=2, mode="nearest")
        return (mean + deviation * values / values.std()).astype(np.float32)


def _at(image: np.ndarray, shape: tuple[int, ...], ratio: float) -> np.ndarray:
    """`image` at indices ratio * (0, 1, ...), linear, after averaging where that skips voxels."""
    if ratio > 1:
        image = ndimage.uniform_filter(image, round(ratio))
    return ndimage.affine_transform(image, np.full(3, ratio), output_shape=shape, order=1, mode="nearest")


def _far(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, sampling=_COARSE).astype(np.float32)


def _grow(mask: np.ndarray, mm: float) -> np.ndarray:
    return _far(mask) <= mm


def _step(value: np.ndarray, width: float) -> np.ndarray:
    return 0.5 * (1 + np.tanh(value / width))
