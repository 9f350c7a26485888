"""Prediction from files to files: one case, or a folder of cases.

A case ID makes ID-seg.nii.gz (labels as in the model's manifest, e.g. 1 NCR, 2 ED, 3 ET) and ID-summary.json, and on
request ID-left-out.nii.gz (what post-processing took away), ID-probabilities.nii.gz (4-D, one volume a label,
background first) and ID-uncertainty.nii.gz (0 certain to 1 undecided), all on the grid that T1c came on, and
ID-seg-MODALITY.nii.gz on that of another image. Each is written aside and renamed, the summary last: where it stands,
the case is finished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segmamba import __version__
from segmamba.cases.case import Source, as_case, find_case, read_images, save_image
from segmamba.cases.case_folder import holds_results_only
from segmamba.cases.incomplete import find_absent
from segmamba.cases.swaps import swap_warnings
from segmamba.errors import InputError, explain, last_line
from segmamba.files.atomic import make_folder, write_aside
from segmamba.images.image_io import Image
from segmamba.images.sources import read_source
from segmamba.models.package import Manifest, Model
from segmamba.models.specs import PostprocessSpec
from segmamba.networks.scan import choose_backend
from segmamba.prediction.postprocess import describe_removed, postprocess, to_label_map, volumes_ml
from segmamba.prediction.segment import segment
from segmamba.preparation.grids import Grid
from segmamba.preparation.plan import make_plan
from segmamba.preparation.run import Prepared, prepare
from segmamba.settings import read_json

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
PREPARE = ("auto", "never")
POSTPROCESS = ("auto", "never")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """mirrorings: 0, 1, 3 or 7 extra passes. postprocess: "auto" takes away what the model's manifest calls too small,
    "never" nothing of it. remove_small_mm3: region -> smallest component that stays, instead of the manifest's.
    left_out: write what was taken away as a label map of its own.

    windows_at_once: see prediction.windows.predict. compressed: images as .nii.gz, or, quicker to write and read, .nii.
    prepare: "auto" registers images and cuts the brain out where they need it (preparation), "never" takes them as
    they are. brain_mask: instead of the brain that would be looked for. onto: modalities on whose grids the label map
    is wanted besides.
    """

    device: str = "cpu"
    mirrorings: int = 0
    probabilities: bool = False
    uncertainty: bool = False
    postprocess: str = "auto"
    remove_small_mm3: Mapping[str, float] | None = None
    left_out: bool = False
    windows_at_once: int = 1
    compressed: bool = True
    prepare: str = "auto"
    brain_mask: Path | None = None
    onto: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.prepare not in PREPARE:
            raise InputError(f"prepare {self.prepare!r}: expected one of {', '.join(PREPARE)}")
        if self.postprocess not in POSTPROCESS:
            raise InputError(f"postprocess {self.postprocess!r}: expected one of {', '.join(POSTPROCESS)}")
        if self.prepare == "never" and self.brain_mask is not None:
            raise InputError("a brain mask was given, and nothing is to be prepared; leave one of the two out")


def predict_case(
    model: Model,
    sources: Mapping[str, Source],
    output: Path,
    case_id: str,
    options: PredictOptions,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict:
    """Segments one case and writes its files (see `output_files`). Returns the summary that it wrote.

    The summary: case, model, volumes in mL per region and label, seconds per stage, device, precision, scan back
    end, passes, absent modalities, what was checked, the steps of what was prepared, what was removed. Raises
    InputError and Cancelled; then nothing was written.
    """
    manifest = model.manifest
    tell = progress or (lambda stage, fraction: None)
    start = time.perf_counter()
    tell("read", 0.0)
    modalities = manifest.preprocess.modalities
    absent = find_absent(modalities, sources, manifest.incomplete)
    present = tuple(m for m in modalities if m not in absent)
    if unknown := [m for m in options.onto if m not in present]:
        raise InputError(f"no image {', '.join(unknown)} to bring the result onto; there are {', '.join(present)}")
    images = read_images(sources, present)
    seconds = {"read": time.perf_counter() - start}
    begin = time.perf_counter()
    prepared = _prepare(images, sources, case_id, options, tell, cancelled)
    case = prepared.case if prepared else as_case(images, sources, case_id)
    warnings = [manifest.incomplete.warning(absent)] if absent else []
    warnings += swap_warnings(case.images, dict.fromkeys(case.images, case.affine))
    del images
    seconds["prepare"] = time.perf_counter() - begin
    result = segment(
        case,
        model.network,
        manifest.preprocess,
        manifest.inference,
        absent=absent,
        device=options.device,
        mirrorings=options.mirrorings,
        windows_at_once=options.windows_at_once,
        progress=progress,
        cancelled=cancelled,
    )
    tell("write", 0.0)
    begin = time.perf_counter()
    label_map, probabilities, uncertainty = result.label_map, result.probabilities, result.uncertainty
    grid = Grid(case.shape, case.affine)
    if prepared:
        grid = prepared.grids[prepared.reference]
        probabilities, uncertainty = prepared.back(probabilities), prepared.back(uncertainty)
        label_map = to_label_map(probabilities, manifest.inference.nested)
    whole = label_map
    limits = _limits(manifest, options)
    label_map, removed = postprocess(whole, grid.affine, limits, manifest.scheme)
    told = describe_removed(removed, grid.affine)
    files = output_files(output, case_id, options)
    make_folder(files["summary"].parent)
    if "probabilities" in files:
        save_image(np.moveaxis(probabilities, 0, -1), grid.affine, files["probabilities"], np.float32)
    if "left_out" in files:
        save_image(np.where(whole != label_map, whole, 0), grid.affine, files["left_out"], np.uint8)
    if "uncertainty" in files:
        save_image(uncertainty, grid.affine, files["uncertainty"], np.float32)
    for modality in options.onto:
        other, there = label_map, grid
        if prepared:
            there = prepared.grids[modality]
            other = to_label_map(prepared.back(result.probabilities, modality), manifest.inference.nested)
            other, _ = postprocess(other, there.affine, limits, manifest.scheme)
        save_image(other, there.affine, files[f"label_map_{modality}"], np.uint8)
    save_image(label_map, grid.affine, files["label_map"], np.uint8)
    seconds.update(result.seconds, write=time.perf_counter() - begin)
    seconds["total"] = time.perf_counter() - start
    summary = {
        "case": case_id,
        "files": {kind: path.name for kind, path in files.items()},
        "volumes_ml": {name: round(ml, 3) for name, ml in volumes_ml(label_map, grid.affine, manifest.scheme).items()},
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "model": manifest.id,
        "regions": list(manifest.regions),
        "settings": _settings(model, options, case.sources),
        "device": result.device,
        "precision": result.precision,
        "scan_backend": choose_backend(result.device),
        "passes": result.passes,
        "removed": removed,
        "steps": [step.as_json() for step in prepared.steps] if prepared else [],
        "absent": list(absent),
        "notes": [case.checks[0], *warnings, *([told] if told else []), *case.checks[1:], *result.notes],
        "segmamba": __version__,
    }
    write_aside(files["summary"], (json.dumps(summary, indent=2) + "\n").encode())
    tell("write", 1.0)
    return summary


def _prepare(
    images: Mapping[str, Image],
    sources: Mapping[str, Source],
    case_id: str,
    options: PredictOptions,
    tell: Progress,
    cancelled: Callable[[], bool] | None,
) -> Prepared | None:
    """None where the images can be taken as they are."""
    if options.prepare == "never":
        return None
    tell("prepare", 0.0)
    mask = read_source(options.brain_mask) if options.brain_mask is not None else None
    plan = make_plan(images, brain_given=mask is not None)
    if not plan.needed:
        return None
    for action in plan.actions:
        log.info("%s: %s", case_id, action.why)
    return prepare(
        images,
        sources,
        case_id,
        plan,
        mask=mask,
        progress=lambda fraction: tell("prepare", fraction),
        cancelled=cancelled,
    )


def _limits(manifest: Manifest, options: PredictOptions) -> PostprocessSpec:
    """The manifest's limits, or none of them; sizes of components that were asked for count instead."""
    spec = manifest.postprocess if options.postprocess == "auto" else PostprocessSpec()
    components = {**spec.min_component_mm3, **(options.remove_small_mm3 or {})}
    return replace(spec, min_component_mm3=components)


def output_files(output: Path, case_id: str, options: PredictOptions) -> dict[str, Path]:
    """Where the results of a case go: `output` is a folder, or the label map's own file if it ends in .nii(.gz)."""
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


def predict_batch(
    model: Model,
    folder: Path,
    output: Path,
    options: PredictOptions,
    progress: Callable[[str, str, float], None] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> list[dict]:
    """Every case folder in `folder`, by name; goes on after a bad case, and skips what is finished.

    shard: (i, n), only every nth of them from the ith on, 0 <= i < n: the share of one of n processes.

    Returns a row a case: {"case", "status": "done" | "skipped" | "failed", and "summary" or "error"}.
    progress is called with the case, the stage and the fraction of it that is done.
    Raises InputError where `folder` holds no case at all.
    """
    inside = sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.is_dir()) if folder.is_dir() else []
    # results in between, of this run or of one before, are no cases
    folders = [f for f in inside if f.resolve() != output.resolve() and not holds_results_only(f)]
    if not folders:
        raise InputError(f"{folder} has no case folders; expected one folder a case, with four images each")
    rows = []
    for place in folders[shard[0] :: shard[1]]:
        case_id = place.name
        tell = None if progress is None else (lambda stage, fraction, c=case_id: progress(c, stage, fraction))
        try:
            manifest = model.manifest
            sources = find_case(place, manifest.preprocess.modalities, incomplete=manifest.incomplete is not None)
            if summary := _finished(output, case_id, _settings(model, options, sources), options):
                rows.append({"case": case_id, "status": "skipped", "summary": summary})
                continue
            summary = predict_case(model, sources, output, case_id, options, tell)
            rows.append({"case": case_id, "status": "done", "summary": summary})
        except InputError as error:
            log.error("%s: %s", case_id, error)
            rows.append({"case": case_id, "status": "failed", "error": str(error)})
        except Exception as error:  # a full disk, no memory for this one, or a mistake of ours: try the others
            said = explain(error) if isinstance(error, OSError) else f"{type(error).__name__}: {last_line(error)}"
            log.error("%s failed: %s", case_id, said)
            log.debug("%s", case_id, exc_info=True)
            rows.append({"case": case_id, "status": "failed", "error": said})
    return rows


def format_batch(rows: list[dict]) -> str:
    """The rows of `predict_batch` as a table for a terminal."""
    width = max((len(row["case"]) for row in rows), default=4)
    regions = next((row["summary"]["regions"] for row in rows if "summary" in row), [])
    lines = [f"{'case':<{width}}  status  {''.join(f'{region} mL'.rjust(9) for region in regions)}  seconds"]
    for row in rows:
        text = f"{row['case']:<{width}}  {row['status']:<8}"
        if "summary" in row:
            volumes = row["summary"]["volumes_ml"]
            text += "".join(f"{volumes[region]:9.1f}" for region in regions)
            text += f"  {row['summary']['seconds']['total']:7.1f}"
        else:
            text += f"  {row['error']}"
        lines.append(text)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "skipped", "failed")}
    lines.append(", ".join(f"{n} {status}" for status, n in counts.items()))
    return "\n".join(lines)


def _settings(model: Model, options: PredictOptions, sources: Mapping[str, Source]) -> dict:
    """What decides the result: where a summary has the same, its case need not be run again."""
    return {
        "weights_sha256": model.manifest.weights_sha256,
        "images_sha256": {modality: _digest(source) for modality, source in sorted(sources.items())},
        "mirrorings": options.mirrorings,
        "postprocess": asdict(_limits(model.manifest, options)),
        "remove_small_mm3": dict(options.remove_small_mm3 or {}),
        "prepare": options.prepare,
        "brain_mask_sha256": _digest(Source(options.brain_mask)) if options.brain_mask else None,
    }


def _digest(source: Source) -> str:
    """sha256 over the image's file, or over every file of its DICOM folder by name."""
    files = [source.path] if source.path.is_file() else sorted(p for p in source.path.iterdir() if p.is_file())
    digest = hashlib.sha256(str(source.volume).encode())
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _finished(output: Path, case_id: str, settings: dict, options: PredictOptions) -> dict | None:
    """The summary of an earlier run with the same model and settings whose files are all there, else None."""
    files = output_files(output, case_id, options)
    try:
        summary = read_json(files["summary"])
        same = summary["settings"] == settings
    except (ValueError, KeyError, TypeError):  # InputError is a ValueError
        return None
    return summary if same and all(path.is_file() for path in files.values()) else None
