"""Overlapping windows over a volume: where they lie, how much their voxels count, the mean of what they give.

The same places, weights and order of sums as MONAI's sliding_window_inference with gaussian weights, bit for bit, which
the tests hold it to. MONAI itself takes longer to load than a case takes to segment, and a case needs nothing else of
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

_SIGMA = 1 / 8  # of the gaussian weight, in windows
_LEAST = 1e-3  # weight, so that nothing is divided by 0

Place = tuple[slice, slice, slice]


def window_places(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[Place]:
    """Windows over a volume, the last of each axis flush with the far end.

    Args:
        shape: (D, H, W) of the volume in voxels, nowhere smaller than the window.
        window: (d, h, w) in voxels.
        overlap: of neighbouring windows, as a share of the window; 0 to below 1.

    Returns:
        The places in C order: three slices each.
    """
    starts = [list(_starts(*sides, overlap)) for sides in zip(shape, window)]
    return [
        cast(Place, tuple(slice(start, start + side) for start, side in zip(corner, window)))
        for corner in itertools.product(*starts)
    ]


def _starts(size: int, window: int, overlap: float) -> Iterator[int]:
    start, step = 0, max(1, int(window * (1 - overlap)))
    while start + window < size:
        yield start
        start += step
    yield size - window


def mean_of_windows(
    image: Tensor,
    places: Sequence[Place],
    run: Callable[[Tensor], Tensor],
    *,
    sw_batch_size: int,
    run_on: torch.device,
    accumulate_on: torch.device,
) -> Tensor:
    """The weighted mean of what `run` gives for the windows of an image.

    Args:
        image: (C, D, H, W).
        places: windows of one size, which together cover the image.
        run: (B, C, d, h, w) on `run_on`, B up to `sw_batch_size`, -> (B, K, d, h, w).
        sw_batch_size: windows that are run together.
        run_on: where `run` computes.
        accumulate_on: where results are summed.

    Returns:
        (K, D, H, W) float32, on `accumulate_on`.
    """
    weight = _weights([part.stop - part.start for part in places[0]], run_on)
    gathered = weight.to(accumulate_on)
    total = None
    weights = torch.zeros(image.shape[1:], device=accumulate_on)
    for first in range(0, len(places), sw_batch_size):
        group = places[first : first + sw_batch_size]
        results = run(torch.stack([image[(slice(None), *place)] for place in group]).to(run_on))
        results = (results * weight).to(accumulate_on)
        if total is None:
            total = torch.zeros(results.shape[1], *image.shape[1:], device=accumulate_on)
        for place, result in zip(group, results):
            total[(slice(None), *place)] += result
            weights[place] += gathered
    assert total is not None  # there is a window
    return total.div_(weights)


def _weights(window: Sequence[int], device: torch.device) -> Tensor:
    """(d, h, w): a gaussian around the middle."""
    result = torch.ones((), device=device)
    for side in window:
        x = torch.arange(-(side - 1) / 2, (side - 1) / 2 + 1, device=device)
        result = result[..., None] * torch.exp(x**2 / (-2 * (side * _SIGMA) ** 2))
    return result.clamp_(min=max(result.min().item(), _LEAST))
