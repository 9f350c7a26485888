"""What a model's manifest says of its input and of its running: what it wants to see, and how it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.limits import SPACING_MM
from segmamba.networks.segmamba import STRIDE

NORMALISATIONS = ("zscore_nonzero", "zscore_box", "window")
CROPS = ("foreground", "none")
BIAS_CORRECTIONS = ("none", "n4")


@dataclass(frozen=True)
class PreprocessSpec:
    """What a model wants to see; part of its manifest."""

    modalities: tuple[str, ...]
    """Channel order of the tensor, each once."""
    orientation: str = "SPL"
    """Axis codes of the tensor's axes D, H, W: "SPL" means that D runs towards superior, H towards posterior, W towards
    left. An oblique case gets the nearest order and flips."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """mm, in D, H, W order. An axis within 0.1 % of it is left as it is."""
    normalisation: str = "zscore_nonzero"
    """"zscore_nonzero": each channel over its nonzero voxels, the rest stays 0; "zscore_box": each channel over the
    whole crop, zeros included (the published code); "window": clipped to `intensity` and scaled to 0..sqrt(12), where
    evenly spread values have deviation 1; for units that mean something, such as the Hounsfield units of CT."""
    crop: str = "foreground"
    """"foreground": the bounding box of voxels that are nonzero in any channel, `margin_mm` wider on each side where
    the image goes on; "none": the whole image."""
    margin_mm: float = 0.0
    """Around the foreground, on each side; 0 or more."""
    intensity: tuple[float, float] | None = None
    """Low and high end of the window, in the image's own units; None unless `normalisation` is "window"."""
    bias_correction: str = "none"
    """"n4": each channel is freed of its bias field (preparation.bias) before it is normalized; "none"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise InputError(f"modalities {self.modalities}: expected at least one, each once")
        if sorted(self.orientation.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
            raise InputError(f"orientation {self.orientation!r}: expected three axis codes such as 'SPL' or 'RAS'")
        low, high = SPACING_MM
        if len(self.spacing) != 3 or not all(low <= s <= high for s in self.spacing):
            raise InputError(f"spacing {self.spacing}: expected three numbers of {low:g} to {high:g}, in mm")
        if self.normalisation not in NORMALISATIONS:
            raise InputError(f"normalisation {self.normalisation!r}: expected one of {', '.join(NORMALISATIONS)}")
        if self.normalisation == "window":
            if self.intensity is None or not self.intensity[0] < self.intensity[1]:
                raise InputError(f"intensity {self.intensity}: normalisation 'window' needs its low and its high end")
        elif self.intensity is not None:
            raise InputError(f"intensity {self.intensity} goes with normalisation 'window', not {self.normalisation!r}")
        if self.crop not in CROPS:
            raise InputError(f"crop {self.crop!r}: expected one of {', '.join(CROPS)}")
        if self.bias_correction not in BIAS_CORRECTIONS:
            raise InputError(f"bias_correction {self.bias_correction!r}: expected one of {', '.join(BIAS_CORRECTIONS)}")
        if not (math.isfinite(self.margin_mm) and self.margin_mm >= 0):
            raise InputError(f"margin_mm {self.margin_mm}: expected a number of mm, 0 or more")


@dataclass(frozen=True, kw_only=True)
class InferenceSpec:
    """How a model wants to be run; part of its manifest."""

    window: tuple[int, int, int] = (128, 128, 128)
    """Sides of a sliding window, in voxels of the model's grid, multiples of 16."""
    overlap: float = 0.5
    """Of neighbouring windows, 0 to below 1."""
    bf16: bool = True
    """Whether its accuracy under bf16 autocast was checked."""
    pad_to_window: bool = field(default=False, metadata={"key": "fixed"})
    """Every input has exactly the window's sides, and a smaller volume is padded to it, as networks that embed each
    place need; without it a volume that is smaller than the window is run as it is."""
    nested: tuple[int, ...] = ()
    """The output head (networks.heads); empty: a softmax over background and labels."""
    coarser: tuple[float, ...] = ()
    """Test-time augmentation by scale: for each of these the image is seen once more with voxels about so many times as
    large, and the probabilities are averaged; those of the innermost region of `nested`, which is thin, are not."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", tuple(self.window))
        object.__setattr__(self, "nested", tuple(self.nested))
        object.__setattr__(self, "coarser", tuple(self.coarser))
        if len(self.window) != 3 or any(side % STRIDE or side < 2 * STRIDE for side in self.window):
            raise InputError(f"window {self.window} must be three multiples of {STRIDE}, {2 * STRIDE} or more each")
        if sorted(self.nested) != list(range(1, len(self.nested) + 1)):
            raise InputError(
                f"nested {self.nested} must be the labels 1 to {len(self.nested)}, each once, outermost first"
            )
        if len(self.coarser) > 3 or not all(1 < times <= 4 for times in self.coarser):
            raise InputError(f"coarser {self.coarser} must be at most three sizes, above 1 and at most 4, as 1.35")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap {self.overlap} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class PostprocessSpec:
    """What of a label map is too small to be shown; part of a model's manifest, fitted on out-of-fold predictions."""

    min_component_mm3: dict[str, float] = field(default_factory=dict)
    """Region -> smallest 26-connected component that stays."""
    min_without_inner_mm3: dict[str, float] = field(default_factory=dict)
    """Region -> smallest component that stays although nothing of the next inner region is in it, as oedema without a
    core; the largest component of a region stays in any case."""
    min_total_mm3: dict[str, float] = field(default_factory=dict)
    """Region -> smallest volume of the whole region that stays. What falls away becomes what is around it: ET becomes
    NCR, TC becomes ED, WT background. Regions that are not named stay as they are."""

    def check(self, scheme: LabelScheme) -> None:
        """Raises InputError, which names the key, for a region that `scheme` does not have, and what is no size."""
        for key, limits in vars(self).items():
            try:
                check_limits(limits, scheme)
                for region in self.min_without_inner_mm3 if key == "min_without_inner_mm3" else ():
                    next_inner(region, scheme)
            except InputError as error:
                raise InputError(f"{key}: {error}") from None


def check_limits(limits: Mapping[str, float], scheme: LabelScheme) -> None:
    """Raises InputError where `limits`, region -> mm3, name a region that `scheme` does not have, or are no sizes."""
    unknown = [region for region in limits if region not in scheme.regions]
    if unknown:
        raise InputError(f"unknown region {', '.join(unknown)}; known are {', '.join(scheme.regions)}")
    for region, limit in limits.items():
        if not (math.isfinite(limit) and limit >= 0):
            raise InputError(f"smallest {region} of {limit} mm3: expected a number, 0 or more")


def next_inner(region: str, scheme: LabelScheme) -> tuple[int, ...]:
    """The labels of the largest region inside this one. Raises InputError where there is none."""
    own = set(scheme.values(region))
    smaller = [set(scheme.values(other)) for other in scheme.regions if set(scheme.values(other)) < own]
    if not smaller:
        raise InputError(f"region {region} has no region inside it; min_without_inner_mm3 cannot be given for it")
    return tuple(max(smaller, key=len))


@dataclass(frozen=True)
class ModelSpecs:
    """What goes with a network wherever it is run and scored."""

    preprocess: PreprocessSpec
    """What it wants to see."""
    inference: InferenceSpec
    """How it is run."""
    postprocess: PostprocessSpec
    """What of its label maps is too small to be shown."""
    scheme: LabelScheme
    """Its labels and regions."""
