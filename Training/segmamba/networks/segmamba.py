"""SegMamba: a U-shaped network whose encoder mixes convolutions with tri-orientated Mamba layers.

Xing et al., "SegMamba: Long-range Sequential Modeling Mamba For 3D Medical Image Segmentation",
arXiv 2401.13560 (MICCAI 2024). Four networks bear the name: the code published since June 2024
(`released`), the later text of the paper (`paper`), the first code (`v1`), and the first text (`v1-text`).
`quick` has the blocks of `released`, narrow, for machines without a GPU.

    input (full) --- encoder1 ------------------------------> decoder2 -> decoder1 -> out
      stem, /2   -> stage 0 -- skip -> encoder2 -----------> decoder3 ^
      /4         -> stage 1 -- skip -> encoder3 ----------> decoder4 ^
      /8         -> stage 2 -- skip -> encoder4 ---------> decoder5 ^
      /16        -> stage 3 -- skip -> encoder5 ---------^
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from segmamba.errors import InputError
from segmamba.limits import CHANNELS, LAYERS
from segmamba.networks.blocks import (
    ChannelLayerNorm,
    ChannelMLP,
    GatedSpatialConv,
    MambaLayer,
    MambaMLPBlock,
    TSMambaBlock,
    feature_uncertainty,
)
from segmamba.networks.mamba import DIRECTIONS
from segmamba.networks.norm import InstanceNorm, instance_norm
from segmamba.networks.unet import BasicBlock, OutBlock, UpBlock

STRIDE = 16  # every side of the input is a multiple of it: the stem and three downsamplings halve it


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that decides the shape of a network; stored in a model's manifest."""

    form: str = "released"
    """Which of the four published forms."""
    in_channels: int = 4
    """Of the input: one a modality."""
    out_channels: int = 4
    """Of the logits (heads.count_channels)."""
    features: tuple[int, int, int, int] = (48, 96, 192, 384)
    """Channels of the four stages."""
    full_features: int = 48
    """Channels at the input's own resolution."""
    bottleneck: int = 768
    """Channels of encoder5."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Mamba layers of each stage; with 0 a stage has its convolutions alone."""
    directions: tuple[str, ...] = tuple(DIRECTIONS)
    """Scans of each Mamba layer."""
    mamba_residual: bool = True
    """Whether a Mamba layer adds its input, which no checkpoint tells (it came on 5 June 2024); `paper` always does."""

    def __post_init__(self) -> None:
        if self.form not in _ENCODERS:
            raise InputError(f"unknown network form {self.form!r}; known are {', '.join(_ENCODERS)}")
        for name in ("features", "depths", "directions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.features) != 4 or len(self.depths) != 4:
            raise InputError(f"features and depths need four stages each, got {self.features} and {self.depths}")
        sizes = (self.in_channels, self.out_channels, self.full_features, self.bottleneck, *self.features)
        if not (1 <= min(sizes) <= max(sizes) <= CHANNELS and 0 <= min(self.depths) <= max(self.depths) <= LAYERS):
            raise InputError(
                f"channels and features of a network must be 1 to {CHANNELS}, depths 0 to {LAYERS}, got {self}"
            )
        known = set(self.directions) <= set(DIRECTIONS)
        if not self.directions or not known or len(set(self.directions)) < len(self.directions):
            raise InputError(f"directions {self.directions} must be some of {tuple(DIRECTIONS)}, each once")
        if self.form in ("paper", "v1-text") and not self.mamba_residual:
            raise InputError(
                f"mamba_residual cannot be switched off in the form {self.form!r}; 'released' and 'v1' let it"
            )

    def to_dict(self) -> dict:
        """The configuration as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> NetworkConfig:
        """The configuration of plain JSON. Raises InputError for an unknown key."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise InputError(f"unknown network settings {sorted(unknown)}; known are {sorted(known)}")
        return cls(**values)


class ReleasedEncoder(nn.Module):
    """The code since June 2024 (`released`). A stage: GSC once, then the Mamba layers.

    Its skip is MLP(InstanceNorm(x)), used by the decoder only.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        channels = config.features
        stem = nn.Sequential(nn.Conv3d(config.in_channels, channels[0], 7, stride=2, padding=3))
        self.downsample_layers = _downsampling(stem, lambda c: InstanceNorm(), channels)
        self.stages = _mamba_stages(config)
        self.gscs = nn.ModuleList(GatedSpatialConv(c) for c in channels)
        self.mlps = nn.ModuleList(ChannelMLP(c, ratio=2) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, D, H, W) -> the skips of the stages, the finest first."""
        skips = []
        for downsample, gsc, stage, mlp in zip(self.downsample_layers, self.gscs, self.stages, self.mlps):
            # the last of each Sequential alone, its convolution: the norm before it was taken already, for the skip
            normed = instance_norm(stage(gsc(cast(nn.Sequential, downsample)[-1](x))))
            skips.append(mlp(normed))
            x = normed
        return skips


class PaperEncoder(nn.Module):
    """The later text (`paper`). A stage: N_m TSMamba blocks.

    Its output is the skip, which passes through FUE on its way to the decoder.

    "N_m" times "GSC, ToM, MLP": figure 2 draws the GSC inside the repeated box. The stem is a "depth-wise"
    convolution of kernel 7, stride 2 in the text; with 4 channels in and 48 out that is a grouped convolution,
    groups = input channels (out channels must be a multiple), or a dense one where that does not divide.
    """

    block: type[nn.Module] = TSMambaBlock

    def __init__(self, config: NetworkConfig):
        super().__init__()
        channels = config.features
        groups = config.in_channels if channels[0] % config.in_channels == 0 else 1
        stem = nn.Sequential(nn.Conv3d(config.in_channels, channels[0], 7, stride=2, padding=3, groups=groups))
        self.downsample_layers = _downsampling(stem, lambda c: InstanceNorm(), channels)
        self.stages = nn.ModuleList(
            nn.Sequential(*(self.block(c, config.directions) for _ in range(depth)))
            for c, depth in zip(channels, config.depths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, D, H, W) -> the skips of the stages, the finest first."""
        skips = []
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))
            skips.append(x)
        return skips


class V1TextEncoder(PaperEncoder):
    """The first text (`v1-text`): stem, then N_m times LN, Mamba, residual and LN, MLP, residual; no GSC, no FUE.

    What that text leaves open is as in the later one: the stem's groups, the instance norm before each downsampling.
    """

    block = MambaMLPBlock


class V1Encoder(nn.Module):
    """The first code (`v1`): bidirectional Mamba without residual, no GSC.

    LayerNorm over channels and an MLP of ratio 4 are on the skips.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        channels = config.features
        conv = nn.Conv3d(config.in_channels, channels[0], 7, stride=2, padding=3)
        stem = nn.Sequential(conv, ChannelLayerNorm(channels[0]))
        self.downsample_layers = _downsampling(stem, ChannelLayerNorm, channels)
        self.stages = _mamba_stages(config)
        for i, c in enumerate(channels):
            self.add_module(f"norm{i}", ChannelLayerNorm(c))
        self.mlps = nn.ModuleList(ChannelMLP(c, ratio=4) for c in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, D, H, W) -> the skips of the stages, the finest first."""
        skips = []
        for i, (downsample, stage, mlp) in enumerate(zip(self.downsample_layers, self.stages, self.mlps)):
            x = stage(downsample(x))
            skips.append(mlp(getattr(self, f"norm{i}")(x)))
        return skips


# form -> (encoder, its name in published checkpoints)
_ENCODERS = {
    "released": (ReleasedEncoder, "vit"),
    "paper": (PaperEncoder, "encoder"),
    "v1": (V1Encoder, "mamba_encoder"),
    "v1-text": (V1TextEncoder, "encoder"),
}


class SegMamba(nn.Module):
    """SegMamba: (B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W), on the same grid.

    D, H and W are multiples of 16, at least one of them 32 or more; pad the input otherwise.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        encoder_class, self._encoder_name = _ENCODERS[config.form]
        self.add_module(self._encoder_name, encoder_class(config))
        full = config.full_features
        c0, c1, c2, c3 = config.features
        bottom = config.bottleneck
        self.encoder1 = BasicBlock(config.in_channels, full)
        self.encoder2 = BasicBlock(c0, c1)
        self.encoder3 = BasicBlock(c1, c2)
        self.encoder4 = BasicBlock(c2, c3)
        self.encoder5 = BasicBlock(c3, bottom)
        self.decoder5 = UpBlock(bottom, c3)
        self.decoder4 = UpBlock(c3, c2)
        self.decoder3 = UpBlock(c2, c1)
        self.decoder2 = UpBlock(c1, full)
        self.decoder1 = BasicBlock(full, full)
        self.out = OutBlock(full, config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W)."""
        self._check(x)
        image, skips = x, self.get_submodule(self._encoder_name)(x)
        if self.config.form == "paper":
            skips = [feature_uncertainty(skip) for skip in skips]
        x = self.encoder5(skips[3])
        x = self.decoder5(x, self.encoder4(skips[2]))
        x = self.decoder4(x, self.encoder3(skips[1]))
        x = self.decoder3(x, self.encoder2(skips[0]))
        full = self.encoder1(image)  # the largest skip by far, and no sooner than it is wanted
        if self.config.form == "paper":
            full = feature_uncertainty(full)
        x = self.decoder2(x, full)
        return self.out(self.decoder1(x))

    def _check(self, x: Tensor) -> None:
        channels = self.config.in_channels
        sides = tuple(x.shape[2:])
        fits = x.ndim == 5 and x.shape[1] == channels and all(side > 0 and side % STRIDE == 0 for side in sides)
        if not fits or max(sides) == STRIDE:
            raise InputError(
                f"network input has shape {tuple(x.shape)}; expected (B, {channels}, D, H, W) with every side a "
                f"multiple of {STRIDE} and at least one of {2 * STRIDE} or more; pad the image to the next multiple"
            )


def _downsampling(stem: nn.Module, norm: Callable[[int], nn.Module], channels: tuple[int, ...]) -> nn.ModuleList:
    """What stands before each stage: the stem, then three times norm and a halving convolution."""
    layers = [nn.Sequential(norm(a), nn.Conv3d(a, b, 2, stride=2)) for a, b in pairwise(channels)]
    return nn.ModuleList([stem, *layers])


def _mamba_stages(config: NetworkConfig) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(*(MambaLayer(c, config.directions, config.mamba_residual) for _ in range(depth)))
        for c, depth in zip(config.features, config.depths)
    )
