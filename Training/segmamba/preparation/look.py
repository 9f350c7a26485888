"""What came in: each image of a case in a line of plain words, what will be done to them and why, what looks wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.orientations import aff2axcodes

from segmamba.cases.swaps import swap_warnings
from segmamba.images.grid import describe_shape
from segmamba.images.image_io import Image
from segmamba.preparation.grids import Grid
from segmamba.preparation.plan import Plan, make_plan, title
from segmamba.preparation.stripped import find_skull

LEFT_RIGHT = "Left and right are those of the headers: a head is nearly symmetrical, so images cannot confirm them."
THICK_MM = 3.0
LONGEST_LINE = 200  # letters
_SMALL_MM = 110.0  # along some axis: less than a brain
_OBLIQUE_DEGREES = 0.5
_NEGATIVE, _CLIPPED = 0.01, 0.002  # shares of the voxels that are not 0, or not the darkest
_GREYS = 256
_PLANES = ("sagittal", "coronal", "axial")
_LOOKED_AT = 200_000  # voxels whose grey values are told apart


@dataclass(frozen=True)
class Taken:
    """Why an image was taken for its modality."""

    how: str
    """Plain words."""
    confidence: float | None = None
    """0 to 1 or None."""
    reason: str = ""
    """More words."""

    def __str__(self) -> str:
        text = self.how if self.confidence is None else f"{self.how} ({self.confidence:.2f})"
        return f"{text}, {textwrap.shorten(self.reason, 60, placeholder=' ...')}" if self.reason else text


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What is seen of one image."""

    modality: str
    """That it is given as: t1n, t1c, t2w or t2f."""
    taken: Taken
    """Why it is taken for that."""
    shape: tuple[int, ...]
    """(X, Y, Z) in voxels."""
    spacing_mm: tuple[float, ...]
    """Along X, Y and Z."""
    field_of_view_mm: tuple[float, ...]
    """Along X, Y and Z: voxels times spacing."""
    orientation: str
    """Axis codes of X, Y and Z, such as "LPS"."""
    oblique_degrees: float
    """The largest angle between an axis and the body's nearest."""
    left_handed: bool
    """Whether the axes X, Y, Z are a left-handed system."""
    thick: str
    """Plane and thickness of slices of THICK_MM or more, in words; "" for thinner ones."""
    skull: str
    """Why it seems to be on, "" for a brain alone."""
    place: str
    """Against the reference."""
    registered: bool | None
    """Whether it lies on the reference already; None for the reference, and where preparing will tell."""
    intensity: tuple[str, ...]
    """What is unusual about its values; () as a rule."""
    notes: tuple[str, ...]
    """What is unusual about its file; () as a rule."""

    @property
    def text(self) -> str:
        """What was found, the most important first, at most LONGEST_LINE letters."""
        grid = f"{describe_shape(self.shape)} voxels of {' x '.join(f'{mm:.3g}' for mm in self.spacing_mm)} mm"
        turned = f", oblique by {self.oblique_degrees:.0f} degrees" if self.oblique_degrees > _OBLIQUE_DEGREES else ""
        parts = [
            *self.intensity,
            "skull on" if self.skull else "no skull",
            self.place,
            self.thick,
            f"{grid}, {' x '.join(f'{mm:.0f}' for mm in self.field_of_view_mm)} mm in all",
            self.orientation + (" (left-handed)" if self.left_handed else "") + turned,
        ]
        return textwrap.shorten("; ".join(part for part in parts if part), LONGEST_LINE, placeholder=" ...")

    @property
    def line(self) -> str:
        """The finding in one line."""
        return f"{title(self.modality)}, {self.taken}: {self.text}"

    def as_json(self) -> dict:
        """The finding as plain JSON."""
        return {"title": title(self.modality), "line": self.line, "text": self.text, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of a case before anything is done to it."""

    volumes: tuple[Volume, ...]
    """One an image."""
    plan: Plan
    """What will be done."""
    warnings: tuple[str, ...]
    """Sentences about images that look exchanged."""

    @property
    def will(self) -> list[str]:
        """What will be done, and why, in sentences."""
        name = title(self.plan.reference)
        if not self.plan.needed:
            together = "" if len(self.volumes) == 1 else "the images lie on one grid and on one another, and "
            return [f"Nothing has to be prepared: {together}no skull is seen."]
        start = {"brain": f"The brain is cut out of {name}: "}
        start |= {f"register {m}": f"{title(m)} is registered to {name}: " for m in self.plan.to_register}
        return [
            f"{start.get(f'{action.kind} {action.modality}'.strip(), '')}{action.why}." for action in self.plan.actions
        ]

    def lines(self) -> list[str]:
        """The whole for a terminal: a line an image, what is odd about them, what will be done, warnings."""
        odd = [f"{title(v.modality)}: {note}" for v in self.volumes for note in v.notes]
        return [
            *(volume.line for volume in self.volumes),
            *(f"note: {note}" for note in odd),
            f"note: {LEFT_RIGHT}",
            *self.will,
            *(f"warning: {text}" for text in self.warnings),
        ]

    def as_json(self) -> dict:
        """All that was seen, as plain JSON."""
        return {
            "volumes": [volume.as_json() for volume in self.volumes],
            "left_right": LEFT_RIGHT,
            "will": self.will,
            "plan": self.plan.as_json(),
            "warnings": list(self.warnings),
        }


def look(images: Mapping[str, Image], taken: Mapping[str, Taken]) -> Look:
    """What there is to say about `images`, one or more of t1n, t1c, t2w, t2f, each on its own grid, finite.

    taken: by modality. Images are as cases.case.read_images gives them. Raises InputError where one shows no head.
    """
    plan = make_plan(images)
    grids = {m: Grid(image.array.shape, np.asarray(image.affine, float)) for m, image in images.items()}
    volumes = tuple(_volume(m, image, grids, taken[m], plan) for m, image in images.items())
    warnings = swap_warnings({m: i.array for m, i in images.items()}, {m: g.affine for m, g in grids.items()})
    return Look(volumes, plan, tuple(warnings))


def _volume(modality: str, image: Image, grids: Mapping[str, Grid], taken: Taken, plan: Plan) -> Volume:
    grid = grids[modality]
    spacing = voxel_sizes(grid.affine)
    extent = spacing * grid.shape
    skull = find_skull(plan.levels[modality][1], bright_scalp=modality.startswith("t1")) or ""
    place, registered = _place(modality, grids, plan, skull)
    return Volume(
        modality=modality,
        taken=taken,
        shape=tuple(int(n) for n in grid.shape),
        spacing_mm=tuple(round(float(mm), 4) for mm in spacing),
        field_of_view_mm=tuple(round(float(mm), 1) for mm in extent),
        orientation="".join(aff2axcodes(grid.affine)),
        oblique_degrees=round(float(np.degrees(obliquity(grid.affine)).max()), 1),
        left_handed=bool(np.linalg.det(grid.affine[:3, :3]) < 0),
        thick=_thickness(grid.affine, spacing),
        skull=skull,
        place=place,
        registered=registered,
        intensity=(*_intensity(image.array), *_too_small(extent)),
        notes=tuple(note.removeprefix(f"{modality}: ") for note in image.notes),
    )


def _place(modality: str, grids: Mapping[str, Grid], plan: Plan, skull: str) -> tuple[str, bool | None]:
    """Where an image lies against the reference, and whether it is registered to it; see `Volume`."""
    name, own = title(plan.reference), title(modality)
    if modality == plan.reference:
        return ("the result lies on its grid" if len(grids) > 1 else ""), None
    why = next((a.why for a in plan.actions if (a.kind, a.modality) == ("register", modality)), "")
    if not grids[modality].is_on(grids[plan.reference]):
        return f"a grid of its own, not that of {name}", False
    if not why:
        return f"lies on {name} already", True
    if plan.has("brain"):
        return f"on the grid of {name}", None
    return why.removeprefix(f"{own} has "), False


def _thickness(affine: np.ndarray, spacing: np.ndarray) -> str:
    if spacing.max() < THICK_MM:
        return ""
    axis = affine[:3, int(spacing.argmax())]
    return f"thick {_PLANES[int(np.abs(axis).argmax())]} slices of {spacing.max():.3g} mm"


def _too_small(extent: np.ndarray) -> list[str]:
    return [f"only {extent.min():.0f} mm of the head"] if extent.min() < _SMALL_MM else []


def _intensity(array: np.ndarray) -> list[str]:
    """What is unusual about the values of an image (X, Y, Z), finite and not constant."""
    found = []
    negative = np.count_nonzero(array < 0) / max(np.count_nonzero(array), 1)
    if negative > _NEGATIVE:
        found.append(f"{negative:.0%} of the values are negative")
    low, high = array.min(), array.max()
    clipped = np.count_nonzero(array == high) / max(np.count_nonzero(array > low), 1)
    if clipped > _CLIPPED:
        found.append(f"{clipped:.1%} of the voxels have the highest value: bright parts were cut off")
    shown = array[array != low]
    greys = len(np.unique(shown[:: max(1, shown.size // _LOOKED_AT)]))
    if greys < _GREYS:
        found.append(f"{greys} grey values only")
    if empty := _constant_slices(array):
        found.append(f"{empty} slice{'s' * (empty > 1)} without an image in the middle of others")
    return found


def _constant_slices(array: np.ndarray) -> int:
    """How many slices, along the axis that has the most, are constant while there are others on both sides."""
    most = 0
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        shown = np.flatnonzero(array.min(others) != array.max(others))
        most = max(most, int(shown[-1] - shown[0] + 1 - len(shown)))
    return most
