"""What a brain tumour looks like, as a test of whether modalities and labels carry the right names.

Each rule held in all nine BraTS cases that it was made on and failed when names were exchanged; none is a law, so
none is more than a warning: of 63 real cases of three cohorts two are doubted as they are (measured by
Testing/benchmarks/intake_doubts.py). What rests on little of the tumour, as on one stroke of a brush, is a remark
alone: kind "slight". Intensities are compared on each image's own scale: 0 is the median of the brain outside the
tumour, 1 its robust standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy import ndimage

from segmamba.cases.case import Case
from segmamba.cases.labels import LABELS
from segmamba.shared.swaps import HEAD_LIMIT, LIMIT, MODALITIES, Samples, find_exchange, gains, sample_together

_FEW_MM3, _FEW = 200.0, 20  # volume and voxels of a label below which it is not asked
# below both, in mm3 and as a share of all that is labelled, a finding is slight
_SLIGHT_MM3, _SLIGHT = 1000.0, 0.1
_CSF = 97  # percentile of T2w in the normal brain above which there is mostly fluid
_CLEAR = 0.5  # robust standard deviations by which a mirrored label map must fit better
_HARDLY = 0.1  # robust standard deviations: a case as it should be has 0.07 where the rule says 0
_BRIGHT = 1.0  # robust standard deviations by which a tumour stands out on t2w or t2f
_SAMPLE = 200_000
_WEIGHTED = {"T1": ("t1n", "t1c"), "T2": ("t2f", "t2w")}


def find_implausible(case: Case, label: np.ndarray) -> Iterator[tuple[str, str]]:
    """What makes a label map of a glioma doubtful when it is held against the images.

    Args:
        case: the images.
        label: (X, Y, Z), in the values of labels.GLIOMA.

    Yields:
        (kind, text); kind is "modalities", "labels", "elsewhere", "mirrored", or "slight" for any of them that rests on
        little.
    """
    images = case.images
    inside = np.all([image != 0 for image in images.values()], axis=0)
    masks = {name: (label == value) & inside for name, value in LABELS.items()}
    voxel = float(np.prod(voxel_sizes(case.affine)))
    few = max(_FEW, _FEW_MM3 / voxel)
    masks = {name: mask for name, mask in masks.items() if np.count_nonzero(mask) >= few}
    normal = inside & (label == 0)
    if np.count_nonzero(normal) < 10 * few:
        return
    scaled = {m: _scale(image, normal) for m, image in images.items()}
    total = np.count_nonzero((label > 0) & inside)
    for kind, text, count in (*_modalities(case, scaled, normal, masks), *_labels(scaled, masks, label)):
        if count * voxel < _SLIGHT_MM3 and count < _SLIGHT * total:
            kind, text = "slight", f"{text} (this rests on {count * voxel / 1000:.1f} mL of the tumour alone)"
        yield kind, text
    if masks:
        yield from _elsewhere(scaled, (label > 0) & inside)
    if "t2f" in scaled and masks:
        yield from _mirrored(scaled, label > 0, inside, case.affine)


def _scale(image: np.ndarray, normal: np.ndarray) -> np.ndarray:
    values = image[normal]
    values = values[:: max(1, values.size // _SAMPLE)]
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return (image - middle) / np.float32(spread or 1)


def _modalities(case: Case, scaled: Mapping, normal: np.ndarray, masks: Mapping) -> Iterator[tuple[str, str, int]]:
    """(kind, text, voxels that it rests on) of what modalities look exchanged.

    What the images show of themselves (shared.swaps) counts first. Where two show that they are in their places, the
    label map is doubted instead: unless another image shows a tumour there clearly, which may be dark on FLAIR where it
    is fluid, and bright on T1 where there is old blood. Of T1 and T1c the tumour says more than the images, which
    hardly differ where nothing else enhances.
    """
    images = {name: case.images[name] for name in MODALITIES if name in case.images}
    samples = sample_together(images, dict.fromkeys(images, case.affine)) if images else Samples({}, False)
    told = gains(samples.values)
    if pair := find_exchange({p: gain for p, gain in told.items() if p != ("t1n", "t1c")}, samples.is_head):
        why = f"{pair[0]} and {pair[1]} may be exchanged: they would fit the other images better"
        yield "modalities", why, int(np.count_nonzero(normal))
    limit = HEAD_LIMIT if samples.is_head else LIMIT
    in_place = {frozenset(pair) for pair, gain in told.items() if gain > limit}
    found, clear = [], False
    if {"t2w", "t2f"} <= set(scaled):
        # nine cases: -4.9 to -1.2 as named, 0.4 to 1.5 exchanged
        bright = scaled["t2w"][normal]
        fluid = scaled["t2f"][normal][bright > np.percentile(bright, _CSF)]
        if np.median(fluid) > 0:
            found.append(("t2w", "t2f", "fluid, brightest on t2w, is not dark on t2f", normal))
    tumour = [mask for name, mask in masks.items() if name != "ET"]
    if tumour:
        tumour = np.any(tumour, axis=0)
        level = {m: float(np.median(image[tumour])) for m, image in scaled.items()}
        best = {one: max((level[m] for m in pair if m in level), default=0.0) for one, pair in _WEIGHTED.items()}
        clear = best["T2"] >= best["T1"] + _BRIGHT
        for t1 in _WEIGHTED["T1"]:
            for t2 in _WEIGHTED["T2"]:
                if {t1, t2} <= set(level) and level[t1] > level[t2] + _HARDLY:
                    found.append((t1, t2, f"tumour without enhancement is brighter on {t1} than on {t2}", tumour))
    for one, other, why, mask in found:
        if {one, other} not in in_place:
            yield "modalities", f"{one} and {other} may be exchanged: {why}", int(np.count_nonzero(mask))
        elif mask is normal or not clear:
            yield "elsewhere", f"{why}, though the images look to be in their places", int(np.count_nonzero(mask))
    if "ET" in masks and {"t1n", "t1c"} <= set(scaled):
        # five cases with enhancement: 1.4 to 3.9 as named
        gain = float(np.median((scaled["t1c"] - scaled["t1n"])[masks["ET"]]))
        why = "enhancing tumor is brighter on t1n than on t1c"
        if gain < 0 and {"t1n", "t1c"} in in_place:
            # vessels and mucosa take up contrast agent in every head: then what was drawn does not
            text = f"{why}, though t1c is the image with contrast agent: does this part enhance?"
            yield "labels", text, int(np.count_nonzero(masks["ET"]))
        elif gain < 0:
            yield "modalities", f"t1n and t1c may be exchanged: {why}", int(np.count_nonzero(masks["ET"]))


def _labels(scaled: Mapping, masks: Mapping, label: np.ndarray) -> Iterator[tuple[str, str, int]]:
    """(kind, text, voxels that it rests on) of labels that look like another convention."""
    if {"ET", "ED"} <= set(masks) and "t1c" in scaled:
        # five cases: 1.1 to 5.1 brighter
        et, ed = (float(np.median(scaled["t1c"][masks[name]])) for name in ("ET", "ED"))
        if et < ed:
            few = min(int(np.count_nonzero(masks[name])) for name in ("ET", "ED"))
            yield "labels", "ET is darker on t1c than ED: labels may follow another convention", few
    if {"NCR", "ED"} <= set(masks):
        # oedema lies around the core; nine cases: 16 to 54 % of it on the surface, 0 to 14 % of the core
        whole = label > 0
        surface = whole & ~ndimage.binary_erosion(whole)
        ncr, ed = (np.count_nonzero(surface & masks[n]) / np.count_nonzero(masks[n]) for n in ("NCR", "ED"))
        if ncr > ed:
            few = min(int(np.count_nonzero(masks[name])) for name in ("NCR", "ED"))
            yield "labels", "NCR lies around ED, not within it: labels may follow another convention", few


def _elsewhere(scaled: Mapping, tumour: np.ndarray) -> Iterator[tuple[str, str]]:
    """(kind, text) of a label map that fits no image.

    Nine cases: the tumour stands out by 1.6 to 8.0 on the better one; moved to other places, by -0.3 to 1.0.
    """
    levels = [float(np.median(scaled[m][tumour])) for m in ("t2w", "t2f") if m in scaled]
    if levels and max(levels) < _BRIGHT:
        yield "elsewhere", "what is labelled is hardly brighter on t2w and t2f than the brain around it"


def _mirrored(scaled: Mapping, tumour: np.ndarray, inside: np.ndarray, affine: np.ndarray) -> Iterator:
    """Nine cases: the tumour is 1.2 to 4.9 brighter on FLAIR than its mirror image.

    A core of fluid is not, nor is one that T2 alone shows: there t2w tells that the label map is in its place.
    """
    axis = next(i for i, code in enumerate(aff2axcodes(affine)) if code in "LR")
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    opposite = np.zeros_like(tumour)
    opposite[box] = np.flip(tumour[box], axis)
    opposite &= inside
    if not opposite.any():
        return
    excess = {}
    for modality in ("t2w", "t2f"):
        if modality in scaled:
            image = scaled[modality]
            excess[modality] = float(np.median(image[tumour & inside]) - np.median(image[opposite]))
    if excess["t2f"] < -_CLEAR and excess.get("t2w", 0.0) <= _CLEAR:
        yield "mirrored", "the label map fits t2f better when left and right are exchanged"
