"""What has to be done to the images of a case before a network can see them, and why, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from segmamba.errors import InputError
from segmamba.images.grid import describe_shape, describe_spacing
from segmamba.images.image_io import Image
from segmamba.images.modalities import MODALITIES, TITLES
from segmamba.images.parallel import for_each
from segmamba.preparation.grids import Grid
from segmamba.preparation.pyramid import Level, make_levels
from segmamba.preparation.register import Finder, one_thread
from segmamba.preparation.stripped import find_skull

REFERENCE = "t1c"
WORKING_MM = 1.0
_NEAR_MM = (0.8, 1.25)  # voxels that are kept as they are
_MOVED_MM = 4.0  # prepared images that are nearer are left alone: BraTS itself has images that are 3 mm off


@dataclass(frozen=True)
class Action:
    """One step of a preparation."""

    kind: str
    """"register", "brain", "outside", "grid"."""
    why: str
    """Plain words."""
    modality: str = ""
    """Of "register" and "outside"."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be done to the images of a case."""

    reference: str
    """The modality whose space everything is brought into."""
    actions: tuple[Action, ...]
    """What will be done, in order; none for prepared images."""
    grid: Grid
    """What is worked on, in that space."""
    levels: Mapping[str, list[Level]]
    """The images' pyramids, which are not made twice."""
    brain_of: str | None = None
    """An image without skull whose outside is that of all, where some have one and others have something there."""

    @property
    def needed(self) -> bool:
        """Whether anything is to be prepared."""
        return bool(self.actions)

    def has(self, kind: str) -> bool:
        """Whether there is a step of this kind."""
        return any(action.kind == kind for action in self.actions)

    @property
    def to_register(self) -> tuple[str, ...]:
        """The modalities that are registered to the reference."""
        return tuple(action.modality for action in self.actions if action.kind == "register")

    def as_json(self) -> dict:
        """The plan as plain JSON."""
        return {
            "reference": self.reference,
            "needed": self.needed,
            "actions": [{key: value for key, value in asdict(action).items() if value} for action in self.actions],
            "grid": {"shape": list(self.grid.shape), "affine": self.grid.affine.tolist()},
        }


def title(modality: str) -> str:
    """The modality as people call it."""
    return TITLES.get(modality, modality)


def make_plan(images: Mapping[str, Image], *, brain_given: bool = False) -> Plan:
    """What is to be done to `images`, each on its own grid. brain_given: a brain mask comes with them.

    Images that lie on one grid, on one another, and show no skull need nothing, whatever their voxels are: the
    network's own preprocessing takes them. Nor do images of another kind than MODALITIES: what is known here is known
    of heads in MR. Raises InputError where an image shows no head.
    """
    reference = REFERENCE if REFERENCE in images else next(iter(images))
    grids = {m: Grid(image.array.shape, np.asarray(image.affine, float)) for m, image in images.items()}
    if not set(images) <= set(MODALITIES):
        return Plan(reference, (), grids[reference], {})
    levels = for_each(images, _levels)
    own, name = grids[reference], title(reference)
    others = [m for m in images if m != reference]
    there = {m: levels[m] for m in images if grids[m].is_on(own)}
    skulls = for_each(there, lambda m, image: find_skull(image[1], bright_scalp=m.startswith("t1")))
    brain_of = None if brain_given else _stripped(reference, skulls, levels)
    skull = None if brain_of else skulls[reference]
    away = {} if skull else _displacements(levels[reference], {m: there[m] for m in others if m in there})
    brain, register = [], []
    if brain_given:
        brain.append(Action("brain", "a brain mask was given"))
    elif skull:
        brain.append(Action("brain", f"the skull is on: on {name} {skull}"))
    if brain_of:
        brain += [
            Action("outside", f"{title(m)}: {why}; {title(brain_of)} is a brain alone: cut to that", m)
            for m, why in skulls.items()
            if why
        ]
    for modality in others:
        if not grids[modality].is_on(own):
            text = f"{title(modality)} has another grid than {name}: {_difference(grids[modality], own)}"
            register.append(Action("register", text, modality))
        elif skull:
            text = f"{title(modality)} has the grid of {name}; whether the head moved between them is looked at"
            register.append(Action("register", text, modality))
        elif away[modality] >= _MOVED_MM:
            text = f"{title(modality)} has the grid of {name}, but fits it better {away[modality]:.0f} mm away"
            register.append(Action("register", text, modality))
    grid = own
    if register and not _is_fine(own):
        grid = own.with_spacing(np.full(3, WORKING_MM))
        why = f"{name} has voxels of {describe_spacing(own.affine)} mm: works at {WORKING_MM:g} mm along its axes"
        brain.insert(0, Action("grid", why))
    return Plan(reference, (*brain, *register), grid, levels, brain_of)


def _stripped(reference: str, skulls: Mapping[str, str | None], levels: Mapping[str, list[Level]]) -> str | None:
    """The image on the reference's grid by which others, that have something around the brain, can be cut; or None.

    skulls: by modality, of the images on that grid. Where it is the reference that has something, a T2 without a sign
    of skull is no proof of a brain alone: only noise is taken away, by an image of T1, which would show scalp.
    """
    if not any(skulls.values()):
        return None
    if not skulls[reference]:
        return reference
    others = [m for m, why in skulls.items() if not why and m.startswith("t1")]
    why = find_skull(levels[reference][1], bright_scalp=reference.startswith("t1"), noise=False)
    return others[0] if others and why is None else None


def _levels(modality: str, image: Image) -> list[Level]:
    try:
        return make_levels(image.array, image.affine)
    except InputError as error:
        raise InputError(f"{title(modality)}: {error}") from error


def _is_fine(grid: Grid) -> bool:
    return bool(_NEAR_MM[0] <= grid.spacing.min() and grid.spacing.max() <= _NEAR_MM[1])


def _difference(grid: Grid, other: Grid) -> str:
    if grid.shape == other.shape and np.allclose(grid.spacing, other.spacing, atol=1e-3):
        return "the same voxels in another place or direction"
    return f"{describe_shape(grid.shape)} voxels of {describe_spacing(grid.affine)} mm"


def _displacements(fixed: list[Level], images: Mapping[str, list[Level]]) -> dict[str, float]:
    """mm by which each image would have to be moved to fit best, as far as a climb from where it lies can tell."""

    def find(modality: str, moving: list[Level]) -> float:
        finder, best = Finder(fixed, moving), np.eye(4)
        for level in (0, 1):
            best = finder.climb(level, best)
        return finder.distance(best, np.eye(4))

    with one_thread():
        return for_each(images, find)
