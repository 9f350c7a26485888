"""Raw images to a `Case` on one grid, and what comes of it back to the grids that the images were taken on."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmamba.cases.case import Case, Source
from segmamba.errors import Cancelled, InputError
from segmamba.images.grid import describe_grid
from segmamba.images.image_io import Image
from segmamba.preparation.grids import Grid, resample
from segmamba.preparation.plan import Plan, make_plan, title
from segmamba.preparation.register import register
from segmamba.preparation.steps import Progress, Step, coverage, find_brain, onto, registered, take_mask

log = logging.getLogger(__name__)

_ROUNDING = 0.01  # of shares of a voxel
_LEFT_ALONE_MM = 0.5  # an image on the right grid that would be moved by less is not interpolated
_WEIGHTS = {"grid": 0.2, "brain": 6.0, "outside": 0.2, "register": 3.0}  # rough seconds, for the progress


@dataclass(frozen=True, eq=False)
class Prepared:
    """The images of a case after preparation."""

    case: Case
    """On the working grid."""
    transforms: dict[str, np.ndarray]
    """Modality -> (4, 4), a point of that image's space to the same point in the reference's, RAS mm."""
    mask: np.ndarray | None
    """(X, Y, Z) bool on the working grid, the brain, or None where the images came without skull."""
    steps: tuple[Step, ...]
    """What was done, in order."""
    grids: dict[str, Grid]
    """Modality -> the grid that the image came on."""
    reference: str
    """The modality that the others were registered onto."""

    def back(self, values: np.ndarray, modality: str | None = None) -> np.ndarray:
        """Maps on the case's grid -> float32 on the grid of one of the images, by linear interpolation.

        (K, X, Y, Z) probabilities, background first, or one map (X, Y, Z). modality: whose grid; default: the
        reference.

        A voxel larger than the case's gets the mean over its extent. Off the case's grid there is background.
        Raises InputError for a modality that the case does not have.
        """
        modality = modality or self.reference
        if modality not in self.grids:
            raise InputError(f"no image {modality} to bring the result onto; there are {', '.join(self.grids)}")
        grid, working = self.grids[modality], Grid(self.case.shape, self.case.affine)
        transform = np.linalg.inv(self.transforms[modality])
        if grid.is_on(working) and np.array_equal(transform, np.eye(4)):
            return values
        if values.ndim == 3:
            return resample(values, working.affine, grid, transform)
        result = np.stack([resample(channel, working.affine, grid, transform) for channel in values])
        result[0] += np.maximum(1 - result.sum(0), 0)
        return result


def prepare(
    images: Mapping[str, Image],
    sources: Mapping[str, Source],
    case_id: str,
    plan: Plan | None = None,
    *,
    mask: Image | None = None,
    own_grid: bool = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Prepared:
    """Registers raw images, cuts out the brain, and brings all onto one grid.

    An image is interpolated once at the most, and linearly: a spline overshoots beside the edge of a brain, and N4
    (preparation.bias) takes no negative values. The same images give the same case, whatever the number of threads.

    Args:
        images: modality -> image, each on its own grid.
        sources: where they came from.
        case_id: the case's name in texts.
        plan: what to do; None: what `make_plan` finds.
        mask: a brain mask in the space of the reference (T1c), on any grid.
        own_grid: the case lies on the grid that the reference came on, however thick its slices, and not on the plan's,
            on which the brain and the way of each image are found all the same: label maps that were drawn on the
            reference fit it as they are.
        progress: called with the fraction done, 0 to 1.
        cancelled: asked between steps.

    Returns:
        The case on one grid, with the way back for results.

    Raises:
        InputError: where an image cannot be registered, or the brain cannot be found.
        Cancelled: where `cancelled` said so.
    """
    plan = plan or make_plan(images, brain_given=mask is not None)
    stop = cancelled or (lambda: False)
    parts = _parts(plan, progress or (lambda fraction: None), stop)
    reference = plan.reference
    grid = plan.grid
    name = title(plan.reference)
    grids = {m: Grid(image.array.shape, np.asarray(image.affine, float)) for m, image in images.items()}
    transforms = {m: np.eye(4) for m in images}
    notes = [note for image in images.values() for note in image.notes]
    steps: list[Step] = []

    begin = time.perf_counter()
    worked_on = onto(grid, images[reference])
    if plan.has("grid"):
        next(parts)
        where = describe_grid(grid.shape, grid.affine)
        text = f"looked at on {where}, kept on the grid of {name}" if own_grid else f"{name} brought onto {where}"
        steps.append(Step("grid", text, time.perf_counter() - begin, values={"shape": list(grid.shape)}))
    shown = images[plan.brain_of or reference]
    brain = _brain(onto(grid, shown), plan, mask, parts, stop, steps, notes)
    if plan.brain_of:
        steps += [Step("outside", a.why, 0.0, a.modality) for a in plan.actions if a.kind == "outside" and next(parts)]
    within = None
    if brain is not None:
        within = [resample(brain, grid.affine, level.grid) > 0.5 for level in plan.levels[reference]]
    arrays = {reference: worked_on}
    if own_grid and not grids[reference].is_on(grid):
        arrays = {reference: onto(grids[reference], images[reference])}
        brain = _on_own_grid(brain, grid, grids[reference], plan, mask, shown.array)
        grid = grids[reference]

    for modality in (m for m in images if m != reference):
        if modality not in plan.to_register:
            arrays[modality] = onto(grid, images[modality])
            continue
        levels = plan.levels[reference], plan.levels[modality]
        found = register(*levels, within=within, progress=next(parts), cancelled=stop)
        found.check(title(modality), name)
        begin = time.perf_counter()
        left_alone = grids[modality].is_on(grid) and found.moved_mm < _LEFT_ALONE_MM
        if left_alone:
            arrays[modality] = onto(grid, images[modality])
        else:
            transforms[modality] = found.transform
            arrays[modality] = resample(images[modality].array, images[modality].affine, grid, found.transform)
            covered = arrays[reference] != 0 if brain is None else brain
            notes += coverage(title(modality), grids[modality], found.transform, grid, covered)
        found = replace(found, seconds=found.seconds + time.perf_counter() - begin)
        steps.append(registered(modality, title(modality), found, left_alone))
    if stop():
        raise Cancelled
    if brain is not None:
        if not plan.has("brain"):
            brain &= ~_rim(images, transforms, grid)
        arrays = {m: np.where(brain, array, np.float32(0)) for m, array in arrays.items()}
    for step in steps:
        log.info("%s", step.text)
    case = Case(case_id, {m: arrays[m] for m in images}, grid.affine, dict(sources), tuple(notes))
    return Prepared(case, transforms, brain, tuple(steps), grids, reference)


def _brain(
    image: np.ndarray,
    plan: Plan,
    mask: Image | None,
    parts: Iterator[Progress],
    stop: Callable[[], bool],
    steps: list[Step],
    notes: list[str],
) -> np.ndarray | None:
    """Where the brain is in `image` on the working grid, of the reference or of plan.brain_of, and how that was found.

    Without a skull it is what `image` shows: the same for images that were cut out each by itself.
    """
    name, head = title(plan.reference), plan.levels[plan.reference][1]
    if not plan.has("brain"):
        return _shown(image) if plan.needed else None
    if mask is not None:
        next(parts)
        brain, step = take_mask(mask, plan.grid, head, name)
    else:
        brain, step, found = find_brain(image, plan.grid, plan.reference, name, next(parts), stop)
        notes += found
    steps.append(step)
    return brain


def _shown(image: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: where an image without skull shows a brain, with its holes, for fluid may be 0 in it."""
    return ndimage.binary_fill_holes(np.asarray(image) != 0)


def _rim(images: Mapping[str, Image], transforms: Mapping[str, np.ndarray], grid: Grid) -> np.ndarray:
    """(X, Y, Z) bool on `grid`: where an interpolated image takes a part of its value from outside of its brain.

    For images that were cut out already. There they are darker than any tissue, where slices are thick in a quarter of
    all that is not 0: the z-scores would be off by as much as tissues differ. Where one image shows nothing at all, for
    it was taken of a part of the brain, the others stay.
    """
    rim = np.zeros(grid.shape, bool)
    for modality, image in images.items():
        own = Grid(image.array.shape, np.asarray(image.affine, float))
        if own.is_on(grid) and np.array_equal(transforms[modality], np.eye(4)):
            continue
        share = resample(~_shown(image.array), image.affine, grid, transforms[modality])
        rim |= (share > _ROUNDING) & (share < 1 - _ROUNDING)
    return rim


def _on_own_grid(
    brain: np.ndarray | None, grid: Grid, own: Grid, plan: Plan, mask: Image | None, image: np.ndarray
) -> np.ndarray | None:
    """`brain`, found on `grid`, on the grid of the reference, on which `image` is: voxels of which half are brain."""
    if brain is None or not plan.has("brain"):
        return None if brain is None else _shown(image)
    if mask is not None:
        return resample(np.asarray(mask.array) > 0, mask.affine, own) > 0.5
    return resample(brain, grid.affine, own) > 0.5


def _parts(plan: Plan, report: Progress, stop: Callable[[], bool]) -> Iterator[Progress]:
    """For each action of the plan a progress from 0 to 1 of its own, and a chance to stop."""
    weights = [_WEIGHTS[action.kind] for action in plan.actions]
    ends = list(itertools.accumulate(weights))
    for end, weight in zip(ends, weights):
        if stop():
            raise Cancelled
        start = (end - weight) / ends[-1]
        report(start)
        yield lambda fraction, start=start, share=weight / ends[-1]: report(start + share * fraction)
