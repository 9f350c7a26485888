"""Prediction of one case, from files to files: read, prepare, segment, decide, write, summarize.

A case ID makes ID-seg.nii.gz (labels as in the model's manifest, e.g. 1 NCR, 2 ED, 3 ET) and ID-summary.json, and on
request ID-left-out.nii.gz (what post-processing took away), ID-probabilities.nii.gz (4-D, one volume a label,
background first) and ID-uncertainty.nii.gz (0 certain to 1 undecided), all on the grid that T1c came on, and
ID-seg-MODALITY.nii.gz on that of another image. Each is written aside and renamed, the summary last: where it stands,
the case is finished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segmamba import __version__
from segmamba.cases.case import Case, Source, as_case, read_images, save_image
from segmamba.cases.incomplete import find_absent
from segmamba.cases.swaps import swap_warnings
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.images.image_io import Image, describe_grid
from segmamba.images.sources import read_source
from segmamba.models.package import Manifest, Model
from segmamba.networks.scan import choose_backend
from segmamba.prediction.options import PredictOptions, check_options, limits_of, output_files, settings_of
from segmamba.prediction.postprocess import (
    count_spots,
    describe_removed,
    postprocess,
    to_label_map,
    volumes_ml,
)
from segmamba.prediction.preprocess import Prepared as Preprocessed
from segmamba.prediction.preprocess import preprocess
from segmamba.prediction.segment import Segmentation, restore
from segmamba.prediction.stages import Progress, Stages
from segmamba.prediction.windows import predict
from segmamba.preparation.grids import Grid
from segmamba.preparation.plan import make_plan
from segmamba.preparation.run import Prepared, prepare

log = logging.getLogger(__name__)


def predict_case(
    model: Model,
    sources: Mapping[str, Source],
    output: Path,
    case_id: str,
    options: PredictOptions,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict:
    """Segments one case and writes its files (see `output_files`).

    Args:
        model: as `models.package.load_package` gives it.
        sources: modality -> its image; those of the model, fewer where its manifest says so.
        output: a folder, or the label map's own file, which ends in .nii or .nii.gz.
        case_id: names the files, and the case in the summary.
        options: what a user may choose.
        progress: told of each stage and of the fraction of it that is done, 0 to 1.
        cancelled: asked between two layers of the network, and between two steps of a preparation.

    Returns:
        The summary that was written: case, model, volumes in mL per region and label, seconds per stage, device,
        precision, scan back end, passes, absent modalities, what was checked, the steps of what was prepared, what
        was removed, how unsure the model was (Prediction.unsure).

    Raises:
        InputError: for images that cannot be read, do not fit one another or the model. Nothing was written.
        Cancelled: where `cancelled` said so. Nothing was written.

    Example:
        ``cases`` is a folder of cases, such as `segmamba phantom` makes, and ``folder`` an empty one.

        >>> from segmamba.cases.case_folder import find_case
        >>> from segmamba.models.package import find_model, load_package
        >>> model = load_package(find_model("quick"))
        >>> images = find_case(cases / "phantom-0", model.manifest.preprocess.modalities)
        >>> summary = predict_case(model, images, folder, "phantom-0", PredictOptions())
        >>> sorted(summary["volumes_ml"])
        ['ED', 'ET', 'NCR', 'TC', 'WT']
        >>> sorted(path.name for path in folder.iterdir())
        ['phantom-0-seg.nii.gz', 'phantom-0-summary.json']
    """
    check_options(model.manifest, options)
    stages = Stages(progress)
    seen = _read(model.manifest, sources, case_id, options, stages, cancelled)
    with stages.time("preprocess"):
        prepared = preprocess(seen.case, model.manifest.preprocess, seen.absent)
    seen = seen.without_images()  # 143 MB of a case of 240 x 240 x 155, while the network needs most
    result = _segment(model, prepared, options, stages, cancelled)
    files = output_files(output, case_id, options)
    with stages.time("write"):
        done = _decide(model.manifest, seen, result, options)
        _write(model.manifest, seen, result, done, options, files)
    summary = _summarize(model, seen, result, done, options, files, stages)
    write_aside(files["summary"], (json.dumps(summary, indent=2) + "\n").encode())
    stages.report("write", 1.0)
    return summary


@dataclass(frozen=True, eq=False)
class _Seen:
    """What came in. prepared: None where the images could be taken as they are."""

    case: Case
    prepared: Prepared | None
    absent: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """What the result lies on."""
        return (
            self.prepared.grids[self.prepared.reference] if self.prepared else Grid(self.case.shape, self.case.affine)
        )

    def without_images(self) -> _Seen:
        """The same without voxels, which nothing after the preprocessing reads."""
        case = self.case.without_images()
        return replace(self, case=case, prepared=replace(self.prepared, case=case) if self.prepared else None)


@dataclass(frozen=True, eq=False)
class _Decided:
    """label_map (X, Y, Z) uint8 on `_Seen.grid`; whole: with what was too small, which `removed` counts by region.

    probabilities (K, X, Y, Z) on that grid, where they were needed.
    """

    label_map: np.ndarray
    whole: np.ndarray
    removed: dict[str, dict[str, int]]
    probabilities: np.ndarray | None

    @property
    def left_out(self) -> np.ndarray:
        """(X, Y, Z) uint8, what was too small."""
        return np.where(self.whole != self.label_map, self.whole, 0)


def _read(
    manifest: Manifest,
    sources: Mapping[str, Source],
    case_id: str,
    options: PredictOptions,
    stages: Stages,
    cancelled: Callable[[], bool] | None,
) -> _Seen:
    with stages.time("read"):
        modalities = manifest.preprocess.modalities
        absent = find_absent(modalities, sources, manifest.incomplete)
        present = tuple(m for m in modalities if m not in absent)
        if unknown := [m for m in options.onto if m not in present]:
            raise InputError(f"no image {', '.join(unknown)} to bring the result onto; there are {', '.join(present)}")
        images = read_images(sources, present)
    prepared = _prepare(images, sources, case_id, options, stages, cancelled)
    with stages.time("check"):
        case = prepared.case if prepared else as_case(images, sources, case_id)
        warnings = [manifest.incomplete.warning(absent)] if manifest.incomplete and absent else []
        warnings += swap_warnings(case.images, dict.fromkeys(case.images, case.affine))
    return _Seen(case, prepared, absent, tuple(warnings))


def _segment(
    model: Model,
    prepared: Preprocessed,
    options: PredictOptions,
    stages: Stages,
    cancelled: Callable[[], bool] | None,
) -> Segmentation:
    """Everything in the label map, however small."""
    spec = model.manifest.inference
    with stages.time("network"):
        prediction = predict(
            model.network,
            prepared.tensor,
            spec,
            device=options.device,
            mirrorings=options.mirrorings,
            sw_batch_size=options.sw_batch_size,
            progress=partial(stages.report, "network"),
            cancelled=cancelled,
        )
    with stages.time("restore"):
        label_map = restore(prepared, prediction.probabilities, spec.nested)
    stages.report("restore", 1.0)
    return Segmentation(label_map, stages.seconds(), prepared, prediction)


def _decide(manifest: Manifest, seen: _Seen, result: Segmentation, options: PredictOptions) -> _Decided:
    whole, probabilities = result.label_map, None
    if seen.prepared:
        probabilities = seen.prepared.back(result.probabilities())
        whole = to_label_map(probabilities, manifest.inference.nested)
    elif options.probabilities:
        probabilities = result.probabilities()
    label_map, removed = postprocess(whole, seen.grid.affine, limits_of(manifest, options), manifest.scheme)
    return _Decided(label_map, whole, removed, probabilities)


def _write(
    manifest: Manifest,
    seen: _Seen,
    result: Segmentation,
    done: _Decided,
    options: PredictOptions,
    files: Mapping[str, Path],
) -> None:
    """Every file but the summary, the label map last."""
    affine = seen.grid.affine
    make_folder(files["summary"].parent)
    files["summary"].unlink(missing_ok=True)  # of an earlier run: it is not about what is written from here on
    if "probabilities" in files and done.probabilities is not None:
        save_image(np.moveaxis(done.probabilities, 0, -1), affine, files["probabilities"], np.float32)
    if "left_out" in files:
        save_image(done.left_out, affine, files["left_out"], np.uint8)
    if "uncertainty" in files:
        uncertainty = result.uncertainty()
        uncertainty = seen.prepared.back(uncertainty) if seen.prepared else uncertainty
        save_image(uncertainty, affine, files["uncertainty"], np.float32)
    for modality in options.onto:
        other, there = done.label_map, seen.grid
        if seen.prepared:
            there = seen.prepared.grids[modality]
            shares = seen.prepared.back(result.probabilities(), modality)
            other = to_label_map(shares, manifest.inference.nested)
            other, _ = postprocess(other, there.affine, limits_of(manifest, options), manifest.scheme)
        save_image(other, there.affine, files[f"label_map_{modality}"], np.uint8)
    save_image(done.label_map, affine, files["label_map"], np.uint8)


def _summarize(
    model: Model,
    seen: _Seen,
    result: Segmentation,
    done: _Decided,
    options: PredictOptions,
    files: Mapping[str, Path],
    stages: Stages,
) -> dict:
    manifest = model.manifest
    case = seen.case
    affine = seen.grid.affine
    volumes = volumes_ml(done.label_map, affine, manifest.scheme)
    told = describe_removed(done.removed, affine)
    return {
        "case": case.id,
        "files": {kind: path.name for kind, path in files.items()},
        "volumes_ml": {name: round(ml, 3) for name, ml in volumes.items()},
        "seconds": {stage: round(value, 2) for stage, value in stages.seconds().items()},
        "model": manifest.id,
        "regions": list(manifest.regions),
        "settings": settings_of(model, options, case.sources),
        "device": result.device,
        "precision": result.precision,
        "scan_backend": choose_backend(result.device),
        "passes": result.passes,
        "unsure": round(result.prediction.unsure, 3),
        "removed": done.removed,
        "left_out": {**count_spots(done.left_out, affine), "text": told} if told else None,
        "steps": [step.as_json() for step in seen.prepared.steps] if seen.prepared else [],
        "absent": list(seen.absent),
        "notes": [
            describe_grid(case.shape, case.affine),
            *seen.warnings,
            *([told] if told else []),
            *case.notes,
            *result.notes,
        ],
        "segmamba": __version__,
    }


def find_warnings(summary: Mapping) -> list[str]:
    """Of a summary's notes those that a person should know: neither the grid nor what "left_out" says in full."""
    told = (summary["left_out"] or {}).get("text")
    return [note for note in summary["notes"][1:] if note != told]


def _prepare(
    images: Mapping[str, Image],
    sources: Mapping[str, Source],
    case_id: str,
    options: PredictOptions,
    stages: Stages,
    cancelled: Callable[[], bool] | None,
) -> Prepared | None:
    """None where the images can be taken as they are."""
    if options.prepare == "never":
        return None
    with stages.time("check"):
        mask = read_source(options.brain_mask) if options.brain_mask is not None else None
        plan = make_plan(images, brain_given=mask is not None)
    if not plan.needed:
        return None
    for action in plan.actions:
        log.info("%s: %s", case_id, action.why)
    with stages.time("prepare"):
        told = partial(stages.report, "prepare")
        return prepare(images, sources, case_id, plan, mask=mask, progress=told, cancelled=cancelled)
