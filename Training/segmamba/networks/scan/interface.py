"""What every back end of the scan offers: three functions, with the shapes that all of them keep to."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class SelectiveScan(Protocol):
    """A back end: a module with these functions, both differentiable with respect to every tensor.

    B: batch, L: tokens, d: channels, N: states, K: taps. Shapes are checked before a back end is called.
    """

    def unavailable_reason(self, device: torch.device) -> str:
        """Why tensors on `device` cannot be used with this back end; empty where they can."""
        ...

    def selective_scan(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
        z: Tensor | None,
    ) -> Tensor:
        """The scan over tokens in the order in which they lie.

        Args:
            u: (B, L, d), the input.
            delta: (B, L, d), the step sizes before delta_bias and softplus.
            A: (d, N), negative.
            B: (B, L, N), how the input enters the states.
            C: (B, L, N), how the states are read.
            D: (d,), the share of the input that goes past the states.
            delta_bias: (d,), added to delta.
            z: (B, L, d), the gate before SiLU, or None for no gate.

        Returns:
            (B, L, d), in u's dtype.
        """
        ...

    def causal_conv1d_silu(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """SiLU of the causal depthwise convolution over tokens in the order in which they lie.

        Args:
            x: (B, L, d).
            weight: (d, 1, K).
            bias: (d,).

        Returns:
            (B, L, d), in x's dtype.
        """
        ...
