"""SegMamba by the name of a preset: `build_network("released")` makes a network with fresh weights."""

from __future__ import annotations

from typing import Any

from segmamba.errors import InputError
from segmamba.networks.segmamba import NetworkConfig, SegMamba

PRESETS = {
    "released": NetworkConfig(form="released"),
    "paper": NetworkConfig(form="paper"),
    "v1": NetworkConfig(form="v1", directions=("forward", "reverse"), mamba_residual=False),
    "v1-text": NetworkConfig(form="v1-text", directions=("forward", "reverse")),
    "quick": NetworkConfig(features=(24, 48, 64, 64), full_features=16, bottleneck=96, depths=(1, 1, 1, 1)),
}


def preset_config(preset: str, **overrides: Any) -> NetworkConfig:
    """The configuration of a preset, with single settings replaced. Raises InputError for an unknown preset."""
    if preset not in PRESETS:
        raise InputError(f"unknown network preset {preset!r}; known are {', '.join(PRESETS)}")
    return NetworkConfig.from_dict({**PRESETS[preset].to_dict(), **overrides})


def build_network(preset: str = "released", **overrides: Any) -> SegMamba:
    """A network with fresh weights, e.g. ``build_network("released", in_channels=1, out_channels=2)``."""
    return SegMamba(preset_config(preset, **overrides))
