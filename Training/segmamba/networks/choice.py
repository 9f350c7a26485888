"""Every network that can be trained: SegMamba in its presets, and the baselines it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from segmamba.errors import InputError
from segmamba.networks.baselines import BASELINES, BaselineConfig, build_baseline
from segmamba.networks.blocks import ChannelMLP, GatedSpatialConv, MambaLayer, MambaMLPBlock, TSMambaBlock
from segmamba.networks.presets import preset_config
from segmamba.networks.segmamba import STRIDE, NetworkConfig, SegMamba
from segmamba.networks.unet import BasicBlock, UpBlock

AnyNetworkConfig = NetworkConfig | BaselineConfig

# SegMamba's blocks that activation checkpointing runs again in the backward pass
_OWN_BLOCKS = (MambaLayer, MambaMLPBlock, TSMambaBlock, GatedSpatialConv, ChannelMLP, BasicBlock, UpBlock)


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """A network as a configuration names it. Channels come from the data.

    The fields after `width` replace single settings of the preset (NetworkConfig), as for ablations; None: as the
    preset has it.
    """

    name: str = "segmamba"
    """"segmamba", then with a preset, or that of a baseline (networks.baselines)."""
    preset: str = "released"
    """Of networks.presets; of no meaning for a baseline."""
    width: int | None = None
    """Of a baseline: channels of its first stage, which the others follow; None for the published ones."""
    form: str | None = None
    """Which of the four published forms."""
    features: tuple[int, int, int, int] | None = None
    """Channels of the four stages."""
    full_features: int | None = None
    """Channels at the input's own resolution."""
    bottleneck: int | None = None
    """Channels of the coarsest residual block."""
    depths: tuple[int, int, int, int] | None = None
    """Mamba layers of each of the four stages; with 0 a stage has its convolutions alone."""
    directions: tuple[str, ...] | None = None
    """Scans of each Mamba layer (mamba.DIRECTIONS)."""
    mamba_residual: bool | None = None
    """Whether a Mamba layer adds its input."""

    def __post_init__(self) -> None:
        if self.name != "segmamba" and self.name not in BASELINES:
            raise InputError(f"network.name {self.name!r} must be one of segmamba, {', '.join(BASELINES)}")
        if self.name != "segmamba" and self.width is not None:
            BaselineConfig(name=self.name, width=self.width)
        if self.name == "segmamba":
            preset_config(self.preset, **self.overrides)
            if self.width is not None:
                raise InputError("network.width is for baselines; SegMamba has features, full_features and bottleneck")
        elif self.overrides:
            raise InputError(f"network.{next(iter(self.overrides))} is for SegMamba; {self.name} has sizes of its own")

    @property
    def overrides(self) -> dict:
        """The settings that replace those of the preset."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        others = ("name", "preset", "width")
        return {key: value for key, value in values.items() if key not in others and value is not None}

    @property
    def takes_bf16(self) -> bool:
        """Whether it can be trained and run under bf16 autocast."""
        return self.name not in BASELINES or BASELINES[self.name].bf16

    def resolve(self, in_channels: int, out_channels: int, patch: tuple[int, int, int]) -> AnyNetworkConfig:
        """The configuration of this network for the channels and the patch of a training.

        Args:
            in_channels: of the input: one a modality.
            out_channels: of the logits (heads.count_channels).
            patch: (D, H, W) of a training patch in voxels.

        Returns:
            A NetworkConfig for SegMamba, else a BaselineConfig.

        Raises:
            InputError: where the network cannot take `patch`.
        """
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        if self.name != "segmamba":
            return BaselineConfig(name=self.name, **channels, patch=patch, width=self.width or 0)
        if any(side % STRIDE for side in patch) or max(patch) < 2 * STRIDE:
            raise InputError(
                f"patch {patch} must be three multiples of {STRIDE}, at least one of them {2 * STRIDE} or more"
            )
        return preset_config(self.preset, **channels, **self.overrides)


def build(config: AnyNetworkConfig) -> nn.Module:
    """A network with fresh weights: (B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W)."""
    return SegMamba(config) if isinstance(config, NetworkConfig) else build_baseline(config)


def checkpoint_activations(network: nn.Module) -> int:
    """Makes the network's blocks forget their activations and compute them again; returns how many blocks there are.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174. Parameters and names stay.
    """
    blocks = _OWN_BLOCKS if isinstance(network, SegMamba) else _baseline_blocks()
    found: list[nn.Module] = []
    waiting = [network]
    while waiting:  # the outermost of them
        for child in waiting.pop().children():
            (found if isinstance(child, blocks) else waiting).append(child)
    for block in found:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return len(found)


def _baseline_blocks() -> tuple[type[nn.Module], ...]:
    """The baselines' blocks. Imported here: MONAI takes seconds to load, and SegMamba alone does without it."""
    from monai.networks.blocks import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
    from monai.networks.blocks.mednext_block import MedNeXtBlock
    from monai.networks.blocks.segresnet_block import ResBlock
    from monai.networks.blocks.transformerblock import TransformerBlock
    from monai.networks.nets.swin_unetr import SwinTransformerBlock

    from segmamba.networks.baselines import nnunet, transbts
    from segmamba.networks.baselines.nnformer import Block
    from segmamba.networks.baselines.uxnet import LargeKernelBlock

    decoders = (UnetrBasicBlock, UnetrUpBlock, UnetrPrUpBlock)  # of uxnet, unetr and swinunetr
    unets = (nnunet.ConvBlock, nnunet.ResidualBlock, nnunet.ProjectedBlock, nnunet.ChannelMamba, MambaLayer)
    convolved = (transbts.EncoderBlock, transbts.DecoderBlock, transbts.Up, nn.TransformerEncoderLayer)
    others = (LargeKernelBlock, TransformerBlock, SwinTransformerBlock, Block, MedNeXtBlock, ResBlock)
    return *decoders, *unets, *convolved, *others
