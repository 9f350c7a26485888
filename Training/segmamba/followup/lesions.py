"""The lesions of a label map, each with its volume, its two diameters and whether it is measurable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import io_orientation
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from segmamba.cases.labels import GLIOMA
from segmamba.errors import InputError
from segmamba.followup.diameters import OFF_RIGHT_ANGLE, TOLERANCE_MM, diameters
from segmamba.followup.rounding import beside
from segmamba.preparation.grids import upright

# label values of what may be followed: the regions of a glioma, and what of it does not enhance
REGIONS = {**{name: GLIOMA.values(name) for name in ("ET", "TC", "WT")}, "non-enhancing": (1, 2)}
MIXED = "mixed"  # RANO 2.0: enhancing and non-enhancing lesions, measured beside one another
CHOICES = (*REGIONS, MIXED)
LEAST_VOXELS = 3
MERGED_MM = 2.0
LEAST_MM = 10.0
THICK_MM = 5.0
LEAST_SLICES = 2
_UNEQUAL = 2.0  # of the voxels' sides in a slice: such images were not taken in this plane


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion at one date."""

    number: int
    """From 1, the largest product of diameters first, then the largest volume; of several regions the first region's
    first."""
    region: str
    """Of REGIONS."""
    voxels: int
    """How many it has."""
    volume_ml: float
    """Of all of it."""
    d1: float
    """Longest diameter in one slice, mm."""
    d2: float
    """Longest diameter at a right angle to it in that slice, mm."""
    line1: np.ndarray | None
    """(2, 3) RAS mm, the ends of the longest diameter; None where there is none."""
    line2: np.ndarray | None
    """(2, 3) RAS mm, those of the diameter at a right angle to it; None where there is none."""
    slice: int
    """Index along the stored axis closest to the body's, from 0."""
    slices: int
    """How many the lesion is seen on."""
    centre: np.ndarray
    """In RAS mm."""
    pieces: int
    """Parts that do not touch, less than 2 mm apart, of which it is made up."""
    not_measurable: str
    """Why, in plain words, or ""."""
    notes: tuple[str, ...]
    """What is odd about its diameters, in plain sentences."""
    by_hand: tuple[str, ...] = ()
    """"D1", "D2" where a person has drawn that line."""

    @property
    def product(self) -> float:
        """mm^2."""
        return self.d1 * self.d2

    @property
    def measurable(self) -> bool:
        """Whether the lesion counts as measurable."""
        return not self.not_measurable


@dataclass(frozen=True, eq=False)
class Measured:
    """The lesions of one label map."""

    region: str
    """Of CHOICES."""
    lesions: tuple[Lesion, ...]
    """By number."""
    labelled: np.ndarray
    """(X, Y, Z) int32 with the numbers of the lesions, axes turned to be nearest to R, A, S."""
    affine: np.ndarray
    """Of `labelled`."""
    spacing: tuple[float, float, float]
    """In mm, in the slices and from slice to slice."""
    stored_slices: np.ndarray
    """By slice of `labelled`, its index as stored."""
    small_voxels: int
    """Left out, in pieces of fewer than 3 voxels."""
    notes: tuple[str, ...]
    """What is odd about the label map, in plain sentences."""

    @property
    def volume_ml(self) -> float:
        """Volume of all lesions of the date in mL."""
        return float(sum(lesion.volume_ml for lesion in self.lesions))

    def of(self, region: str) -> Measured:
        """The lesions of one of its regions alone, under their numbers."""
        if region == self.region:
            return self
        own = tuple(lesion for lesion in self.lesions if lesion.region == region)
        labelled = np.where(np.isin(self.labelled, [lesion.number for lesion in own]), self.labelled, 0)
        return replace(self, region=region, lesions=own, labelled=labelled)


def regions_of(region: str) -> tuple[str, ...]:
    """Those of REGIONS that are judged each for itself: one, or of MIXED both. Raises InputError for an unknown one."""
    if region not in CHOICES:
        raise InputError(f"region {region!r}: expected one of {', '.join(CHOICES)}")
    return ("ET", "non-enhancing") if region == MIXED else (region,)


def measure(label_map: np.ndarray, affine: np.ndarray, region: str = "ET") -> Measured:
    """The lesions of a label map on its own grid, never resampled.

    Args:
        label_map: (X, Y, Z), the engine's labels.
        affine: (4, 4), voxel indices to RAS mm.
        region: of CHOICES.

    Returns:
        The lesions, the largest product of diameters first.

    Raises:
        InputError: for an unknown region.
    """
    first, *others = (measure_mask(np.isin(label_map, REGIONS[name]), affine, name) for name in regions_of(region))
    for other in others:
        first = _together(region, first, other)
    return first


def measure_mask(mask: np.ndarray, affine: np.ndarray, region: str) -> Measured:
    """The lesions of one region.

    A lesion is what hangs together over faces, edges or corners and has 3 voxels or more; those of which two voxels'
    centres are less than 2 mm apart are one.

    Args:
        mask: (X, Y, Z) bool.
        affine: (4, 4), voxel indices to RAS mm.
        region: what it is called.

    Returns:
        The lesions, the largest product of diameters first.
    """
    turned, ras = upright(np.asarray(mask, bool), np.asarray(affine, float))
    turned = np.ascontiguousarray(turned)
    pieces, count = ndimage.label(turned, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    small = np.flatnonzero(sizes[1:] < LEAST_VOXELS) + 1
    pieces[np.isin(pieces, small)] = 0
    spacing = voxel_sizes(ras)
    groups = _merged(pieces, spacing)
    stored = _stored_slices(mask.shape, np.asarray(affine, float))
    boxes = ndimage.find_objects(pieces)
    found = [_lesion(region, pieces, group, boxes, ras, stored) for group in groups]
    order = sorted(range(len(found)), key=lambda k: (-found[k].product, -found[k].voxels, *found[k].centre))
    labelled = np.zeros(turned.shape, np.int32)
    number = np.zeros(count + 1, np.int32)
    for place, k in enumerate(order, 1):
        number[groups[k]] = place
    labelled = number[pieces]
    lesions = tuple(replace(found[k], number=place) for place, k in enumerate(order, 1))
    notes = []
    if max(spacing[:2]) > _UNEQUAL * min(spacing[:2]):
        notes.append(
            f"voxels are {spacing[0]:.3g} x {spacing[1]:.3g} mm in the axial plane: the images were taken in another "
            "plane, and axial diameters are coarse"
        )
    left_out = int(sizes[small].sum())
    if left_out:
        notes.append(f"{left_out} voxels in pieces of fewer than {LEAST_VOXELS} are left out")
    return Measured(
        region,
        lesions,
        labelled,
        ras,
        cast(tuple[float, float, float], tuple(map(float, spacing))),
        stored,
        left_out,
        tuple(notes),
    )


def _together(region: str, one: Measured, other: Measured) -> Measured:
    """Two regions of one label map, which share no voxel; the other's lesions are numbered on."""
    more = len(one.lesions)
    lesions = (*one.lesions, *(replace(lesion, number=lesion.number + more) for lesion in other.lesions))
    labelled = one.labelled + np.where(other.labelled > 0, other.labelled + more, 0)
    return replace(
        one,
        region=region,
        lesions=lesions,
        labelled=labelled,
        small_voxels=one.small_voxels + other.small_voxels,
        notes=tuple(dict.fromkeys((*one.notes, *other.notes))),
    )


def measure_pieces(mask: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """A mask on an upright grid taken as one lesion: product of its diameters in mm^2, and volume in mL."""
    if not mask.any():
        return 0.0, 0.0
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    found = diameters(mask[box], affine)
    return found.d1 * found.d2, float(np.count_nonzero(mask) * _voxel_ml(affine))


def least_mm(thickness: float) -> float:
    """What both diameters of a measurable lesion must reach: 10 mm, or twice the slice thickness above 5 mm."""
    return LEAST_MM if thickness <= THICK_MM + TOLERANCE_MM else 2 * thickness


def unmeasurable_reason(d1: float, d2: float, slices: int, thickness: float) -> str:
    """Why a lesion is not measurable. Limits are inclusive.

    Args:
        d1: longest diameter in one slice, mm.
        d2: longest diameter at a right angle to it, mm.
        slices: how many the lesion is seen on.
        thickness: from slice to slice, mm.

    Returns:
        In plain words; "" for one that is.
    """
    least, reasons = least_mm(thickness), []
    if d1 < least - TOLERANCE_MM or d2 < least - TOLERANCE_MM:
        shown = " x ".join(beside(one, least, 2, TOLERANCE_MM) for one in (d1, d2))
        reasons.append(f"{shown} mm, below {least:g} mm")
    if slices < LEAST_SLICES:
        reasons.append(f"seen on {slices} slice")
    return "; ".join(reasons)


def _lesion(
    region: str,
    pieces: np.ndarray,
    group: Sequence[int],
    boxes: Sequence[tuple[slice, ...]],
    affine: np.ndarray,
    stored: np.ndarray,
) -> Lesion:
    box = tuple(
        slice(min(boxes[p - 1][axis].start for p in group), max(boxes[p - 1][axis].stop for p in group))
        for axis in range(3)
    )
    mask = np.isin(pieces[box], group)
    start = np.array([part.start for part in box])
    found = diameters(mask, affine)

    def to_mm(line: np.ndarray | None) -> np.ndarray | None:
        if line is None:
            return None
        return apply_affine(affine, np.column_stack([line, np.full(2, found.slice)]) + start)

    voxels, thickness = int(np.count_nonzero(mask)), float(voxel_sizes(affine)[2])
    slices = int(np.count_nonzero(mask.any(axis=(0, 1))))
    notes = []
    if found.line2 is None and found.line1 is not None:
        notes.append(
            "one voxel wide: no line between two voxels' middles crosses the longest one, and D2 is 0; "
            "where it is wider, measure it by hand"
        )
    if found.off > OFF_RIGHT_ANGLE + 1e-6:
        notes.append(f"D2 is {found.off:.1f} degrees off a right angle, as near as voxels allow")
    return Lesion(
        number=0,
        region=region,
        voxels=voxels,
        volume_ml=float(voxels * _voxel_ml(affine)),
        d1=found.d1,
        d2=found.d2,
        line1=to_mm(found.line1),
        line2=to_mm(found.line2),
        slice=int(stored[found.slice + start[2]]),
        slices=slices,
        centre=apply_affine(affine, np.argwhere(mask).mean(0) + start),
        pieces=len(group),
        not_measurable=unmeasurable_reason(found.d1, found.d2, slices, thickness),
        notes=tuple(notes),
    )


def _merged(pieces: np.ndarray, spacing: np.ndarray) -> list[list[int]]:
    """The numbers of the pieces, those less than 2 mm apart together."""
    boxes = ndimage.find_objects(pieces)
    reach = np.ceil(MERGED_MM / spacing).astype(int)
    near = []
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        wide = tuple(slice(max(0, part.start - r), part.stop + r) for part, r in zip(box, reach))
        around = pieces[wide]
        others = (around != 0) & (around != number)
        if others.any():
            away = ndimage.distance_transform_edt(around != number, sampling=spacing)
            near += [(number, int(other)) for other in np.unique(around[others & (away < MERGED_MM - TOLERANCE_MM)])]
    count = len(boxes) + 1
    one, other = np.array(near, int).reshape(-1, 2).T
    _, group = connected_components(coo_matrix((np.ones(len(one)), (one, other)), (count, count)), directed=False)
    members: dict[int, list[int]] = {}
    for number, box in enumerate(boxes, 1):
        if box is not None:
            members.setdefault(int(group[number]), []).append(number)
    return list(members.values())


def _stored_slices(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Slice of the upright array -> index along the stored axis that it is."""
    orientation = io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    indices = np.arange(shape[axis])
    return indices if orientation[axis, 1] > 0 else indices[::-1]


def _voxel_ml(affine: np.ndarray) -> float:
    return abs(np.linalg.det(affine[:3, :3])) / 1000
