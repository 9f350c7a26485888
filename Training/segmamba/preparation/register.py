"""Rigid registration of one image of a head onto another of the same head.

Mattes mutual information (Mattes et al., IEEE TMI 22, 2003) of SimpleITK over a pyramid of voxels of 8, 4 and 2 mm.
At 8 mm many starts are tried, the best are climbed from, and the best of those climb on. Every image is turned
upright first, so that the order and the directions of its stored axes play no part. One thread and one fixed seed:
the same images give the same result.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine
from scipy import ndimage

from segmamba.errors import Cancelled, InputError
from segmamba.preparation.grids import resample, to_itk, to_matrix
from segmamba.preparation.pyramid import LEVELS_MM, Level

_SAMPLED = (1.0, 1.0, 0.15)  # share of the voxels of each level that the measure is taken over
_FIRST_STEP_MM = (4.0, 1.0, 0.5)
_LAST_STEP_MM = (0.05, 0.01, 0.005)
_ITERATIONS = (60, 60, 60)
_SEED = 20231
_BINS = 32
_TURNS = (-20.0, 0.0, 20.0)  # degrees about each axis, all combinations
_FAR_TURNS = (-40.0, 40.0)  # about one axis only
_CLIMBS = (10, 3, 1)  # from how many starts, at each level
_APART_MM = 8.0  # starts that are nearer to one another are one
_RADIUS_MM = 60.0  # a turn by 1 radian weighs as much as a shift by this: the mean distance to the head's centre
_CROWN_MM = 150.0  # brain and skull from the top of the head down: a long neck draws the centre of mass away
_RIM_MM = 8.0  # of air around the head
# Skull and scalp move with the brain, and guide: T2w onto T1c in thick slices, heads simulated around real brains, was
# off by 3 to 5 mm with 2 or 4 mm around the brain, by 0.1 to 0.3 mm with 16
_AROUND_BRAIN_MM = 16.0
_AGREE_MM = 3.0
# Known moves of real brains have a quality of 0.36 and more, and 5 and more of 10 starts agree; of heads turned over it
# is 0.25 and less, and none or one agrees
_LEAST_QUALITY = 0.3
_LEAST_AGREEING = 2
_LEAST_SEEN = 0.3
_TRIAL_MM, _TRIAL_DEGREES = 8.0, 10.0


@dataclass(frozen=True, eq=False)
class Registration:
    """A rigid registration, and how well the images fit."""

    transform: np.ndarray
    """(4, 4), a point of the moving image to the same point of the head in the fixed one, RAS mm."""
    quality: float
    """By how much the mutual information falls, as a share of it, when the image is moved away by 8 mm or 10 degrees:
    near 1 on a sharp peak, near 0 where no place is better than another."""
    information: float
    """Mutual information of the two images, in nats."""
    overlap: float
    """Dice of the two heads where both images see."""
    seen: float
    """Share of the fixed head that the moving image covers."""
    agreeing: int
    """Of the climbs at the coarsest level, how many ended within 3 mm of the result."""
    starts: int
    """How many of these climbs there were."""
    moved_mm: float
    """Mean over the fixed head of how far the transform moves a point."""
    seconds: float = 0.0
    """That it took."""

    @property
    def problem(self) -> str | None:
        """Why the result is not to be trusted, in plain words, or None."""
        if self.seen < _LEAST_SEEN:
            return f"it shows only {self.seen:.0%} of the head"
        if self.quality < _LEAST_QUALITY:
            return f"no place fits clearly better than others (quality {self.quality:.2f}, expected {_LEAST_QUALITY})"
        if self.agreeing < _LEAST_AGREEING:
            return f"{self.starts} starts ended at {self.starts - self.agreeing} other places"
        return None

    def check(self, moving: str, fixed: str) -> None:
        """Refuses a result that is not to be trusted. Raises InputError with the images' names."""
        if self.problem:
            raise InputError(
                f"{moving} could not be registered onto {fixed}: {self.problem}; look whether both show the same "
                "patient's head and are not upside down or mirrored, or register them by hand first"
            )

    def as_json(self) -> dict:
        """The registration as plain JSON."""
        values = {name: round(float(getattr(self, name)), 3) for name in ("quality", "overlap", "seen", "moved_mm")}
        return {**values, "agreeing": self.agreeing, "starts": self.starts, "transform": self.transform.tolist()}


def register(
    fixed: Sequence[Level],
    moving: Sequence[Level],
    *,
    within: Sequence[np.ndarray] | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Registration:
    """Where `moving` lies on `fixed`: a rigid registration.

    Args:
        fixed: of `pyramid.make_levels`.
        moving: likewise.
        within: bool (X, Y, Z) for each level of `fixed`, a brain mask, to which the finer levels keep: what is around
            the brain, a jaw or a neck, need not move with it.
        progress: called with the fraction done, 0 to 1.
        cancelled: asked between steps.

    Returns:
        The transform, and how far it is to be trusted (`Registration.check`).

    Raises:
        Cancelled: where `cancelled` said so.
    """
    begin = time.perf_counter()
    report, stop = progress or (lambda fraction: None), cancelled or (lambda: False)
    finder = Finder(fixed, moving, within)
    with one_thread():
        starts = finder.starts()
        coarse = []
        done = 0
        for level, climbs in enumerate(_CLIMBS):
            ends = []
            for transform in starts[:climbs]:
                if stop():
                    raise Cancelled
                report((1 + done) / (1 + sum(_CLIMBS)))
                ends.append(finder.climb(level, transform))
                done += 1
            ends = finder.ranked(level, ends)
            coarse = coarse or ends
            starts = finder.distinct(ends)
        best = ends[0]
        agreeing = sum(finder.distance(best, other) < _AGREE_MM for other in coarse)
        found = finder.describe(best, agreeing, len(coarse))
    report(1.0)
    return replace(found, seconds=time.perf_counter() - begin)


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK in one thread, so that its sums do not depend on the order in which threads end.

    Its derivative of mutual information adds up in that order, whatever number of threads its method is given: results
    differed by 1e-13 from run to run.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


class Finder:
    """A pair of pyramids. Transforms in here are (4, 4), RAS mm, from the fixed image's space to the moving one's."""

    def __init__(self, fixed: Sequence[Level], moving: Sequence[Level], brain: Sequence[np.ndarray] | None = None):
        self.pairs = list(zip(fixed, moving, strict=True))
        self.brain = brain
        self._images: dict[int, tuple[sitk.Image, sitk.Image, sitk.Image]] = {}
        one, _ = self.pairs[1]
        self.points = one.points(one.head if brain is None else brain[1])
        self.centre = self.points.mean(0)

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """Mean distance in mm, over the head, between where two transforms take a point."""
        difference = one - other
        return float(np.linalg.norm(self.points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())

    def seen(self, transform: np.ndarray) -> float:
        """Share of the fixed head that the moving image covers."""
        grid = self.pairs[1][1].grid
        at = apply_affine(np.linalg.inv(grid.affine) @ transform, self.points)
        return float(np.all((at >= -0.5) & (at <= np.array(grid.shape) - 0.5), axis=1).mean())

    def starts(self) -> list[np.ndarray]:
        """Transforms to climb from, the best first; the scanner's own frame is among the first two."""
        from scipy.spatial.transform import Rotation  # here: prepared images need none

        fixed, moving = self.pairs[0]
        anchors = [(self.centre, self.centre)]  # as the scanner placed them
        for crown in (np.inf, _CROWN_MM):
            anchors.append((_middle(fixed, crown), _middle(moving, crown)))
        turns = list(itertools.product(_TURNS, repeat=3))
        turns += [tuple(angle if k == axis else 0.0 for k in range(3)) for axis in range(3) for angle in _FAR_TURNS]
        trials = []
        for here, there in anchors:
            for turn in turns:
                transform = np.eye(4)
                transform[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
                transform[:3, 3] = there - transform[:3, :3] @ here
                trials.append(transform)
        plain = [trials[k * len(turns) + turns.index((0.0, 0.0, 0.0))] for k in range(len(anchors))]
        return self.distinct([*plain[:2], *self.ranked(0, [t for t in trials if self.seen(t) > _LEAST_SEEN])])

    def distinct(self, transforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The first of those that are nearly the same, as many as are climbed from."""
        kept: list[np.ndarray] = []
        for transform in transforms:
            if len(kept) < _CLIMBS[0] and all(self.distance(transform, other) > _APART_MM for other in kept):
                kept.append(transform)
        return kept

    def ranked(self, level: int, transforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The transforms, the best fit at a level first."""
        values = [self.information(level, transform) for transform in transforms]
        return [transforms[k] for k in np.argsort(values, kind="stable")[::-1]]

    def information(self, level: int, transform: np.ndarray) -> float:
        """Mattes mutual information, nats; 0 where the images hardly meet."""
        method = self._method(level)
        method.SetInitialTransform(self._to_euler(transform))
        fixed, moving, _ = self.images(level)
        try:
            return -method.MetricEvaluate(fixed, moving)
        except RuntimeError:  # too few samples meet
            return 0.0

    def climb(self, level: int, transform: np.ndarray) -> np.ndarray:
        """The transform after a search from here at one level."""
        fixed, moving, _ = self.images(level)
        euler = self._to_euler(transform)
        method = self._method(level)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=_FIRST_STEP_MM[level],
            minStep=_LAST_STEP_MM[level],
            numberOfIterations=_ITERATIONS[level],
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-8,
        )
        # scales found by SimpleITK's physical shift left 0.7 to 5 mm at 8 mm where these leave 0.6 to 1.1
        method.SetOptimizerScales([_RADIUS_MM**2] * 3 + [1.0] * 3)
        method.SetInitialTransform(euler, inPlace=True)
        try:
            method.Execute(fixed, moving)
        except RuntimeError:  # it has left the image: as good as not having climbed
            return transform
        return to_matrix(euler)

    def describe(self, best: np.ndarray, agreeing: int, starts: int) -> Registration:
        """The result, with how well it fits and how many starts led to it.

        Args:
            best: (4, 4), a point of the fixed image to the same point of the head in the moving one, RAS mm.
            agreeing: climbs that ended near it.
            starts: climbs that there were.

        Returns:
            The registration, its transform the inverse of `best`.
        """
        level = 1
        top = self.information(level, best)
        around = [self.information(level, best @ trial) for trial in self._trials()]
        quality = 1 - float(np.mean(around)) / top if top > 0 else 0.0
        return Registration(
            np.linalg.inv(best),
            quality,
            top,
            self._overlap(best),
            self.seen(best),
            agreeing,
            starts,
            self.distance(best, np.eye(4)),
        )

    def _overlap(self, transform: np.ndarray) -> float:
        fixed, moving = self.pairs[1]
        back = np.linalg.inv(transform)
        there = resample(moving.head, moving.grid.affine, fixed.grid, back) > 0.5
        both = resample(np.ones(moving.grid.shape, np.float32), moving.grid.affine, fixed.grid, back) > 0.5
        one, other = fixed.head & both, there & both
        return float(2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other)))

    def _trials(self) -> list[np.ndarray]:
        from scipy.spatial.transform import Rotation

        trials = []
        for axis, sign in itertools.product(range(3), (-1, 1)):
            shift, turn = np.eye(4), np.eye(4)
            shift[axis, 3] = sign * _TRIAL_MM
            angle = np.zeros(3)
            angle[axis] = sign * np.radians(_TRIAL_DEGREES)
            turn[:3, :3] = Rotation.from_rotvec(angle).as_matrix()
            turn[:3, 3] = self.centre - turn[:3, :3] @ self.centre
            trials += [shift, turn]
        return trials

    def _to_euler(self, transform: np.ndarray) -> sitk.Euler3DTransform:
        lps = np.array([-1.0, -1.0, 1.0])
        turn = lps[:, None] * transform[:3, :3] * lps
        centre = self.centre * lps
        euler = sitk.Euler3DTransform()
        euler.SetCenter(centre.tolist())
        euler.SetMatrix(turn.ravel().tolist(), 1e-6)
        euler.SetTranslation((apply_affine(transform, self.centre) * lps - centre).tolist())
        return euler

    def images(self, level: int) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
        """The fixed image, the moving one, and where on the fixed one the measure is taken.

        Made when they are first asked for, and for this pair alone: SimpleITK writes into what it reads, and other
        threads have other pairs.
        """
        if level not in self._images:
            (fixed, moving), step = self.pairs[level], LEVELS_MM[level]
            inside = _grown(fixed.head, _RIM_MM / step)
            if level and self.brain is not None:
                inside &= _grown(self.brain[level], _AROUND_BRAIN_MM / step)
            arrays = ((fixed.array, fixed.grid), (moving.array, moving.grid), (inside, fixed.grid))
            first, second, third = (to_itk(array, grid.affine) for array, grid in arrays)
            self._images[level] = (first, second, third)
        return self._images[level]

    def _method(self, level: int) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricFixedMask(self.images(level)[2])
        if _SAMPLED[level] < 1:
            method.SetMetricSamplingStrategy(method.REGULAR)  # jittered: a regular lattice favours whole voxels
            method.SetMetricSamplingPercentage(_SAMPLED[level], _SEED)
        return method


def _grown(mask: np.ndarray, voxels: float) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=max(1, round(voxels)))


def _middle(level: Level, crown_mm: float) -> np.ndarray:
    """RAS mm of the centre of the head, no further down than `crown_mm` below its top."""
    points = level.points(level.head)
    return points[points[:, 2] >= points[:, 2].max() - crown_mm].mean(0)
