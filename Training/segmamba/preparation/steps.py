"""The single steps of preparing a case, each with a record of what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from nibabel.affines import apply_affine

from segmamba.errors import InputError
from segmamba.images.image_io import Image
from segmamba.preparation.grids import Grid, resample
from segmamba.preparation.pyramid import Level
from segmamba.preparation.register import Registration

_BRAIN_ML = (300.0, 2500.0)  # what is left of a brain in a slab of slices, and more than there is in any head
_IN_HEAD = 0.5  # of a given mask
_COVERED = 0.98  # of the brain, by every image

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Step:
    """What was done."""

    kind: str
    """As in the plan."""
    text: str
    """Plain words."""
    seconds: float
    """That it took."""
    modality: str = ""
    """Of the image that it was done to; "" for the brain and the grid."""
    values: Mapping[str, object] = field(default_factory=dict)
    """What was measured, plain data."""

    def as_json(self) -> dict:
        """The step as plain JSON."""
        modality = {"modality": self.modality} if self.modality else {}
        return {"kind": self.kind, **modality, "text": self.text, "seconds": round(self.seconds, 2), **self.values}


def onto(grid: Grid, image: Image) -> np.ndarray:
    """An image on a grid in its own space, float32; the very same values where that is the grid that it is on."""
    if Grid(image.array.shape, image.affine).is_on(grid):
        return np.asarray(image.array, np.float32)
    return resample(image.array, image.affine, grid)


def take_mask(mask: Image, grid: Grid, head: Level, name: str) -> tuple[np.ndarray, Step]:
    """A brain mask that was given, brought onto the working grid.

    Args:
        mask: anything above 0 is brain.
        grid: the working grid.
        head: of the image that the mask belongs to.
        name: of that image, for texts.

    Returns:
        (X, Y, Z) bool on `grid`, and the step.

    Raises:
        InputError: for one that is no mask of a brain in that image.
    """
    begin = time.perf_counter()
    inside = np.asarray(mask.array) > 0
    share = resample(inside, mask.affine, head.grid) > 0.5
    if not share.any():
        raise InputError(f"the brain mask holds nothing within {name}; give a mask in the space of {name}")
    if np.count_nonzero(share & head.head) < _IN_HEAD * np.count_nonzero(share):
        raise InputError(f"the brain mask lies outside the head of {name}; give a mask in the space of {name}")
    brain = resample(inside, mask.affine, grid) > 0.5
    volume = _volume_ml(brain, grid)
    _check_volume(volume, "the brain mask that was given")
    step = Step("brain", f"the brain mask that was given, {volume:.0f} mL", time.perf_counter() - begin)
    return brain, Step(step.kind, step.text, step.seconds, values={"method": "given", "volume_ml": round(volume, 1)})


def find_brain(
    image: np.ndarray, grid: Grid, modality: str, name: str, progress: Progress, cancelled: Callable[[], bool]
) -> tuple[np.ndarray, Step, tuple[str, ...]]:
    """The brain in an image with the skull on.

    Args:
        image: (X, Y, Z), on `grid`.
        grid: the working grid.
        modality: of the image.
        name: of the image, for texts.
        progress: called with the fraction done, 0 to 1.
        cancelled: asked between steps.

    Returns:
        (X, Y, Z) bool, the step, and notes for the user.

    Raises:
        InputError: where none can be found.
        Cancelled: where `cancelled` said so.
    """
    from segmamba.preparation.brain import brain_mask

    begin, left = time.perf_counter(), 1.0

    def report(_text: str) -> None:  # how many steps there will be is not known
        nonlocal left
        left *= 0.8
        progress(1 - left)

    found = brain_mask(image, grid.affine, modality=modality, progress=report, cancelled=cancelled)
    volume = _volume_ml(found.mask, grid)
    _check_volume(volume, f"what was found as the brain in {name}")
    values = {"method": found.method, "quality": round(float(found.quality), 3), "volume_ml": round(volume, 1)}
    text = f"brain of {name} found, {volume:.0f} mL ({found.method})"
    step = Step("brain", text, time.perf_counter() - begin, values=values)
    return np.asarray(found.mask, bool), step, tuple(found.notes)


def registered(modality: str, name: str, found: Registration, left_alone: bool) -> Step:
    """The step of a registration, in words.

    Args:
        modality: of the image that was registered.
        name: of that image, for texts.
        found: the registration.
        left_alone: it was aligned already, and was not interpolated.

    Returns:
        The step, with its numbers.
    """
    text = f"{name} registered: {found.moved_mm:.1f} mm away before, aligned after"
    if left_alone:
        text = f"{name} is aligned already (within {found.moved_mm:.1f} mm): left as it is"
    return Step("register", text, found.seconds, modality, {**found.as_json(), "left_alone": left_alone})


def coverage(name: str, own: Grid, transform: np.ndarray, grid: Grid, brain: np.ndarray) -> tuple[str, ...]:
    """A note where a registered image misses a part of the brain.

    Args:
        name: of the image, for the text.
        own: the grid that it came on.
        transform: (4, 4), its space to that of `grid`, RAS mm.
        grid: the working grid.
        brain: (X, Y, Z) bool on `grid`.

    Returns:
        One sentence, or () where all of the brain is shown.
    """
    points = np.argwhere(brain)
    points = apply_affine(grid.affine, points[:: max(1, len(points) // 20000)])
    at = apply_affine(np.linalg.inv(own.affine) @ np.linalg.inv(transform), points)
    covered = float(np.all((at >= -0.5) & (at <= np.array(own.shape) - 0.5), axis=1).mean()) if len(at) else 1.0
    if covered >= _COVERED:
        return ()
    return (f"{name} shows {covered:.0%} of the brain: where it is missing the result is not to be relied on",)


def _volume_ml(mask: np.ndarray, grid: Grid) -> float:
    return float(np.count_nonzero(mask) * np.prod(grid.spacing) / 1000)


def _check_volume(volume: float, what: str) -> None:
    low, high = _BRAIN_ML
    if not low <= volume <= high:
        raise InputError(
            f"{what} has {volume:.0f} mL, expected {low:.0f} to {high:.0f} for a brain; give a brain mask "
            "(--brain-mask FILE), or images that are skull-stripped"
        )
