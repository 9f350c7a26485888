"""Which lesion of a later date is which of the first: by where they lie, after rigid registration of the T1c images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

from segmamba.errors import InputError
from segmamba.followup.lesions import Measured
from segmamba.images.image_io import Image
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.register import Registration, register

NEAR_MM = 5.0
TAKEN_UP = 0.25  # share of a lost lesion that another has to lie on
Registered = tuple[Registration | None, str]  # and why it is not to be used, or ""


@dataclass(frozen=True)
class Matches:
    """Numbers of lesions."""

    parts: dict[int, tuple[int, ...]]
    """First date's -> later ones that it has become; several: it has split; none: gone."""
    merged: dict[int, int]
    """First date's -> the later one that has taken it up together with another."""
    new: tuple[int, ...]
    """Later ones near none."""

    def lesions(self, numbers: list[int]) -> list[int]:
        """The later lesions that the first date's `numbers` have become, each once."""
        found = {part for number in numbers for part in self.parts[number]}
        return sorted(found | {self.merged[number] for number in numbers if number in self.merged})


def fingerprint(image: Image) -> str:
    """The same for the same voxels on the same grid, and of nothing else."""
    array = np.ascontiguousarray(image.array, np.float32)
    facts = [repr(array.shape).encode(), np.asarray(image.affine, float).tobytes(), array.tobytes()]
    return hashlib.sha256(b"|".join(facts)).hexdigest()[:32]


def register_dates(first: Image, later: Image) -> Registered:
    """Two T1c of one patient -> the registration of the later onto the first, and why it is not to be used, or ""."""
    try:
        found = register(make_levels(first.array, first.affine), make_levels(later.array, later.affine))
    except InputError as error:
        return None, str(error)
    return found, found.problem or ""


def match(first: Measured, later: Measured, transform: np.ndarray) -> Matches:
    """Which lesions of a later date are those of the first.

    A later lesion belongs to the lesion of the same region and the first date that it lies on or, within 5 mm, nearest
    to. A lesion to which none belongs has merged into the one that lies on most of it, where that is a quarter of its
    voxels or more, and is gone otherwise. What has grown together covers much of what it was, though parts of that may
    have shrunk or died; a neighbour, which need be 2 mm away only, comes to lie on the rim of it, if at all, by the
    millimetre or so that registration is off. The label maps stay as they are.

    Args:
        first: lesions of the first date.
        later: lesions of the later date.
        transform: (4, 4), a point of the later date to the same point of the head at the first, RAS mm.

    Returns:
        What each lesion of the first date has become, and the later ones that are new.
    """
    trees = {lesion.number: cKDTree(_points(first, lesion.number)) for lesion in first.lesions}
    parts: dict[int, list[int]] = {number: [] for number in trees}
    regions = {lesion.number: lesion.region for lesion in first.lesions}
    new = []
    for lesion in later.lesions:
        points = apply_affine(transform, _points(later, lesion.number))
        close = {}
        for number, tree in trees.items():
            if regions[number] != lesion.region:
                continue
            away, _ = tree.query(points, distance_upper_bound=NEAR_MM)
            if np.isfinite(away).any():
                close[number] = float((NEAR_MM - away[np.isfinite(away)]).sum())
        if close:
            parts[max(close, key=lambda number: (close[number], -number))].append(lesion.number)
        else:
            new.append(lesion.number)
    lost = [lesion for lesion in first.lesions if not parts[lesion.number]]
    into = {lesion.number: _taken_up(_points(first, lesion.number), lesion.region, later, transform) for lesion in lost}
    merged = {number: other for number, other in into.items() if other}
    return Matches({number: tuple(own) for number, own in parts.items()}, merged, tuple(new))


def _taken_up(points: np.ndarray, region: str, later: Measured, transform: np.ndarray) -> int:
    """The later lesion that lies on most of the points of the first date, and on enough of them; 0 where none does."""
    to_voxels = np.linalg.inv(transform @ later.affine)
    index = np.rint(apply_affine(to_voxels, points)).astype(int)
    inside = ((index >= 0) & (index < later.labelled.shape)).all(axis=1)
    found = np.bincount(later.labelled[tuple(index[inside].T)], minlength=int(later.labelled.max()) + 1)
    shares = {one.number: found[one.number] / len(points) for one in later.lesions if one.region == region}
    most = max(shares, key=lambda number: (shares[number], -number), default=0)
    return most if most and shares[most] >= TAKEN_UP else 0


def _points(measured: Measured, number: int) -> np.ndarray:
    return apply_affine(measured.affine, np.argwhere(measured.labelled == number))
