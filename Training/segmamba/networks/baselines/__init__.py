"""The networks that SegMamba's Table 1 compares it with: (B, C, D, H, W) float32 -> logits on the same grid.

`BASELINES` names them; `build_baseline(BaselineConfig(name="uxnet"))` makes one with fresh weights. 3D UX-Net and
nnFormer are written here from their papers, the others are MONAI's.
"""

from __future__ import annotations

from segmamba.networks.baselines.build import Baseline, build_baseline
from segmamba.networks.baselines.config import BASELINES, BaselineConfig

__all__ = ["BASELINES", "Baseline", "BaselineConfig", "build_baseline"]
