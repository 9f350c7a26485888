"""Raw input stored in any order of its axes: the same case comes of it, and the same result goes back, bit for bit.

The oracle is nibabel's turning of arrays and affines. Registration, which takes nearly all of the time, is run once
for each image: what it is given is the same to the last bit in every order, or the test fails there.
"""

import itertools

import nibabel as nib
import numpy as np
from raw_heads import grid_of, make_heads, make_raw, register_once
from raw_heads import turned as rigid
from segmamba.cases.case import Source
from segmamba.images.image_io import Image
from segmamba.preparation import plan, run
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.run import prepare

ORDERS = [
    np.stack([axes, flips], 1).astype(float)
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
]


def turned(array, order):
    return np.ascontiguousarray(nib.orientations.apply_orientation(array, order))


def stored(image, order):
    """The same image with its axes in another order and direction."""
    affine = image.affine @ nib.orientations.inv_ornt_aff(order, image.array.shape)
    return Image(turned(image.array, order), affine)


def raw():
    """Four images on four grids, and a brain mask, in a frame whose numbers are not round in binary."""
    world = rigid(np.zeros(3), 5, 1 / 3)
    images, mask = make_raw()[0], make_heads().mask
    return {m: Image(i.array, world @ i.affine) for m, i in images.items()}, Image(mask.array, world @ mask.affine)


def test_all_48_orders_of_the_axes_give_the_same_case_and_the_same_result(monkeypatch):
    monkeypatch.setattr(run, "register", register_once(registered := {}, most=3))
    monkeypatch.setattr(plan, "WORKING_MM", 2.0)  # a coarser grid, for speed
    images, mask = raw()
    sources, rng = {m: Source(f"{m}.nii") for m in images}, np.random.default_rng(3)
    expected = prepare(images, sources, "case", mask=mask)
    assert all(np.ptp(image) > 0 for image in expected.case.images.values())
    result = rng.random((2, *expected.case.shape), np.float32)
    back = {m: expected.back(result, m) for m in images}
    others = [m for m in images if m != "t1c"]
    for order, other in zip(ORDERS, itertools.cycle(others)):
        # T1c in each order; another, each in its turn, and the mask in any
        orders = {"t1c": order, other: ORDERS[rng.integers(48)]}
        given = {m: stored(images[m], orders[m]) for m in orders}
        done = prepare(given, sources, "case", mask=stored(mask, ORDERS[rng.integers(48)]))
        np.testing.assert_array_equal(done.mask, turned(expected.mask, order))
        shares = np.stack([turned(channel, order) for channel in result])
        for modality in orders:
            np.testing.assert_array_equal(done.case.images[modality], turned(expected.case.images[modality], order))
            np.testing.assert_array_equal(done.transforms[modality], expected.transforms[modality])
            for channel, truth in zip(done.back(shares, modality), back[modality], strict=True):
                np.testing.assert_array_equal(channel, turned(truth, orders[modality]))
    assert len(registered) == 3


def test_all_48_orders_of_thick_slices_make_the_same_pyramid():
    """With an odd number of slices, and more voxels than one in each block."""
    heads = make_heads()
    affine = grid_of((6.0, 0.6, 0.9), "LAS", 9).affine
    image = Image(heads.images["t2f"][::3, :41, :21], affine)
    expected = make_levels(image.array, affine)
    for order in ORDERS:
        other = stored(image, order)
        for one, two in zip(expected, make_levels(other.array, other.affine), strict=True):
            np.testing.assert_array_equal(one.grid.affine, two.grid.affine)
            np.testing.assert_array_equal(one.array, two.array)
            np.testing.assert_array_equal(one.head, two.head)
