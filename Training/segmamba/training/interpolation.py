"""Weights between those of a model and of what was fine-tuned from it.

Wortsman et al., Robust fine-tuning of zero-shot models (CVPR 2022; "WiSE-FT"): the straight line between the two keeps
most of what fine-tuning brought and loses less of what the model knew than either end of it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from segmamba.errors import InputError
from segmamba.models.package import Manifest, load_package, save_package


def interpolate(before: nn.Module, after: nn.Module, share: float) -> None:
    """Changes the weights of one network in place to some of the way from another's.

    Args:
        before: where the way begins; it stays as it is.
        after: where the way ends, and what is changed.
        share: of the way, 0 to 1: 0 gives the weights of `before`, 1 leaves its own.

    Raises:
        InputError: where the two are not of one build.
    """
    start, end = before.state_dict(), after.state_dict()
    if {name: t.shape for name, t in start.items()} != {name: t.shape for name, t in end.items()}:
        raise InputError("weights of two different networks cannot be interpolated")
    with torch.no_grad():
        for name, tensor in end.items():
            tensor.lerp_(start[name].to(tensor), 1 - share)


def save_between(folder: Path, before: Path, after: Path, share: float) -> Manifest:
    """Writes the package of the weights some of the way from one package to another.

    Args:
        folder: of the new package.
        before: folder of the package where the way begins.
        after: folder of that where it ends, whose manifest the new one has; its metrics, measured with other weights,
            are left out.
        share: of the way, 0 to 1.

    Returns:
        The manifest as it was written.

    Raises:
        InputError: for a broken package, or two that are not of one build.
    """
    start, end = load_package(before), load_package(after)
    interpolate(start.network, end.network, share)
    way = {"from": start.manifest.id, "share": share}
    manifest = dataclasses.replace(end.manifest, metrics={}, training={**end.manifest.training, "interpolation": way})
    text = f"{share:.0%} of the way from {start.manifest.id} to what was fine-tuned from it; see model.json."
    card = f"# {manifest.id}\n\n{text}\n"
    return save_package(folder, end.network, manifest, card)
