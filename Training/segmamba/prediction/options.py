"""What a user may choose for a segmentation, and what follows from it: limits, the names of files, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segmamba.cases.case import Source
from segmamba.errors import InputError
from segmamba.images.digest import hash_image
from segmamba.models.package import Manifest, Model
from segmamba.models.specs import PostprocessSpec, check_limits
from segmamba.prediction.windows import SW_BATCH_SIZE
from segmamba.settings import plain

# the weights are known by their hash
_OF_MANIFEST = ("network", "preprocess", "inference", "label_map", "regions")
PREPARE = ("auto", "never")
POSTPROCESS = ("auto", "never")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What a user may choose for a segmentation."""

    device: str = "cpu"
    """As torch names it: "cpu", "cuda:0", "mps"."""
    mirrorings: int = 0
    """0, 1, 3 or 7 extra passes with flipped axes."""
    probabilities: bool = False
    """Write the probability of each label as a 4-D image."""
    uncertainty: bool = False
    """Write how undecided the model is, 0 to 1, as an image."""
    postprocess: str = "auto"
    """"auto" takes away what the model's manifest calls too small, "never" nothing of it."""
    remove_small_mm3: Mapping[str, float] | None = None
    """Region -> smallest component that stays, instead of the manifest's."""
    left_out: bool = False
    """Write what was taken away as a label map of its own."""
    sw_batch_size: int = SW_BATCH_SIZE
    """See prediction.windows.predict."""
    compressed: bool = True
    """Images as .nii.gz, or, quicker to write and read, .nii."""
    prepare: str = "auto"
    """"auto" registers images and cuts the brain out where they need it (preparation), "never" takes them as they are.
    """
    brain_mask: Path | None = None
    """Instead of the brain that would be looked for."""
    onto: tuple[str, ...] = ()
    """Modalities on whose grids the label map is wanted besides."""

    def __post_init__(self) -> None:
        if self.sw_batch_size < 1:
            raise InputError(f"sw_batch_size {self.sw_batch_size}: expected 1 or more")
        if self.prepare not in PREPARE:
            raise InputError(f"prepare {self.prepare!r}: expected one of {', '.join(PREPARE)}")
        if self.postprocess not in POSTPROCESS:
            raise InputError(f"postprocess {self.postprocess!r}: expected one of {', '.join(POSTPROCESS)}")
        if self.prepare == "never" and self.brain_mask is not None:
            raise InputError("a brain mask was given, and nothing is to be prepared; leave one of the two out")


def check_options(manifest: Manifest, options: PredictOptions) -> None:
    """Refuses what the model does not take.

    Raises InputError where `options` name regions that the model does not have, or sizes that are none, and where they
    ask for mirrorings of labels that name sides.
    """
    check_limits(options.remove_small_mm3 or {}, manifest.scheme)
    if options.mirrorings:
        manifest.scheme.check_mirroring("segment without mirrorings")


def limits_of(manifest: Manifest, options: PredictOptions) -> PostprocessSpec:
    """The manifest's limits, or none of them; sizes of components that were asked for count instead."""
    spec = manifest.postprocess if options.postprocess == "auto" else PostprocessSpec()
    components = {**spec.min_component_mm3, **(options.remove_small_mm3 or {})}
    return replace(spec, min_component_mm3=components)


def output_files(output: Path, case_id: str, options: PredictOptions) -> dict[str, Path]:
    """Where the results of a case go.

    Args:
        output: a folder, or the label map's own file if it ends in .nii or .nii.gz; the other files then lie beside it.
        case_id: what the names of the files begin with.
        options: which files are wanted, and whether they are compressed.

    Returns:
        Kind ("label_map", "probabilities", "left_out", "uncertainty", "label_map_t2w", ..., "summary" last) -> path.
    """
    name, suffix = output.name, ".nii.gz" if options.compressed else ".nii"
    if name.endswith((".nii", ".nii.gz")):
        folder, label_map = output.parent, output
        case_id = name.removesuffix(".gz").removesuffix(".nii").removesuffix("-seg")
    else:
        folder, label_map = output, output / f"{case_id}-seg{suffix}"
    files = {"label_map": label_map}
    if options.probabilities:
        files["probabilities"] = folder / f"{case_id}-probabilities{suffix}"
    if options.left_out:
        files["left_out"] = folder / f"{case_id}-left-out{suffix}"
    if options.uncertainty:
        files["uncertainty"] = folder / f"{case_id}-uncertainty{suffix}"
    for modality in options.onto:
        files[f"label_map_{modality}"] = folder / f"{case_id}-seg-{modality}{suffix}"
    return {**files, "summary": folder / f"{case_id}-summary.json"}


def digest_images(sources: Mapping[str, Source]) -> dict[str, str]:
    """Modality -> sha256 of its image, of which every file is read: what an examination is known by."""
    return {modality: _digest(source) for modality, source in sorted(sources.items())}


def settings_of(model: Model, options: PredictOptions, images_sha256: Mapping[str, str]) -> dict:
    """What decides the result: where a summary has the same, its case need not be run again.

    Args:
        model: that the case is run with.
        options: what a user chose.
        images_sha256: of the case, as `digest_images` gives them.

    Returns:
        Plain JSON, as it stands in the summary under "settings".
    """
    manifest = model.manifest
    settings = {
        "weights_sha256": manifest.weights_sha256,
        "manifest": {name: plain(getattr(manifest, name)) for name in _OF_MANIFEST},
        "images_sha256": dict(images_sha256),
        "mirrorings": options.mirrorings,
        "postprocess": asdict(limits_of(manifest, options)),
        "remove_small_mm3": dict(options.remove_small_mm3 or {}),
        "prepare": options.prepare,
        "brain_mask_sha256": _digest(Source(options.brain_mask)) if options.brain_mask else None,
    }
    return json.loads(json.dumps(settings))  # lists in place of tuples, as it is read again


def _digest(source: Source) -> str:
    return hash_image(source.path, str(source.volume))
