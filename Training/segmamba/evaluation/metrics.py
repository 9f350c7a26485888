"""Agreement of a predicted mask with the truth: Dice, HD95 and NSD, over the whole image and lesion by lesion.

The empty cases follow the BraTS challenges, so that no tumour missed and no tumour invented drops out of a mean:
both masks empty is a perfect score (Dice 1, HD95 0, NSD 1), one of them empty the worst (Dice 0, HD95 374, NSD 0).
MONAI has these metrics, but returns nan for empty masks and leaves it out of the mean, so a model that misses tumours
gets a better HD95 there (its issue #9095); that is why they are written here.

Surface: the voxels of a mask that have one of their face neighbours (6 in 3D) outside the mask; what lies beyond the
array is outside. Distance: from the centre of a surface voxel of one mask to the nearest centre of a surface voxel of
the other, in mm. HD95 and NSD take the same distances, every surface voxel counting once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from segmamba.cases.labels import GLIOMA, LabelScheme, to_regions
from segmamba.errors import InputError

WORST_HD95 = 374.0  # mm; BraTS: the diagonal of its grid, 240 x 240 x 155 mm, rounded up
NSD_TOLERANCE = 1.0  # mm
PAPER_WORST_HD95 = 50.0  # mm; what the authors' script writes for an empty mask
LESION_DILATION = 3  # voxels; BraTS 2023, adult glioma
SMALLEST_LESION = 50.0  # mm3; BraTS 2023, adult glioma: lesions of this volume or less are not scored
TREE_VOXELS = 50_000  # largest number of surface voxels for which a tree searches the nearest
_ROUNDING = 1 + 1e-5  # 1.0000001 mm, from a float32 affine, is 1 mm


class SurfaceDistances(NamedTuple):
    """mm, one for each surface voxel of the mask, (N,) float64; inf where the other mask is empty."""

    from_prediction: np.ndarray
    """Of the surface of the prediction to that of the truth."""
    from_truth: np.ndarray
    """Of the surface of the truth to that of the prediction."""

    def hd95(self) -> float:
        """See the function `hd95`."""
        if not sum(map(len, self)):
            return 0.0
        if not all(map(len, self)):
            return WORST_HD95
        return max(float(np.percentile(distances, 95)) for distances in self)

    def nsd(self, tolerance: float) -> float:
        """See the function `nsd`."""
        total = sum(map(len, self))
        near = sum(int(np.count_nonzero(distances <= tolerance * _ROUNDING)) for distances in self)
        return near / total if total else 1.0


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two bool masks of one shape; 1 where both are empty, 0 where one is.

    Raises InputError where the masks are not bool or differ in shape.
    """
    _check_masks(prediction, truth)
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    return 2.0 * int(np.count_nonzero(prediction & truth)) / total if total else 1.0


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> SurfaceDistances:
    """Distances between the surfaces of two masks, both ways, for `hd95` and `nsd` alike.

    Args:
        prediction: bool.
        truth: bool, of the same shape.
        spacing: size of a voxel in mm along each axis of the arrays, in the order of the axes.

    Returns:
        From each surface voxel of one mask to the nearest of the other, in mm; infinite where the other is empty.

    Raises:
        InputError: where the masks are not bool, differ in shape, or do not go with `spacing`.
    """
    _check_masks(prediction, truth)
    step = _check_spacing(spacing, truth.ndim)
    box = _bounding_box(prediction | truth)
    if box is None:
        return SurfaceDistances(np.zeros(0), np.zeros(0))
    one, other = _surface(prediction[box]), _surface(truth[box])
    counts = np.count_nonzero(one), np.count_nonzero(other)
    if not all(counts):
        return SurfaceDistances(*(np.full(count, np.inf) for count in counts))
    return SurfaceDistances(_distances(one, other, step), _distances(other, one, step))


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | np.ndarray) -> float:
    """95 % Hausdorff distance of two masks.

    The 95th percentile of the surface distances in each direction, interpolated linearly between ranks; the larger of
    the two is the result. (The challenge's own script weighs the distances by the area of a triangulated surface, and
    medpy pools the two directions, see `paper_scores`: such numbers lie close, but are not the same.)

    Args:
        prediction: bool.
        truth: bool, of the same shape.
        spacing: size of a voxel in mm along each axis of the arrays, in the order of the axes.

    Returns:
        mm; 0 where both are empty, 374 where one is.

    Raises:
        InputError: as `surface_distances`.
    """
    return surface_distances(prediction, truth, spacing).hd95()


def nsd(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | np.ndarray, tolerance: float = NSD_TOLERANCE
) -> float:
    """Normalized surface Dice of two masks.

    The share of surface voxels, those of both masks counted together, that lie within `tolerance` of the other surface:
    Nikolov et al., J Med Internet Res 2021, 23(7):e26151, with voxels in place of the area of a triangulated surface,
    as MONAI's SurfaceDiceMetric has it without subvoxels. A tolerance of 1 mm forgives, on a grid of 1 mm, a border
    that is off by one voxel.

    Args:
        prediction: bool.
        truth: bool, of the same shape.
        spacing: size of a voxel in mm along each axis of the arrays, in the order of the axes.
        tolerance: in mm, inclusive.

    Returns:
        0 to 1; 1 where both are empty, 0 where one is.

    Raises:
        InputError: as `surface_distances`, and for a tolerance that is negative or not finite.
    """
    _check_tolerance(tolerance)
    return surface_distances(prediction, truth, spacing).nsd(tolerance)


def region_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    scheme: LabelScheme = GLIOMA,
    *,
    tolerance: float = NSD_TOLERANCE,
) -> dict[str, dict[str, float]]:
    """Scores of each region over the whole image, lesions not told apart.

    Args:
        prediction: label map in the scheme's values.
        truth: likewise, of the same shape.
        spacing: size of a voxel in mm along each axis of the arrays, in the order of the axes.
        scheme: the labels and regions.
        tolerance: of NSD, in mm, inclusive.

    Returns:
        {"WT": {"dice": .., "hd95": .., "nsd": ..}, "TC": ..}.

    Raises:
        InputError: for a value outside the scheme, or as `nsd`.
    """
    _check_tolerance(tolerance)
    scores = {}
    for name, (predicted, true) in _region_masks(prediction, truth, scheme).items():
        distances = surface_distances(predicted, true, spacing)
        scores[name] = {"dice": dice(predicted, true), "hd95": distances.hd95(), "nsd": distances.nsd(tolerance)}
    return scores


def paper_scores(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | np.ndarray, scheme: LabelScheme = GLIOMA
) -> dict[str, dict[str, float]]:
    """As `region_scores`, but Dice and HD95 as the SegMamba authors' published script scores them.

    HD95 is medpy's: the 95th percentile of both directions' distances pooled. Where a mask is empty, one or BOTH, Dice
    is 0 and HD95 50 mm: finding nothing where nothing is counts as a miss, and a missed tumour costs 50 mm, not 374.
    (The script takes a voxel for 1 mm on every grid; here `spacing` holds, which on the BraTS grid is the same.)
    """
    scores = {}
    for name, (predicted, true) in _region_masks(prediction, truth, scheme).items():
        if predicted.any() and true.any():
            pooled = np.concatenate(surface_distances(predicted, true, spacing))
            scores[name] = {"dice": dice(predicted, true), "hd95": float(np.percentile(pooled, 95))}
        else:
            scores[name] = {"dice": 0.0, "hd95": PAPER_WORST_HD95}
    return scores


def lesion_wise(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    *,
    dilation: int = LESION_DILATION,
    smallest: float = SMALLEST_LESION,
) -> dict[str, float]:
    """Dice and HD95 lesion by lesion, as BraTS 2023 defines them, of two masks of one region.

    Definition: github.com/rachitsaluja/BraTS-2023-Metrics.

    1. The truth is dilated `dilation` times by one voxel (18 neighbours). True voxels that the 26-connected
       components of the dilated truth hold together are one lesion.
    2. A lesion is compared with the union of all 26-connected components of the prediction that touch the
       dilated lesion: Dice and `hd95`. Where none does, Dice is 0 and HD95 374. A component that touches
       two lesions is compared, whole, with each.
    3. A component that touches no lesion is a false positive, however small: Dice 0, HD95 374.
    4. Lesions of `smallest` mm3 or less are not scored; components that touch them are not false positives.
    5. The means are taken over the scored lesions and the false positives together; Dice 1 and HD95 0 where
       there are neither.

    Dilation counts voxels, whatever their size: only at 1 mm are the numbers those of the challenge.

    Args:
        prediction: (X, Y, Z) bool.
        truth: (X, Y, Z) bool, of the same shape.
        spacing: size of a voxel in mm along each axis of the arrays, in the order of the axes.
        dilation: by so many voxels, 0 or more.
        smallest: in mm3, inclusive.

    Returns:
        {"dice", "hd95", "lesions": how many were scored, "false_positives": how many}.

    Raises:
        InputError: as `hd95`, and where the masks are not 3D or an option is negative.
    """
    _check_masks(prediction, truth)
    if truth.ndim != 3:
        raise InputError(f"masks have {truth.ndim} axes; expected 3: lesions are told apart in a volume")
    if dilation < 0 or smallest < 0:
        raise InputError(f"dilation is {dilation} and smallest {smallest}; expected 0 or more")
    spacing = _check_spacing(spacing, 3)
    # No margin for the dilation: what grows together outside the box does so inside it as well.
    box = _bounding_box(prediction | truth)
    if box is None:
        return {"dice": 1.0, "hd95": 0.0, "lesions": 0, "false_positives": 0}
    prediction, truth = prediction[box], truth[box]

    reach = truth
    if dilation:  # scipy takes 0 iterations for "until nothing changes"
        reach = ndimage.binary_dilation(truth, ndimage.generate_binary_structure(3, 2), iterations=dilation)
    touching = ndimage.generate_binary_structure(3, 3)
    # Dilation distributes over unions, so component k of the dilated truth is lesion k, dilated.
    reach, _ = ndimage.label(reach, touching)
    components, n_components = ndimage.label(prediction, touching)
    component_boxes = ndimage.find_objects(components)
    met = (reach > 0) & (components > 0)
    pairs = np.unique(np.stack([reach[met], components[met]], axis=1), axis=0)

    dices, distances = [], []
    lesions = np.where(truth, reach, 0)
    for number, lesion_box in enumerate(ndimage.find_objects(lesions), start=1):
        volume = np.count_nonzero(lesions[lesion_box] == number) * float(np.prod(spacing))
        if volume <= smallest * _ROUNDING:
            continue
        found = pairs[pairs[:, 0] == number, 1]
        both = _enclosing([lesion_box, *(component_boxes[n - 1] for n in found)])
        lesion, answer = lesions[both] == number, np.isin(components[both], found)
        dices.append(dice(answer, lesion))
        distances.append(hd95(answer, lesion, spacing))

    false_positives = n_components - len(np.unique(pairs[:, 1]))
    count = len(dices) + false_positives
    return {
        "dice": sum(dices) / count if count else 1.0,
        "hd95": (sum(distances) + WORST_HD95 * false_positives) / count if count else 0.0,
        "lesions": len(dices),
        "false_positives": false_positives,
    }


def _region_masks(
    prediction: np.ndarray, truth: np.ndarray, scheme: LabelScheme
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    _check_shapes(prediction, truth)
    for name, label_map in (("prediction", prediction), ("truth", truth)):
        unknown = sorted(set(np.unique(label_map).tolist()) - {0, *scheme.labels.values()})
        if unknown:
            raise InputError(f"{name} has label values {unknown[:8]}; expected {scheme.labels}")
    predicted, true = (to_regions(labels, scheme) for labels in (prediction, truth))
    return {name: (predicted[name], mask) for name, mask in true.items()}


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)  # face neighbours; outside the array is 0


def _distances(start: np.ndarray, goal: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """From every voxel of `start` to the nearest of `goal`, mm, (N,) float64; both must hold a voxel.

    Two ways to the same numbers. The tree's time goes with the voxels, not with the grid: scattered false
    positives cost it nothing, but large surfaces inside each other can take minutes. A distance transform
    takes a second or two at worst; scipy is asked for the nearest voxel only and the distance measured from
    `start`, which is half the work of distances for the whole grid.
    """
    if np.count_nonzero(start) + np.count_nonzero(goal) <= TREE_VOXELS:
        distances, _ = KDTree(np.argwhere(goal) * spacing).query(np.argwhere(start) * spacing)
        return distances
    nearest = ndimage.distance_transform_edt(~goal, spacing, return_distances=False, return_indices=True)
    squares = (((nearest[axis][start] - index) * spacing[axis]) ** 2 for axis, index in enumerate(np.nonzero(start)))
    return np.sqrt(sum(squares))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box around `mask`; None if it is empty."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return boxes[0] if boxes else None


def _enclosing(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes))


def _check_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != bool:
            raise InputError(f"{name} is {mask.dtype}; expected a bool mask, such as labels.to_regions gives")
    _check_shapes(prediction, truth)


def _check_shapes(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise InputError(f"prediction has shape {prediction.shape}, truth {truth.shape}; expected the same grid")


def _check_tolerance(tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"the tolerance is {tolerance} mm; expected 0 or more")


def _check_spacing(spacing: Sequence[float] | np.ndarray, axes: int) -> np.ndarray:
    sizes = np.asarray(spacing, float)
    if sizes.shape != (axes,) or not np.all(np.isfinite(sizes) & (sizes > 0)):
        raise InputError(f"spacing is {spacing}; expected {axes} positive sizes in mm, one for each axis")
    return sizes
