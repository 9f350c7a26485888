"""The blocks between the scans: spatial convolution, MLP, Mamba layer, feature-level uncertainty.

All take and give (B, C, D, H, W). InstanceNorm3d is used without parameters, eps 1e-5, everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmamba.networks.conv import convolution, pointwise
from segmamba.networks.mamba import DIRECTIONS, TriMamba
from segmamba.networks.norm import RELU, Residual, instance_norm, norm_act


class GatedSpatialConv(nn.Module):
    """GSC as the published code has it: the branches are ADDED.

    a = f3(f3(x)), b = f1(x), c = f1(a + b), out = c + x, with fk = ReLU(InstanceNorm(conv of kernel k)).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj3 = nn.Conv3d(channels, channels, 1)
        self.proj4 = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        a = norm_act(convolution([x], self.proj), slope=RELU, reuse=True)
        a = norm_act(convolution([a], self.proj2), slope=RELU, reuse=True)
        at = Residual.AFTER_ACT
        both = norm_act(pointwise([x], self.proj3), slope=RELU, residual=a, residual_at=at, reuse=True)
        return norm_act(pointwise([both], self.proj4), slope=RELU, residual=x, residual_at=at, reuse=True)


class GatedSpatialConvProduct(nn.Module):
    """GSC as the paper has it: GSC(z) = z + f3(f3(z) * f1(z)), with fk = ReLU(conv of kernel k(InstanceNorm)).

    "These two features are multiplied pixel-by-pixel to control the information transmission similar to the
    gate mechanism"; figure 3a gives the order norm, convolution, nonlinearity, and a 3x3x3 block for the fusion.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv3d(channels, channels, 3, padding=1)
        self.gate = nn.Conv3d(channels, channels, 1)
        self.fuse = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        normed = instance_norm(x)
        product = F.relu(convolution([normed], self.spatial)) * F.relu(pointwise([normed], self.gate))
        return x + F.relu(convolution([instance_norm(product)], self.fuse))


class ChannelMLP(nn.Module):
    """fc2(GELU(fc1(x))) with 1x1x1 convolutions, C -> ratio C -> C, exact GELU."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        self.fc1 = nn.Conv3d(channels, ratio * channels, 1)
        self.fc2 = nn.Conv3d(ratio * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        return pointwise([F.gelu(pointwise([x], self.fc1))], self.fc2)


class MambaLayer(nn.Module):
    """LayerNorm over channels, ToM over the grid in C order (last axis fastest), and, since June 2024, + x."""

    def __init__(self, channels: int, directions: tuple[str, ...] = tuple(DIRECTIONS), residual: bool = True):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mamba = TriMamba(channels, directions)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        grid = x.shape[2:]
        tokens_BLC = x.flatten(2).transpose(1, 2)
        out = self.mamba(self.norm(tokens_BLC), slices=grid[0])
        out = out.transpose(1, 2).unflatten(2, grid)
        return out + x if self.residual else out


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of (B, C, D, H, W), eps 1e-6 (`v1`)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, eps=1e-6).movedim(-1, 1)


class MambaMLPBlock(nn.Module):
    """One block of the paper's first text (equation 1): z' = Mamba(LN(z)) + z; out = MLP(LN(z')) + z'.

    ratio: of the MLP's hidden channels, which the text does not give; 4 as in the first code.
    """

    def __init__(self, channels: int, directions: tuple[str, ...] = tuple(DIRECTIONS), ratio: int = 4):
        super().__init__()
        self.layer = MambaLayer(channels, directions)
        self.norm = ChannelLayerNorm(channels)
        self.mlp = ChannelMLP(channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W), the same out."""
        x = self.layer(x)
        return self.mlp(self.norm(x)) + x


class TSMambaBlock(nn.Module):
    """One tri-orientated spatial Mamba block of the paper's later text (equation 1 and figure 2).

    z' = GSC(z); z'' = ToM(LN(z')) + z'; out = MLP(LN(z'')) + z''.
    """

    def __init__(self, channels: int, directions: tuple[str, ...] = tuple(DIRECTIONS)):
        super().__init__()
        self.gsc = GatedSpatialConvProduct(channels)
        self.layer = MambaLayer(channels, directions)
        self.norm = ChannelLayerNorm(channels)
        self.mlp = ChannelMLP(channels, ratio=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same grid."""
        x = self.layer(self.gsc(x))
        return self.mlp(self.norm(x)) + x


def feature_uncertainty(z: Tensor) -> Tensor:
    """FUE of the paper on a skip z: p = sigmoid(mean over channels), u = -p log p, out = z + z (1 - u).

    log p is taken of the mean itself: where p underflows to 0, p log p would be NaN.
    """
    mean = z.mean(dim=1, keepdim=True)
    return z + z * (1 + torch.sigmoid(mean) * F.logsigmoid(mean))
