"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): steps of equal size in all directions of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

MATRICES = "matrices"  # key of a group whose parameters Muon moves
_LEAST_SIDE = 8  # of a matrix; smaller ones (depthwise convolutions, the head) have few directions
_MOMENTUM = 0.95
_ROUNDS = (3.4445, -4.7750, 2.0315), 5  # of Newton and Schulz: coefficients of x, x^3 and x^5, and how many
_LIKE_ADAMW = 0.2  # root mean square of AdamW's steps, per learning rate (Liu et al. 2025, arXiv 2502.16982)


class Muon(torch.optim.AdamW):
    """Muon for the groups that have `matrices`, AdamW for the others; one learning rate does for both.

    A convolution's weights are a matrix of output channels by all the rest. Parameters and states are float32.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Moves all parameters that have a gradient; those of the matrices have none afterwards."""
        for group in self.param_groups:
            if group.get(MATRICES):
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group["lr"], group["weight_decay"])
                        parameter.grad = None  # so that AdamW leaves it
        super().step(closure)

    def _move(self, parameter: Tensor, rate: float, decay: float) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it in a state that it loads
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        momentum = state["momentum"].mul_(_MOMENTUM).add_(gradient)
        wanted = gradient.add(momentum, alpha=_MOMENTUM).reshape(len(gradient), -1)  # Nesterov's
        parameter.mul_(1 - rate * decay)
        size = _LIKE_ADAMW * max(wanted.shape) ** 0.5
        parameter.sub_(orthogonal(wanted).reshape(gradient.shape), alpha=rate * size)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon can do something for a parameter."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= _LEAST_SIDE


def orthogonal(matrix: Tensor) -> Tensor:
    """(N, M) -> the same with singular values of about 1, 0.7 to 1.2; what is 0 stays 0."""
    x = matrix / matrix.norm().clamp(min=1e-12)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    (first, third, fifth), rounds = _ROUNDS
    for _ in range(rounds):
        square = x @ x.T
        x = first * x + (third * square + fifth * square @ square) @ x
    return x if wide else x.T
