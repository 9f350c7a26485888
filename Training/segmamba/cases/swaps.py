"""A warning about two images of a case that look as if they were given in each other's place (shared.swaps)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segmamba.shared.swaps import MODALITIES, TITLES, find_exchange, gains, sample_together


def swap_warnings(images: Mapping[str, np.ndarray], affines: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence about `images` (X, Y, Z) that look exchanged, with what they were taken for; [] where nothing does.

    affines: (4, 4) to RAS mm by modality; the images may lie on different grids. Other names than MODALITIES are
    passed over.
    """
    images = {name: image for name, image in images.items() if name in MODALITIES}
    if len(images) < 2:
        return []
    samples = sample_together(images, affines)
    return judge(gains(samples.values), samples.is_head)


def judge(found: Mapping[tuple[str, str], float], is_head: bool) -> list[str]:
    """A sentence about the exchange that `gains` speaks for; [] for none."""
    pair = find_exchange(found, is_head)
    if pair is None:
        return []
    if pair == ("t1n", "t1c"):
        return ["T1 looks more like an image with contrast agent than T1c does. Are the two swapped?"]
    if pair == ("t2w", "t2f"):
        return ["Fluid is dark in T2 and brighter in FLAIR. Are T2 and FLAIR swapped?"]
    one, other = (TITLES[name] for name in pair)
    return [f"{one} and {other} would match the other images better if they were swapped. Check both."]
