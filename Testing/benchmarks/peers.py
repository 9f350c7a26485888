"""The networks that are measured side by side: 4 channels in, 4 out, with their authors' usual settings."""

from __future__ import annotations

import torch
from segmamba.networks.presets import build_network
from torch import nn

FORMATS = {"plain": torch.contiguous_format, "channels last": torch.channels_last_3d}
CHANNELS = {"in_channels": 4, "out_channels": 4}


def build(name: str, size: int) -> nn.Module:
    """A network with random weights, always the same, for windows of size^3 voxels."""
    torch.manual_seed(0)
    return _BUILDERS[name](size)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _nnunet(size: int) -> nn.Module:
    """nnU-Net's plain 3D U-Net, as it plans it for 128^3 windows; deep supervision serves training alone."""
    from monai.networks.nets import DynUNet

    filters = (32, 64, 128, 256, 320, 320)
    return DynUNet(
        spatial_dims=3,
        kernel_size=[3] * len(filters),
        strides=[1] + [2] * (len(filters) - 1),
        upsample_kernel_size=[2] * (len(filters) - 1),
        filters=filters,
        norm_name=("INSTANCE", {"affine": True}),
        trans_bias=True,
        **CHANNELS,
    )


def _monai(name: str, **settings: object) -> nn.Module:
    """Raises ImportError where there is no MONAI: `released` is measured without it."""
    from monai.networks import nets

    return getattr(nets, name)(**CHANNELS, **settings)


_BUILDERS = {
    "released": lambda size: build_network("released"),
    # Flash attention: the same function, faster; MONAI uses it where no gradient is wanted.
    "SwinUNETR": lambda size: _monai("SwinUNETR", feature_size=48, use_flash_attention=True),
    "SegResNet": lambda size: _monai("SegResNet", init_filters=32),
    "UNETR": lambda size: _monai("UNETR", img_size=size, feature_size=16),
    "nnU-Net plain": _nnunet,
    "MedNeXt-M": lambda size: _monai("MedNeXtM", spatial_dims=3, kernel_size=3),
}
