"""One colour a region, the same in every curve, table and picture."""

from __future__ import annotations

from collections.abc import Iterable

from segmamba.cases.structures import STRUCTURES
from segmamba.evaluation.picture import OTHER_COLOURS

_OF_REGION = {name: structure.color for name, structure in STRUCTURES.items()}
_CONTRAST = 2.6  # against white, from which on a line of 1.5 points is well seen (WCAG 2.2 asks for 3 of graphics)

Colour = tuple[float, float, float]


def region_colours(regions: Iterable[str]) -> dict[str, Colour]:
    """Region -> RGB, 0 to 1, as in evaluation.picture but dark enough for white paper. Other names take turns."""
    regions = list(regions)
    others = [region for region in regions if region not in _OF_REGION]
    turns = {region: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, region in enumerate(others)}
    return {region: _for_paper(_OF_REGION.get(region) or turns[region]) for region in regions}


def to_hex(colour: Colour) -> str:
    """The color as HTML has it, "#rrggbb"."""
    return "#" + "".join(f"{round(255 * c):02x}" for c in colour)


def _for_paper(colour: Colour) -> Colour:
    while 1.05 / (_luminance(colour) + 0.05) < _CONTRAST:
        red, green, blue = colour
        colour = (0.97 * red, 0.97 * green, 0.97 * blue)
    return colour


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))
