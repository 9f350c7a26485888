"""Whether two volumes were given in each other's place, judged by their intensities.

The engine judges what it has registered by the same rules, which both load (segmamba/shared/swaps.py explains them).
Nothing here is certain: it is a reason to look.
"""

from __future__ import annotations

from collections.abc import Mapping

import slicer

from ..engine.shared import loadShared
from ..i18n import _
from .scene import ijkToWorld


def swapWarnings(volumes: Mapping[str, object]) -> list[str]:
    """A sentence about volumes (modality -> node or None) that look exchanged; [] where nothing speaks for it.

    Volumes may lie on different grids; they are compared at common points. Raises InputError for a non-linear
    parent transform, and where the engine's files are missing.
    """
    rules = loadShared("swaps")
    nodes = {name: volumes.get(name) for name in rules.MODALITIES}
    nodes = {name: node for name, node in nodes.items() if node is not None and node.GetImageData() is not None}
    if len(nodes) < 2:
        return []
    samples = sampleNodes(nodes)
    return judge(rules.gains(samples.values), samples.is_head)


def sampleNodes(nodes: Mapping[str, object]):
    """The volumes at common points of the brain: see `sample_together` of the shared rules."""
    images = {name: slicer.util.arrayFromVolume(node).transpose(2, 1, 0) for name, node in nodes.items()}
    affines = {name: ijkToWorld(node) for name, node in nodes.items()}
    return loadShared("swaps").sample_together(images, affines)


def judge(found: Mapping[tuple[str, str], float], isHead: bool) -> list[str]:
    """A sentence about the exchange that `gains` of the shared rules speaks for; [] for none."""
    rules = loadShared("swaps")
    pair = rules.find_exchange(found, isHead)
    if pair is None:
        return []
    if pair == ("t1n", "t1c"):
        return [_("T1 looks more like an image with contrast agent than T1c does. Are the two swapped?")]
    if pair == ("t2w", "t2f"):
        return [_("Fluid is dark in T2 and brighter in FLAIR. Are T2 and FLAIR swapped?")]
    text = _("{one} and {other} would match the other images better if they were swapped. Check both.")
    return [text.format(one=rules.TITLES[pair[0]], other=rules.TITLES[pair[1]])]
