"""The networks that SegMamba's Table 1 compares it with, and some more: (B, C, D, H, W) float32 -> logits on that grid.

`BASELINES` names them; `build_baseline(BaselineConfig(name="uxnet"))` makes one with fresh weights. 3D UX-Net,
nnFormer, TransBTS, nnU-Net and U-Mamba are written here from their papers, the others are MONAI's.
"""

from __future__ import annotations

from torch import nn

from segmamba.networks.baselines.config import BASELINES, BaselineConfig

__all__ = ["BASELINES", "BaselineConfig", "build_baseline"]


def build_baseline(config: BaselineConfig) -> nn.Module:
    """See networks.baselines.build, which is loaded when one is built: it brings MONAI, which takes seconds."""
    from segmamba.networks.baselines import build

    return build.build_baseline(config)
