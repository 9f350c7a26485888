"""The networks of Table 1, a few channels wide."""

import torch
from segmamba.networks.baselines import BaselineConfig, build_baseline

# narrow ones, on a crop that is the smallest or nearly so, no two sides alike where the stride allows
SMALL = {
    "segresnet": {"width": 8, "patch": (16, 24, 8)},
    "uxnet": {"width": 4, "patch": (16, 32, 48)},
    "mednext": {"width": 4, "patch": (16, 32, 48)},
    "unetr": {"width": 2, "patch": (16, 32, 48)},
    "swinunetr": {"width": 12, "patch": (32, 64, 32)},
    "swinunetr-v2": {"width": 12, "patch": (32, 64, 32)},
    "nnformer": {"width": 32, "patch": (32, 64, 32)},
    "transbts": {"width": 8, "patch": (16, 32, 24)},
    # the coarsest grid of two voxels would be +1 and -1 after its norm, whatever goes in
    "nnunet": {"width": 3, "patch": (64, 64, 32)},
    "nnunet-resenc-m": {"width": 2, "patch": (64, 64, 32)},
    "umamba-bot": {"width": 3, "patch": (64, 64, 32)},
    "umamba-enc": {"width": 3, "patch": (64, 64, 64)},
}


# With fresh weights at this size umamba-enc makes a change of its input 1800 times as large: 1e-6 of the input became
# 1.8e-3 of the logits' deviation, where nnU-Net and umamba-bot make it 10 times as large at most. What rounding does is
# judged without it.
ROUGH = "umamba-enc"


def small(name, **changes):
    torch.manual_seed(0)
    config = BaselineConfig(name=name, in_channels=2, out_channels=3, **{**SMALL[name], **changes})
    return build_baseline(config)


def image(patch, batch=1, seed=1):
    return torch.randn(batch, 2, *patch, generator=torch.Generator().manual_seed(seed))


def count(network):
    return sum(p.numel() for p in network.parameters())
