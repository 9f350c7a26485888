"""Prediction of one case, from files to files: read, prepare, segment, decide, write, summarize.

A case ID makes ID-seg.nii.gz (labels as in the model's manifest, e.g. 1 NCR, 2 ED, 3 ET) and ID-summary.json, and on
request ID-left-out.nii.gz (what post-processing took away), ID-probabilities.nii.gz (4-D, one volume a label,
background first) and ID-uncertainty.nii.gz (0 certain to 1 undecided), all on the grid that T1c came on, and
ID-seg-MODALITY.nii.gz on that of another image. Each is written aside and renamed; the summary
stands there first, as unfinished, and last as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segmamba.cases.case import Source, as_case, read_images
from segmamba.cases.incomplete import find_absent
from segmamba.cases.swaps import swap_warnings
from segmamba.errors import InputError
from segmamba.images.image_io import Image
from segmamba.images.sources import read_source
from segmamba.models.package import Model
from segmamba.prediction.options import PredictOptions, check_options, digest_images, limits_of, output_files
from segmamba.prediction.postprocess import postprocess, to_label_map
from segmamba.prediction.preprocess import Prepared as Preprocessed
from segmamba.prediction.preprocess import preprocess
from segmamba.prediction.result import Result, Seen, check_place, write, write_summary
from segmamba.prediction.segment import Segmentation, restore
from segmamba.prediction.stages import Progress, Stages
from segmamba.prediction.windows import predict
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
        InputError: for images that cannot be read, do not fit one another or the model, and where files of another
            case lie in the place of the result (result.check_place). Nothing was written.
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
    files = output_files(output, case_id, options)
    stages = Stages(progress)
    asked = _Asked(model, sources, case_id, options, stages, cancelled)
    with stages.time("read"):
        images, absent = _read(asked)
        images_sha256 = digest_images(sources)
        check_place(files, images_sha256)
    prepared = _prepare(asked, images)
    with stages.time("check"):
        seen = _look(asked, images, absent, prepared, images_sha256)
    del images, prepared
    with stages.time("preprocess"):
        preprocessed = preprocess(seen.case, model.manifest.preprocess, absent)
    seen = seen.without_images()  # 143 MB of a case of 240 x 240 x 155, while the network needs most
    segmentation = _segment(asked, preprocessed)
    with stages.time("write"):
        result = _decide(asked, seen, segmentation)
        written = write(result, files)
    summary = write_summary(result, files, stages.seconds(), written)
    stages.report("write", 1.0)
    return summary


@dataclass(frozen=True, eq=False)
class _Asked:
    """What `predict_case` was asked for."""

    model: Model
    sources: Mapping[str, Source]
    case_id: str
    options: PredictOptions
    stages: Stages
    cancelled: Callable[[], bool] | None


def _read(asked: _Asked) -> tuple[dict[str, Image], tuple[str, ...]]:
    """The images, and which of the model's modalities are absent."""
    manifest = asked.model.manifest
    modalities = manifest.preprocess.modalities
    absent = find_absent(modalities, asked.sources, manifest.incomplete)
    present = tuple(m for m in modalities if m not in absent)
    if unknown := [m for m in asked.options.onto if m not in present]:
        raise InputError(f"no image {', '.join(unknown)} to bring the result onto; there are {', '.join(present)}")
    return read_images(asked.sources, present), absent


def _prepare(asked: _Asked, images: Mapping[str, Image]) -> Prepared | None:
    """None where the images can be taken as they are."""
    options, stages = asked.options, asked.stages
    if options.prepare == "never":
        return None
    with stages.time("check"):
        mask = read_source(options.brain_mask) if options.brain_mask is not None else None
        plan = make_plan(images, brain_given=mask is not None)
    if not plan.needed:
        return None
    for action in plan.actions:
        log.info("%s: %s", asked.case_id, action.why)
    with stages.time("prepare"):
        told = partial(stages.report, "prepare")
        return prepare(images, asked.sources, asked.case_id, plan, mask=mask, progress=told, cancelled=asked.cancelled)


def _look(
    asked: _Asked,
    images: Mapping[str, Image],
    absent: tuple[str, ...],
    prepared: Prepared | None,
    images_sha256: dict[str, str],
) -> Seen:
    case = prepared.case if prepared else as_case(images, asked.sources, asked.case_id)
    incomplete = asked.model.manifest.incomplete
    warnings = [incomplete.warning(absent)] if incomplete and absent else []
    warnings += swap_warnings(case.images, dict.fromkeys(case.images, case.affine))
    return Seen(case, images_sha256, prepared, absent, tuple(warnings))


def _segment(asked: _Asked, preprocessed: Preprocessed) -> Segmentation:
    """Everything in the label map, however small."""
    spec, options, stages = asked.model.manifest.inference, asked.options, asked.stages
    with stages.time("network"):
        prediction = predict(
            asked.model.network,
            preprocessed.tensor,
            spec,
            device=options.device,
            mirrorings=options.mirrorings,
            sw_batch_size=options.sw_batch_size,
            progress=partial(stages.report, "network"),
            cancelled=asked.cancelled,
        )
    with stages.time("restore"):
        label_map = restore(preprocessed, prediction.probabilities, spec.nested)
    stages.report("restore", 1.0)
    return Segmentation(label_map, stages.seconds(), preprocessed, prediction)


def _decide(asked: _Asked, seen: Seen, segmentation: Segmentation) -> Result:
    manifest, options = asked.model.manifest, asked.options
    whole, probabilities = segmentation.label_map, None
    if seen.prepared:
        probabilities = seen.prepared.back(segmentation.probabilities())
        whole = to_label_map(probabilities, manifest.inference.nested)
    elif options.probabilities:
        probabilities = segmentation.probabilities()
    label_map, removed = postprocess(whole, seen.grid.affine, limits_of(manifest, options), manifest.scheme)
    return Result(
        model=asked.model,
        options=options,
        seen=seen,
        segmentation=segmentation,
        label_map=label_map,
        whole=whole,
        removed=removed,
        probabilities=probabilities,
    )
