"""One image in, its brain mask out, or an error that says what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmamba.errors import Cancelled, InputError
from segmamba.preparation.brain import atlas, external
from segmamba.preparation.brain.head import find_head, layering
from segmamba.preparation.brain.lattice import in_order, to_work

METHODS = ("auto", "atlas", *external.TOOLS)
QUALITY = 0.18  # least; heads have 0.27 to 0.67, balls, cylinders and noise 0.01 to 0.11

_SMALLEST_ML, _LARGEST_ML = 700, 2000  # of an adult's brain; a child's of one year has 900
_STEP = 2.0  # mm
_CUT_ML = 1.0  # of something bright; less is no tumour worth a look
_WAY_OUT = (
    "give a brain mask, or install HD-BET (pip install hd-bet) and try again; an image without its skull needs no "
    "brain extraction"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrainMask:
    """The brain of an image, and how it was found."""

    mask: np.ndarray
    """(X, Y, Z) bool, on the image's grid."""
    method: str
    """Which of METHODS made it."""
    quality: float
    """0 to 1, how clearly skull and scalp lie around it (`brain.head.layering`); a result below QUALITY is refused."""
    seconds: dict[str, float]
    """Of each step."""
    notes: tuple[str, ...]
    """Plain words for the user."""


def brain_mask(
    image: np.ndarray,
    affine: np.ndarray,
    *,
    modality: str = "t1c",
    method: str = "auto",
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> BrainMask:
    """The brain in a head. The same on every run, and for every way to store the image.

    Args:
        image: (X, Y, Z), a head with its skull on.
        affine: (4, 4), voxel indices to RAS mm.
        modality: t1n, t1c, t2w or t2f; for messages: no method needs to know it.
        method: "atlas", "hd-bet", "synthstrip", or "auto": the first of HD-BET and SynthStrip that is installed and
            works, else the atlas.
        progress: told each step in words.
        cancelled: asked before each step.

    Returns:
        The brain on the grid of the image.

    Raises:
        InputError: where the image is no head or the result no brain.
        Cancelled: where `cancelled` said so.
    """
    if method not in METHODS:
        raise InputError(f"brain extraction method {method!r}: expected one of {', '.join(METHODS)}")
    image, affine = np.asarray(image), np.asarray(affine, float)
    what = f"brain extraction from {modality}"
    _check(what, image, affine)
    steps = _Steps(what, progress, cancelled)
    steps.begin("Finding the head")
    turned, upright, _ = in_order(image, affine)
    work = to_work(turned, upright, _STEP)
    head = find_head(what, work)
    mask, chosen, notes = _extract(method, image, affine, modality, steps)
    steps.begin("Checking the brain mask")
    turned, _, _ = in_order(mask, affine)
    on_work = to_work(turned.astype(np.float32), upright, _STEP).values > 0.5
    quality = layering(work, head, on_work) if on_work.any() else 0.0
    steps.end()
    _judge(what, mask, affine, quality)
    return BrainMask(mask, chosen, quality, steps.seconds, notes)


def _extract(
    method: str, image: np.ndarray, affine: np.ndarray, modality: str, steps: _Steps
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """-> mask, the method that made it, notes."""
    notes: tuple[str, ...] = ()
    key = external.find() if method == "auto" else method
    if key in external.TOOLS:
        name = external.TOOLS[key].name
        steps.begin(f"Brain extraction with {name}")
        try:
            return external.run(key, image, affine, steps.cancelled), key, (f"Brain mask by {name}.",)
        except InputError as error:
            if method != "auto":
                raise
            _log.warning("%s; the atlas is used instead", error)
            notes = (f"{name} is installed but failed, so the atlas was used: {error}",)
    mask, cut_ml = atlas.extract(steps.what, image, affine, steps.begin)
    notes += ("Brain mask by the MNI152 atlas.",)
    if modality == "t1c" and cut_ml >= _CUT_ML:  # elsewhere fluid or fat is as bright
        notes += (
            f"{cut_ml:.1f} mL of something bright at the brain's surface are not in the brain mask: it may be "
            "enhancing tumor that was cut off; look at the mask before relying on the result, or give a brain mask.",
        )
    return mask, "atlas", notes


def _check(what: str, image: np.ndarray, affine: np.ndarray) -> None:
    if image.ndim != 3 or min(image.shape) < 2:
        raise InputError(f"{what}: an image of shape {image.shape}; expected (X, Y, Z)")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{what}: the affine is not an invertible 4 x 4 matrix; give the image's own")
    if not np.isfinite(image).all():
        raise InputError(f"{what}: the image has values that are not numbers; export it again")
    if image.min() == image.max():
        raise InputError(f"{what}: the image is {image.min():g} everywhere; expected a head: choose another series")
    extent = np.linalg.norm(affine[:3, :3], axis=0) * image.shape
    if extent.min() < 80 or extent.max() > 1000:
        size = " x ".join(f"{mm:.0f}" for mm in extent)
        raise InputError(
            f"{what}: the field of view is {size} mm; expected a whole brain, 100 mm and more each way: choose another "
            "series, or give a brain mask"
        )


def _judge(what: str, mask: np.ndarray, affine: np.ndarray, quality: float) -> None:
    volume = float(mask.sum()) * abs(np.linalg.det(affine[:3, :3])) / 1000
    if not _SMALLEST_ML <= volume <= _LARGEST_ML:
        raise InputError(
            f"{what} failed: the brain it found has {volume:.0f} mL, expected {_SMALLEST_ML} to {_LARGEST_ML} of an "
            f"adult; {_WAY_OUT}"
        )
    sizes = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
    if sizes.max() < 0.9 * sizes.sum():
        raise InputError(
            f"{what} failed: the brain it found lies in {len(sizes)} pieces, of which the largest has "
            f"{100 * sizes.max() / sizes.sum():.0f} % of it; {_WAY_OUT}"
        )
    if quality < QUALITY:
        raise InputError(
            f"{what} failed: what lies around the brain it found does not look like skull and scalp (quality "
            f"{quality:.2f}, expected at least {QUALITY}); {_WAY_OUT}"
        )


class _Steps:
    """Times the steps, tells each, and asks before each whether to go on."""

    def __init__(self, what: str, progress: Callable[[str], None] | None, cancelled: Callable[[], bool] | None):
        self.seconds: dict[str, float] = {}
        self.cancelled = cancelled
        self.what = what
        self._progress = progress
        self._open = None

    def begin(self, text: str) -> None:
        self.end()
        if self.cancelled and self.cancelled():
            raise Cancelled(f"{self.what} was cancelled")
        if self._progress:
            self._progress(text)
        self._open = (text, time.perf_counter())

    def end(self) -> None:
        if self._open:
            text, start = self._open
            self.seconds[text] = round(time.perf_counter() - start, 2)
            _log.info("%s: %.1f s", text, self.seconds[text])
            self._open = None
