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
    """Changes the weights of `after` in place: `share` 0 gives those of `before`, 1 leaves its own.

    Raises InputError where the two are not of one build.
    """
    start, end = before.state_dict(), after.state_dict()
    if {name: t.shape for name, t in start.items()} != {name: t.shape for name, t in end.items()}:
        raise InputError("weights of two different networks cannot be interpolated")
    with torch.no_grad():
        for name, tensor in end.items():
            tensor.lerp_(start[name].to(tensor), 1 - share)


def save_between(folder: Path, before: Path, after: Path, share: float) -> Manifest:
    """Writes the package of the weights `share` of the way from one package to the other.

    With the manifest of `after`; the metrics, measured with other weights, are left out.
    """
    start, end = load_package(before), load_package(after)
    interpolate(start.network, end.network, share)
    way = {"from": start.manifest.id, "share": share}
    manifest = dataclasses.replace(end.manifest, metrics={}, training={**end.manifest.training, "interpolation": way})
    text = f"{share:.0%} of the way from {start.manifest.id} to what was fine-tuned from it; see model.json."
    card = f"# {manifest.id}\n\n{text}\n"
    return save_package(folder, end.network, manifest, card)
