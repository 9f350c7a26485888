"""What decides the shape of a baseline, and which inputs each of them takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from segmamba.errors import InputError
from segmamba.limits import CHANNELS, WINDOW_VOXELS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network can be asked for: inputs with every side a multiple of `stride`, one of `longest` or more.

    Below `longest` the coarsest grid is one voxel, of which a norm over the grid leaves nothing.
    """

    stride: int
    """Every side of the input is a multiple of it."""
    longest: int
    """At least one side of the input has so many voxels."""
    width: int
    """Published channels of the first stage; others are multiples of `unit`."""
    unit: int
    """Step between the widths that can be had, for the sake of heads and groups."""
    fixed: bool = False
    """Only the patch that the network was made for, as its position encodings know no other."""
    bf16: bool = True
    """Whether bf16 autocast leaves its logits what they are; else it is trained and run in fp32."""


BASELINES = {
    "segresnet": Limits(stride=8, longest=8, width=32, unit=8),
    "uxnet": Limits(stride=16, longest=32, width=48, unit=1),
    "mednext": Limits(stride=16, longest=32, width=32, unit=1),
    "unetr": Limits(stride=16, longest=16, width=16, unit=1, fixed=True),
    "swinunetr": Limits(stride=32, longest=64, width=48, unit=12),
    "swinunetr-v2": Limits(stride=32, longest=64, width=48, unit=12),
    "nnformer": Limits(stride=32, longest=32, width=192, unit=32, fixed=True),
    "transbts": Limits(stride=8, longest=16, width=16, unit=8, fixed=True),
    "nnunet": Limits(stride=32, longest=64, width=32, unit=1),
    "nnunet-resenc-m": Limits(stride=32, longest=64, width=32, unit=1),
    "umamba-bot": Limits(stride=32, longest=64, width=32, unit=1),
    "umamba-enc": Limits(stride=32, longest=64, width=32, unit=1, fixed=True, bf16=False),
}

TRANSFORMERS = ("unetr", "swinunetr", "swinunetr-v2", "nnformer", "transbts")  # MONAI makes their layers with einops


def check_packages(name: str) -> None:
    """Raises InputError where a network, of whatever name, needs einops, which is not there."""
    if name in TRANSFORMERS and find_spec("einops") is None:
        raise InputError(f"{name} needs einops; install it: pip install einops")


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Everything that decides the shape of a baseline; stored in a model's manifest."""

    name: str
    """One of BASELINES."""
    in_channels: int = 4
    """Channels of the input, 1 to limits.CHANNELS."""
    out_channels: int = 4
    """Channels of the logits, 1 to limits.CHANNELS."""
    patch: tuple[int, int, int] = (128, 128, 128)
    """(D, H, W) of a training patch and of a window, in voxels."""
    width: int = 0
    """Channels of the first stage, which those of the others follow; 0 for the published ones, less for a trial on a
    small machine, at most twice as many."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))
        if self.name not in BASELINES:
            raise InputError(f"unknown baseline {self.name!r}; known are {', '.join(BASELINES)}")
        if not 1 <= min(self.in_channels, self.out_channels) <= max(self.in_channels, self.out_channels) <= CHANNELS:
            raise InputError(f"channels of a network must be 1 to {CHANNELS}, got {self}")
        widest = 2 * self.limits.width
        if not 0 <= self.width <= widest or self.width % self.limits.unit:
            raise InputError(
                f"width {self.width} of {self.name} must be 0 or a multiple of {self.limits.unit}, at most {widest}"
            )
        if len(self.patch) != 3 or not self._divides(self.patch) or math.prod(self.patch) > WINDOW_VOXELS:
            raise InputError(
                f"patch {self.patch} does not fit {self.name}; expected three sides, {self._wanted()}, and at most "
                f"{WINDOW_VOXELS} voxels"
            )

    @property
    def limits(self) -> Limits:
        """What this network can take."""
        return BASELINES[self.name]

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses an input of `shape` (B, C, D, H, W) that cannot be run. Raises InputError."""
        if len(shape) == 5 and shape[1] == self.in_channels:
            grid = tuple(shape[2:])
            if grid == self.patch or (not self.limits.fixed and self._divides(grid)):
                return
        wanted = f"the patch {self.patch} that it was made for" if self.limits.fixed else self._wanted()
        raise InputError(
            f"input of {self.name} has shape {tuple(shape)}; expected (B, {self.in_channels}, D, H, W) with sides of "
            f"{wanted}; pad or cut the image to that"
        )

    def _divides(self, grid: tuple[int, ...]) -> bool:
        return all(side > 0 and side % self.limits.stride == 0 for side in grid) and max(grid) >= self.limits.longest

    def _wanted(self) -> str:
        stride, longest = self.limits.stride, self.limits.longest
        return f"multiples of {stride}" + (f", at least one of them {longest} or more" if longest > stride else "")
