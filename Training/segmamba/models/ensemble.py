"""Several models as one: the mean of their label probabilities, as of the folds of a cross-validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from segmamba.errors import InputError
from segmamba.models.package import Model, load_package
from segmamba.networks.choice import AnyNetworkConfig
from segmamba.networks.heads import label_probabilities, region_shares
from segmamba.settings import plain

_SAME = ("preprocess", "inference", "label_map", "regions", "postprocess", "incomplete")
_LEAST = 1e-7  # of a probability whose logarithm is taken: rounding of float32


class Ensemble(nn.Module):
    """Networks of one head (networks.heads) -> logits of the mean of their label probabilities.

    So whatever runs a network runs it: the mean over windows and mirrorings of these is the mean over all.
    """

    def __init__(self, networks: Sequence[nn.Module], nested: tuple[int, ...]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.nested = nested

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, K, D, H, W), as one of the networks."""
        mean = label_probabilities(self.networks[0](x), self.nested)
        for network in self.networks[1:]:
            mean = mean + label_probabilities(network(x), self.nested)
        mean = mean / len(self.networks)
        if self.nested:
            return torch.logit(region_shares(mean, self.nested), eps=_LEAST)
        return mean.clamp(min=_LEAST).log()


def load_ensemble(folders: Sequence[Path | str]) -> Model:
    """One package, or several as one model. Its manifest is the first one's, with an id that says which they are.

    Raises InputError as `load_package`, and where two differ in what they take, how they run or what they answer.
    """
    models = [load_package(folder) for folder in folders]
    first = models[0]
    if len(models) == 1:
        return first
    for model in models[1:]:
        for name in _SAME:
            if getattr(model.manifest, name) != getattr(first.manifest, name):
                raise InputError(
                    f"models {first.folder} and {model.folder} differ in {name}; models that are averaged agree in "
                    f"{', '.join(_SAME)}"
                )
    hashes = [model.manifest.weights_sha256 for model in models]
    if twice := [model.folder for n, model in enumerate(models) if hashes[n] in hashes[:n]]:
        raise InputError(f"model {twice[0]} has the weights of one before it; give each model once")
    ids = list(dict.fromkeys(model.manifest.id for model in models))
    manifest = replace(
        first.manifest,
        id=" + ".join(ids) if len(ids) == len(models) else f"{' + '.join(ids)}, mean of {len(models)}",
        weights_sha256=_digest(hashes, [model.manifest.network for model in models]),
    )
    network = Ensemble([model.network for model in models], first.manifest.inference.nested)
    return Model(network.eval(), manifest, first.folder)


def _digest(hashes: Sequence[str], networks: Sequence[AnyNetworkConfig]) -> str:
    """Of the weights of all; and of the networks, where they are not all as the manifest, the first one's, says."""
    known = "".join(hashes)
    if any(network != networks[0] for network in networks):
        known += json.dumps([plain(network) for network in networks])
    return hashlib.sha256(known.encode()).hexdigest()
