"""A case: the images of one examination, on one grid, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path

import numpy as np

from segmamba.cases.case_folder import MODALITIES, find_case, find_label
from segmamba.cases.clean import check_different, clean
from segmamba.cases.labels import cohort_of, find_convention, renumber, to_standard
from segmamba.errors import InputError
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance, describe_grid
from segmamba.images.image_io import Image, Source, name_without_suffix, save_image
from segmamba.images.parallel import for_each
from segmamba.images.sources import read_source

__all__ = [
    "MODALITIES",
    "Case",
    "Source",
    "as_case",
    "find_case",
    "find_label",
    "load_case",
    "load_label_map",
    "read_images",
    "save_image",
]


@dataclass(frozen=True, eq=False)
class Case:
    """The images of one examination."""

    id: str
    """Names the case in results and errors."""
    images: dict[str, np.ndarray]
    """(X, Y, Z) float32 by modality, all on one grid, finite, none constant."""
    affine: np.ndarray
    """(4, 4) float64, voxel indices (voxel centres) to RAS mm."""
    sources: dict[str, Source]
    """Where each image was read from, by modality."""
    notes: tuple[str, ...]
    """Plain sentences about what was odd and what was done about it; empty where nothing was."""
    shape: tuple[int, int, int] = field(init=False)
    """The voxels of every image along its axes, (X, Y, Z)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", next(iter(self.images.values())).shape)

    def without_images(self) -> Case:
        """The same without its voxels: what is left to say of a case whose images are needed no more."""
        bare = copy(self)
        object.__setattr__(bare, "images", {})
        return bare


def load_case(
    sources: Mapping[str, Path | str | Source],
    case_id: str | None = None,
    modalities: Sequence[str] = MODALITIES,
) -> Case:
    """Reads and checks the images of one case.

    Args:
        sources: modality -> its image.
        case_id: its name in texts; None: that of the folder of its images.
        modalities: the names that it must have, no more, no fewer.

    Returns:
        The case. Single NaN or infinite voxels are 0, which is noted.

    Raises:
        InputError: for what `read_images` and `as_case` raise it.
    """
    return as_case(read_images(sources, modalities), sources, case_id)


def read_images(sources: Mapping[str, Path | str | Source], modalities: Sequence[str] = MODALITIES) -> dict[str, Image]:
    """The images of one examination, each (X, Y, Z) float32 on its own grid, in the order of `modalities`.

    Single NaN or infinite voxels become 0, and so does the outside of MODALITIES (segmamba.images.background); notes
    begin with the modality. Raises InputError for wrong names, an unreadable, empty or constant image, a mask, and one
    image given twice.
    """
    _check_names(sources, modalities)
    sources = _in_order(sources, modalities)
    for one, other in combinations(modalities, 2):
        a, b = sources[one], sources[other]
        if a.path.resolve() == b.path.resolve() and a.volume == b.volume:
            raise InputError(f"{a} was given as {one} and as {other}; give each modality its own image")
    images = for_each(sources, _read)
    check_different({modality: image.array for modality, image in images.items()}, sources)
    return images


def _read(modality: str, source: Source) -> Image:
    image = read_source(source)
    array, notes = clean(image, modality, source)
    return Image(array, image.affine, tuple(notes))


def as_case(
    images: Mapping[str, Image], sources: Mapping[str, Path | str | Source], case_id: str | None = None
) -> Case:
    """The case of images that lie on one grid.

    Args:
        images: modality -> what `read_images` gave.
        sources: modality -> where it was read from, for errors.
        case_id: None: the name of the folder, or of the one file, that they were read from.

    Returns:
        The case, on the grid of t1c where there is one.

    Raises:
        InputError: where the images are not on one grid: the same shape, and affines that agree to 0.01 mm at the
            corners of the volume.
    """
    sources = _in_order(sources, tuple(images))
    reference_name = "t1c" if "t1c" in images else next(iter(images))
    reference = images[reference_name]
    for modality, image in images.items():
        _check_grid(image, sources[modality], reference, sources[reference_name])
    notes = tuple(note for image in images.values() for note in image.notes)
    arrays = {modality: image.array for modality, image in images.items()}
    return Case(case_id or _case_id(sources), arrays, reference.affine, sources, notes)


def load_label_map(path: Path | str, convention: str | Mapping[int, int] | None, case: Case | None) -> np.ndarray:
    """A label map file in the engine's labels.

    Args:
        path: of the file.
        convention: a name of labels.CONVENTIONS, or value in the file -> label; None: found from the values and the
            name of the file or its folder.
        case: the case whose grid it must be on, or None for any grid.

    Returns:
        (X, Y, Z) uint8.

    Raises:
        InputError: for an unreadable file, values that fit no convention or several, and another grid.
    """
    path = Path(path)
    image = read_source(path)
    if case is not None:
        reference_name = "t1c" if "t1c" in case.images else next(iter(case.images))
        reference = Image(case.images[reference_name], case.affine, ())
        _check_grid(image, Source(path), reference, case.sources[reference_name])
    try:
        if isinstance(convention, Mapping):
            return renumber(image.array, convention)
        name = next((n for n in (path.name, path.resolve().parent.name, case.id if case else "") if cohort_of(n)), "")
        return to_standard(image.array, convention or find_convention(np.unique(image.array).tolist(), name))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _in_order(sources: Mapping[str, Path | str | Source], modalities: Sequence[str]) -> dict[str, Source]:
    given = {m: sources[m] for m in modalities}
    return {m: source if isinstance(source, Source) else Source(Path(source)) for m, source in given.items()}


def _check_names(sources: Mapping[str, object], modalities: Sequence[str]) -> None:
    missing = [m for m in modalities if m not in sources]
    unknown = [m for m in sources if m not in modalities]
    if not missing and not unknown:
        return
    text = f"expected the modalities {', '.join(modalities)}; got {', '.join(sources) or 'none'}"
    if missing:
        text += f"; missing: {', '.join(missing)}"
    for name in unknown:
        near = get_close_matches(name, missing or modalities, 1, 0.5)
        text += f"; unknown: {name}" + (f" (did you mean {near[0]}?)" if near else "")
    raise InputError(text)


def _check_grid(image: Image, source: Source, reference: Image, reference_source: Source) -> None:
    help_text = "co-register and resample all images to one of them, as a rule T1c, first"
    if image.array.shape != reference.array.shape:
        raise InputError(
            f"{source} and {reference_source} are not on one grid: "
            f"{describe_grid(image.array.shape, image.affine)} against "
            f"{describe_grid(reference.array.shape, reference.affine)}; {help_text}"
        )
    distance = corner_distance(image.array.shape, image.affine, reference.affine)
    if distance > GRID_TOLERANCE_MM:
        raise InputError(
            f"{source} and {reference_source} are not on one grid: their corners lie up to {distance:.4g} mm "
            f"apart (allowed: {GRID_TOLERANCE_MM:g} mm); {help_text}"
        )


def _case_id(sources: Mapping[str, Source]) -> str:
    first = next(iter(sources.values()))
    if len({s.path for s in sources.values()}) == 1:
        return name_without_suffix(first.path)
    return first.path.resolve().parent.name
