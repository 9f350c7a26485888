"""The images of a corrected case as they are kept: raw ones prepared as for a model, on the grid that T1c came on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segmamba.cases.case import MODALITIES, Case, Source, as_case, read_images
from segmamba.errors import InputError
from segmamba.images.image_io import Image
from segmamba.images.sources import read_source
from segmamba.preparation.plan import make_plan
from segmamba.preparation.run import prepare
from segmamba.preparation.steps import Step

PREPARE = ("auto", "never")


@dataclass(frozen=True, eq=False)
class Ready:
    """A corrected case, ready to be written."""

    case: Case
    """What is kept."""
    given: Mapping[str, Image]
    """The images as they came, each on its own grid; the case is known by them."""
    steps: tuple[Step, ...] = ()
    """What was done to them, in order; none where they are kept as they came."""


def make_ready(
    images: Mapping[str, Path | str | Source], preparing: str = "never", brain_mask: Path | None = None
) -> Ready:
    """Reads the four images, and does to them what segmamba.preparation does before a prediction, where they need it.

    T1c is not interpolated, and the case lies on its grid: what was drawn on it fits as it is.

    Args:
        images: all of MODALITIES.
        preparing: "auto", or "never" for images that are taken as they are.
        brain_mask: on T1c, instead of the brain that would be looked for.

    Returns:
        The case, the images as they were given, and what was done to them.

    Raises:
        InputError: where an image of MODALITIES is missing, cannot be read or cannot be prepared, or, with "never",
            where the images do not lie on one grid.
    """
    if preparing not in PREPARE:
        raise InputError(f"prepare {preparing!r}: expected one of {', '.join(PREPARE)}")
    if preparing == "never" and brain_mask is not None:
        raise InputError("a brain mask was given, and nothing is to be prepared; leave one of the two out")
    if missing := [m for m in MODALITIES if m not in images]:
        raise InputError(
            f"no image {', '.join(missing)}: a case that is trained on needs all of {', '.join(MODALITIES)}; what was "
            "segmented without one of them cannot be sent"
        )
    given = read_images(images, MODALITIES)
    sources = {m: source if isinstance(source, Source) else Source(Path(source)) for m, source in images.items()}
    if preparing == "auto":
        mask = None if brain_mask is None else read_source(brain_mask)
        plan = make_plan(given, brain_given=mask is not None)
        if plan.needed:
            done = prepare(given, sources, "case", plan, mask=mask, own_grid=True)
            return Ready(done.case, given, done.steps)
    return Ready(as_case(given, sources, "case"), given)
