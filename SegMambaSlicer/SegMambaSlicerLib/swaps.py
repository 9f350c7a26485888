"""Whether two volumes were given in each other's place, judged by their intensities.

Three measures, each positive where the volumes are in their places. On nine BraTS 2021 cases and one of TCGA (four of
them without enhancing tumour) they were at least 0.27, 0.20 and 0.28, and fell below minus that where the pair was
exchanged. A T1 or T1c exchanged with a FLAIR is mostly not noticed. Nothing here is certain: it is a reason to look.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import slicer

from .i18n import _
from .scene import ijkToWorld

SAMPLES = 150_000  # points compared; enough for percentiles to two digits
FEWEST = 500  # common points of tissue below which nothing is said
CONTRAST_LIMIT, FLUID_LIMIT, LIKENESS_LIMIT = -0.15, -0.1, -0.15


def swapWarnings(volumes: Mapping[str, object]) -> list[str]:
    """Sentences about volumes (modality -> node or None) that look exchanged; [] where nothing speaks for it.

    Volumes may lie on different grids; they are compared at common points. Raises InputError for a non-linear
    parent transform.
    """
    nodes = {name: node for name, node in volumes.items() if node is not None and node.GetImageData() is not None}
    if "t1n" not in nodes and "t1c" not in nodes:
        return []
    return judge(swapMeasures(sampleTogether(nodes)))


def judge(measures: Mapping[str, float]) -> list[str]:
    """Sentences about what `swapMeasures` found out of place."""
    warnings = []
    if measures.get("contrast", 0) < CONTRAST_LIMIT:
        warnings.append(_("T1 looks more like an image with contrast agent than T1c does. Are the two swapped?"))
    if measures.get("fluid", 0) < FLUID_LIMIT:
        warnings.append(_("Fluid is dark in T2 and brighter in FLAIR. Are T2 and FLAIR swapped?"))
    if measures.get("likeness", 0) < LIKENESS_LIMIT:
        warnings.append(_("T1 looks more like T2 than like T1c. Is T1c or T1 in the place of T2?"))
    return warnings


def sampleTogether(nodes: Mapping[str, object]) -> dict[str, np.ndarray]:
    """(N,) float64 values of each volume at common points of tissue; each volume's middle half is scaled to 1."""
    first = nodes.get("t1c") or next(iter(nodes.values()))
    size = np.array(first.GetImageData().GetDimensions())
    step = max(1, int(np.cbrt(size.prod() / SAMPLES)))
    ijk = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in size), indexing="ij")).reshape(3, -1)
    world = ijkToWorld(first) @ np.vstack([ijk, np.ones(ijk.shape[1])])
    values, tissue, brightness = {}, np.ones(ijk.shape[1], bool), 0.0
    for name, node in nodes.items():
        array = slicer.util.arrayFromVolume(node)
        place = np.rint((np.linalg.inv(ijkToWorld(node)) @ world)[:3]).astype(int)
        inside = ((place >= 0) & (place < np.array(array.shape[::-1])[:, None])).all(0)
        found = np.zeros(ijk.shape[1])
        i, j, k = place[:, inside]
        found[inside] = array[k, j, i]
        tissue &= inside & np.isfinite(found) & (found > 0)
        bright = np.percentile(found[inside & np.isfinite(found)], 98) if inside.any() else 0
        brightness = brightness + found / (bright or 1)
        values[name] = found
    tissue &= brightness > 0.15 * len(nodes)  # air around a head that still has its skull is noise, not 0
    if tissue.sum() < FEWEST:
        return {}
    return {name: _scaled(found[tissue]) for name, found in values.items()}


def swapMeasures(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The measures that the given modalities allow: contrast (t1n, t1c), fluid (T1, t2w, t2f), likeness.

    contrast: how much heavier the bright tail of T1c is, in itself and after T1 is taken away.
    fluid: FLAIR goes with T1 (fluid is dark in both) more than T2 does. likeness: T1 goes with T1c more than with T2.
    """
    measures = {}
    t1n, t1c, t2w, t2f = (values.get(name) for name in ("t1n", "t1c", "t2w", "t2f"))
    if t1n is not None and t1c is not None:
        gain = t1c - t1n
        low, high = np.percentile(gain - np.median(gain), [1, 99])
        brightest = [max(np.percentile(image, 99.5), 0.05) for image in (t1c, t1n)]
        measures["contrast"] = float((low + high) / max(high - low, 1e-6) + np.log(brightest[0] / brightest[1]))
    if t2w is not None and t2f is not None and (t1n is not None or t1c is not None):
        t1 = sum(image for image in (t1n, t1c) if image is not None)
        measures["fluid"] = _correlation(t1, t2f) - _correlation(t1, t2w)
    if t1n is not None and t1c is not None and t2w is not None:
        measures["likeness"] = _correlation(t1n, t1c) - _correlation(t1n, t2w)
    return measures


def _scaled(values: np.ndarray) -> np.ndarray:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return (values - middle) / max(high - low, 1e-6)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread else 0.0
