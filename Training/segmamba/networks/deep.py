"""Deep supervision: more outputs, on coarser grids of the decoder, that a network learns by and is released without.

Lee et al., Deeply-supervised nets, arXiv 1409.5185; as nnU-Net has it (Isensee et al., Nature Methods 18, 2021): a
1x1x1 convolution on each level of the decoder, weights in the loss that are halved with each halving of the grid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from segmamba.errors import InputError
from segmamba.networks.baselines import BaselineConfig
from segmamba.networks.segmamba import SegMamba

_LEVELS = 4  # outputs, the network's own among them: beyond an eighth of the sides nothing of a lesion is left


class DeepSupervision(nn.Module):
    """A network and its heads: (B, C, D, H, W) -> [logits, logits on half the grid, ...], the finest first.

    The network's own parameters and names stay as they are. Raises InputError for a network whose decoder is not known
    here.
    """

    def __init__(self, network: nn.Module, out_channels: int):
        super().__init__()
        self.network = network
        levels = _levels(network)
        self.heads = nn.ModuleList(nn.Conv3d(channels, out_channels, 1) for _, channels in levels)
        self._seen: list[Tensor] = []
        for block, _ in levels:
            block.register_forward_hook(self._see)

    def _see(self, block: nn.Module, inputs: Any, output: Tensor) -> None:
        self._seen.append(output)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) -> logits of each level."""
        self._seen.clear()
        logits = self.network(x)
        outputs = [head(seen) for head, seen in zip(self.heads, reversed(self._seen))]
        self._seen.clear()
        return [logits, *outputs]


def level_weights(count: int) -> list[float]:
    """Of the loss on each level: halved from one to the next; together 1."""
    weights = [0.5**level for level in range(count)]
    return [weight / sum(weights) for weight in weights]


def _levels(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """Blocks of the decoder on halved grids and their channels, the finest first."""
    if isinstance(network, SegMamba):
        _, c1, c2, c3 = network.config.features
        own: list[tuple[nn.Module, int]] = [(network.decoder3, c1), (network.decoder4, c2), (network.decoder5, c3)]
        return own[: _LEVELS - 1]
    config = getattr(network, "config", None)
    unet: Any = getattr(network, "network", None)
    if isinstance(config, BaselineConfig) and hasattr(unet, "decoder_channels"):  # networks.baselines.nnunet.UNet
        pairs = list(zip(reversed(list(unet.decoder)), unet.decoder_channels))
        return pairs[1:_LEVELS]
    name = config.name if isinstance(config, BaselineConfig) else type(network).__name__
    raise InputError(f"deep_supervision is for segmamba, nnunet and umamba, not for {name}; leave it out")
