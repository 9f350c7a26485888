"""A baseline's configuration to its network, in the size that published comparisons use.

name          parameters   size and where it is from (4 channels in, 4 out, patch 128^3)
segresnet     18.80 M      32 filters, blocks 1 2 2 4: Myronenko, arXiv 1810.11654, table 1 (without the VAE branch)
uxnet         53.06 M      features 48 to 384, two blocks a stage: Lee et al., arXiv 2209.15076 (53.0 M with one
                           channel in, 14 out: 53.01 M here)
mednext       61.73 M      L, kernel 3: Roy et al., arXiv 2303.09975, table 1 (61.8 M with its deep supervision heads);
                           the size with which Isensee et al., arXiv 2404.09556, train it on BraTS
unetr        102.45 M      ViT-B/16, feature size 16: Hatamizadeh et al., arXiv 2103.10504. 92.78 M with one channel
                           in, 14 out, patch 96^3, of which 92.8 M is published: a token here has four times the values
swinunetr     62.19 M      feature size 48: Hatamizadeh et al., arXiv 2201.01266 (61.98 M, 4 in 3 out; MONAI's differs)
swinunetr-v2  72.77 M      the same with a residual block before each stage: He et al., MICCAI 2023
nnformer     149.51 M      embedding 192: Zhou et al., arXiv 2109.03201 (its 150.5 M: see networks.baselines.nnformer)
transbts      32.73 M      16 to 128 features, 4 layers of 512: Wang et al., arXiv 2103.04430 (its 32.99 M: see
                           networks.baselines.transbts)
nnunet        31.2 M       32 to 320 features: Isensee et al., arXiv 1809.10486 (without the outputs of deep
                           supervision, as the three below)
nnunet-resenc-m 102.4 M    1 3 4 6 6 6 residual blocks: Isensee et al., arXiv 2404.09556
umamba-bot    42.1 M       a Mamba layer at the bottom: Ma et al., arXiv 2401.04722
umamba-enc    42.8 M       one in every stage of the encoder
"""

from __future__ import annotations

from typing import Any, cast

from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets import UNETR, MedNeXt, SegResNet, SwinUNETR
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from segmamba.networks.baselines import nnunet
from segmamba.networks.baselines.config import BaselineConfig, check_packages
from segmamba.networks.baselines.nnformer import NNFormer
from segmamba.networks.baselines.transbts import TransBTS
from segmamba.networks.baselines.uxnet import UXNet
from segmamba.networks.norm import use_instance_norm


class Baseline(nn.Module):
    """A baseline that refuses shapes which its network does not take.

    (B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W).
    """

    def __init__(self, config: BaselineConfig, network: nn.Module):
        super().__init__()
        self.config = config
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W)."""
        self.config.check(x.shape)
        return self.network(x)


def build_baseline(config: BaselineConfig) -> Baseline:
    """A baseline with fresh weights, e.g. ``build_baseline(BaselineConfig(name="uxnet", patch=(96, 96, 96)))``.

    Args:
        config: which one, and its sizes.

    Returns:
        The network.

    Raises:
        InputError: where it needs einops, which is not there.
    """
    check_packages(config.name)
    network = _BUILDERS[config.name](config, config.width or config.limits.width)
    return Baseline(config, use_instance_norm(network))  # torch's gradient is wrong, see segmamba.networks.norm


def _segresnet(config: BaselineConfig, width: int) -> nn.Module:
    return SegResNet(init_filters=width, **_channels(config))


def _uxnet(config: BaselineConfig, width: int) -> nn.Module:
    return UXNet(features=tuple(width * 2**stage for stage in range(4)), **_channels(config))


def _mednext(config: BaselineConfig, width: int) -> nn.Module:
    return MedNeXt(
        init_filters=width,
        kernel_size=3,
        encoder_expansion_ratio=(3, 4, 8, 8),
        bottleneck_expansion_ratio=8,
        decoder_expansion_ratio=(8, 8, 4, 3),
        blocks_down=(3, 4, 8, 8),
        blocks_bottleneck=8,
        blocks_up=(8, 8, 4, 3),
        use_residual_connection=True,
        **_channels(config),
    )


def _unetr(config: BaselineConfig, width: int) -> nn.Module:
    hidden = 48 * width
    network = UNETR(
        img_size=config.patch, feature_size=width, hidden_size=hidden, mlp_dim=4 * hidden, **_channels(config)
    )
    for module in network.modules():
        if isinstance(module, TransformerBlock):  # MONAI 1.6.1 makes this norm and never uses it: DDP would wait for it
            cast(Any, module).norm_cross_attn = nn.Identity()
    return network


def _swinunetr(config: BaselineConfig, width: int) -> nn.Module:
    network = SwinUNETR(feature_size=width, use_v2=config.name == "swinunetr-v2", **_channels(config))
    for module in network.modules():
        if isinstance(module, WindowAttention):  # its table of places, up to 2196: no weight, and too large for float16
            index = cast(Tensor, module.relative_position_index)
            module.register_buffer("relative_position_index", index, persistent=False)
    return network


def _nnformer(config: BaselineConfig, width: int) -> nn.Module:
    heads = tuple(width // 32 * 2**stage for stage in range(4))
    return NNFormer(patch=config.patch, embedding=width, heads=heads, **_channels(config))


def _transbts(config: BaselineConfig, width: int) -> nn.Module:
    return TransBTS(patch=config.patch, width=width, **_channels(config))


def _nnunet(config: BaselineConfig, width: int) -> nn.Module:
    return nnunet.plain(config.in_channels, config.out_channels, width)


def _resenc(config: BaselineConfig, width: int) -> nn.Module:
    return nnunet.residual_encoder(config.in_channels, config.out_channels, width)


def _umamba(config: BaselineConfig, width: int) -> nn.Module:
    everywhere = config.name == "umamba-enc"
    return nnunet.u_mamba(config.in_channels, config.out_channels, width, config.patch, everywhere)


def _channels(config: BaselineConfig) -> dict[str, Any]:
    return {"in_channels": config.in_channels, "out_channels": config.out_channels}


_BUILDERS = {
    "segresnet": _segresnet,
    "uxnet": _uxnet,
    "mednext": _mednext,
    "unetr": _unetr,
    "swinunetr": _swinunetr,
    "swinunetr-v2": _swinunetr,
    "nnformer": _nnformer,
    "transbts": _transbts,
    "nnunet": _nnunet,
    "nnunet-resenc-m": _resenc,
    "umamba-bot": _umamba,
    "umamba-enc": _umamba,
}
