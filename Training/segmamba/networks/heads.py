"""Output heads: what the channels of a network mean, and how they become label probabilities.

Two heads: "labels", a softmax over background and labels; and "regions", a sigmoid for each of the nested regions
(WT, TC, ET), from the outermost in, as nnU-Net calls region-based training. Both give label probabilities, so that
nothing behind the network has to know which one a model has. A model's manifest holds the head as `nested`: empty for
"labels"; else, for each channel, the label of what lies in its region and not in the next one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError

HEADS = ("labels", "regions")


def nested_labels(scheme: LabelScheme) -> tuple[int, ...]:
    """For the "regions" head: the label that each region adds to the next inner one, outermost first.

    Of gliomas (WT, TC, ET) that is (2 ED, 1 NCR, 3 ET). Raises InputError where the regions are not nested so that
    each adds one label.
    """
    sets = sorted((set(scheme.values(region)) for region in scheme.regions), key=len, reverse=True)
    shells = [outer - inner for outer, inner in pairwise([*sets, set()])]
    chain = all(outer >= inner for outer, inner in pairwise(sets))
    if not chain or any(len(shell) != 1 for shell in shells) or len(shells) != len(scheme.labels):
        raise InputError(
            f"head = 'regions' needs regions nested in each other, each with one label more than the next; "
            f"{scheme.regions} are not: use head = 'labels'"
        )
    return tuple(shell.pop() for shell in shells)


def count_channels(labels: int, nested: tuple[int, ...]) -> int:
    """Output channels of a network for `labels` labels."""
    return len(nested) or 1 + labels


def label_probabilities(logits: Tensor, nested: tuple[int, ...]) -> Tensor:
    """Logits (B, channels, D, H, W) -> probabilities (B, 1 + labels, D, H, W) float32 that sum to 1.

    An inner region is never likelier than the one around it: its probability is limited to that one's.
    """
    if not nested:
        return torch.softmax(logits.float(), dim=1)
    regions = list(torch.sigmoid(logits.float()).unbind(1))
    for inner in range(1, len(regions)):  # torch.cummin over so few channels takes seventy times as long
        regions[inner] = torch.minimum(regions[inner - 1], regions[inner])
    result = torch.empty((len(logits), 1 + len(nested), *logits.shape[2:]), device=logits.device)
    result[:, 0] = 1 - regions[0]
    for label, outer, inner in zip(nested, regions, [*regions[1:], torch.zeros((), device=logits.device)]):
        result[:, label] = outer - inner
    return result


def region_shares(shares: Tensor, nested: tuple[int, ...]) -> Tensor:
    """Shares of the labels (B, 1 + labels, D, H, W) -> shares of the regions (B, regions, D, H, W), outermost first."""
    shells = shares[:, list(nested)]
    return shells.flip(1).cumsum(1).flip(1)


def regions_from_labels(weight: Tensor, nested: tuple[int, ...]) -> Tensor:
    """The last layer of a "labels" head, weight or bias (1 + labels, ...) -> that of a "regions" head (regions, ...).

    log(p / (1 - p)) of a region is the difference of two log-sums over labels; means take their place, which is near
    enough to begin a training with.
    """
    labels = range(len(weight))
    rows = []
    for channel in range(len(nested)):
        inside = list(nested[channel:])
        outside = [label for label in labels if label not in inside]
        rows.append(weight[inside].mean(0) - weight[outside].mean(0))
    return torch.stack(rows)
