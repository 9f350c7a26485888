"""Images in any orientation, tilt and spacing, whose values tell where in the world they lie."""

import nibabel as nib
import numpy as np
from segmamba.cases.case import Case
from segmamba.models.specs import PreprocessSpec

SHAPE = (14, 19, 11)
UPRIGHT = np.eye(3)
TILT = nib.eulerangles.euler2mat(0.15, -0.1, 0.2)


def make_affine(codes="RAS", spacing=(1, 1, 1), tilt=UPRIGHT, offset=(-31.0, 12.0, 5.5)):
    """Voxel indices to RAS mm for axes along `codes`, `spacing` mm an axis, then turned by `tilt`."""
    affine = np.eye(4)
    for column, (code, step) in enumerate(zip(codes, spacing)):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[:3, column] = tilt[:, row] * step * (1 if code in "RAS" else -1)
    affine[:3, 3] = offset
    return affine


def world(shape, affine):
    """(3, *shape): RAS mm of every voxel centre."""
    indices = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ indices + affine[:3, 3:]).reshape(3, *shape)


def wave(shape, affine):
    """A smooth function of the place in the world, with another period along each direction."""
    x, y, z = world(shape, affine)
    return (np.sin(x / 11) + 0.7 * np.cos(y / 13 + 0.4) + 0.5 * np.sin(z / 9 - 1) + 0.02 * x - 0.03 * y).astype(
        np.float32
    )


def ramp(shape, affine):
    """A linear function of the place in the world, which linear interpolation must keep exactly."""
    x, y, z = world(shape, affine)
    return (3 + 0.02 * x - 0.03 * y + 0.05 * z).astype(np.float32)


def make_case(images, affine):
    images = images if isinstance(images, dict) else {"t1c": images}
    return Case("test", images, affine, {}, ())


def make_spec(**changes):
    return PreprocessSpec(**{"modalities": ("t1c",), "crop": "none", **changes})


def noise(shape=SHAPE, seed=0, border=0):
    """Random positive voxels, with `border` zero voxels on each side."""
    image = np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)
    if border:
        inner = (slice(border, -border),) * 3
        image = np.pad(image[inner], border)
    return image


def interior(array, rim):
    return array[..., rim:-rim, rim:-rim, rim:-rim]
