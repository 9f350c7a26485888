"""Brain extraction with the MNI152 template, from a pose of the head to its brain's edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from segmamba.errors import InputError
from segmamba.preparation.bias import correct_bias
from segmamba.preparation.brain.head import find_head
from segmamba.preparation.brain.lattice import WorkImage, back_in_order, from_work, in_order, to_work
from segmamba.preparation.brain.pose import PoseSearch
from segmamba.preparation.brain.refine import refine
from segmamba.preparation.brain.template import load_template
from segmamba.preparation.brain.warp import carry, fit_affine

STEP = 2.0  # mm of the working lattice
FIT = 0.2  # least score of the pose; heads have 0.22 (T2) to 0.29, heads that lie upside down 0.15 to 0.18
_FAR = 40.0  # mm
_SHARE = 0.45  # Dice as with 0.5, and a fifth less of the brain missed: a rim too much is better than a tumour cut
_OPEN, _CLOSE = 4.5, 5.0  # mm
_BRIGHT = 1.5  # times the brain: beyond white matter, as enhancing tumour, fat and sinuses are
_KEPT = 0.2  # share of a bright piece in the mask from which the rest of it was cut off; of sinuses hardly any is


def extract(what: str, image: np.ndarray, affine: np.ndarray, begin: Callable[[str], None]) -> tuple[np.ndarray, float]:
    """The brain in a head, by the MNI152 atlas laid over it.

    Args:
        what: is done, such as "brain extraction from t1c"; errors begin with it.
        image: (X, Y, Z), a head with its skull on.
        affine: (4, 4), voxel indices to RAS mm.
        begin: told each step in words; what it raises ends the search.

    Returns:
        (X, Y, Z) bool, and the mL of `bright_cut`.

    Raises:
        InputError: where the template fits nowhere.
    """
    begin("Reading the MNI152 template")
    template = load_template()
    begin("Evening out the brightness")
    turned, upright, orientation = in_order(image, affine)
    work = to_work(turned, upright, STEP)
    head = find_head(what, work)
    even = correct_bias(np.where(head, np.maximum(work.values, 0), 0), (STEP,) * 3)
    work = WorkImage(np.where(head, even, work.values), work.seen, work.origin, STEP)
    begin("Laying the template over the head")
    pose = PoseSearch(template, work, head).search()[0]
    if pose.score < FIT:
        raise InputError(
            f"{what} failed: the template of a head fits with {pose.score:.2f}, expected at least {FIT}; check that "
            "the image is a whole head and lies as its affine says, not upside down; or give a brain mask"
        )
    begin("Fitting the template")
    fitted = fit_affine(template, work, float(np.percentile(work.values[head], 97)), pose)
    depth = np.maximum(carry(template.depth, template, work, fitted.GetInverse(), -_FAR), -_FAR)
    begin("Following the brain's edge")
    share = refine(work, depth)
    found = tidy(share > _SHARE, STEP)
    edge = share - _SHARE
    edge = np.where(found, np.maximum(edge, 0.01), np.minimum(edge, -0.01))
    mask = from_work(edge, work, turned.shape, upright) > 0
    return back_in_order(mask, orientation), bright_cut(work, depth, found)


def bright_cut(work: WorkImage, depth: np.ndarray, found: np.ndarray) -> float:
    """mL of the largest part that a mask leaves of something brighter than brain at the brain's surface.

    What is as bright as fat is taken for it to some mm below the surface, and an enhancing tumour may be. It is told
    from fat and sinuses by the part of it that lies deeper, in the mask.

    Args:
        work: the image on its lattice.
        depth: mm inside the template's surface, on that lattice.
        found: the mask, bool, on that lattice.

    Returns:
        mL, 0 where there is none.
    """
    level = float(np.median(work.values[(depth > 5) & work.seen]))
    pieces, count = ndimage.label((depth > 0) & work.seen & (work.values > _BRIGHT * level))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    kept = np.bincount(pieces[found], minlength=count + 1)[1:]
    cut = (sizes - kept)[kept >= _KEPT * sizes]
    return float(cut.max(initial=0)) * work.step**3 / 1000


def tidy(mask: np.ndarray, step: float) -> np.ndarray:
    """One piece without thin bridges to what lies beside it; sulci, and gaps in the surface, are filled."""
    pieces, count = ndimage.label(ndimage.distance_transform_edt(mask, sampling=step) > _OPEN)
    if not count:
        return mask
    core = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    opened = (ndimage.distance_transform_edt(~core, sampling=step) < _OPEN + step) & mask
    margin = int(np.ceil(_CLOSE / step)) + 2
    padded = np.pad(opened, margin)
    grown = ndimage.distance_transform_edt(~padded, sampling=step) <= _CLOSE
    closed = padded | (ndimage.distance_transform_edt(grown, sampling=step) > _CLOSE)
    return ndimage.binary_fill_holes(closed)[(slice(margin, -margin),) * 3]
