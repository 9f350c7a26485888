"""Prediction of a folder of cases: what is finished is skipped, and a bad case stops none of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from segmamba.cases.case import find_case
from segmamba.cases.case_folder import holds_results_only, may_hold_images
from segmamba.errors import InputError, explain, last_line
from segmamba.files.atomic import subfolders
from segmamba.models.package import Model
from segmamba.prediction.options import PredictOptions, check_options, digest_images, output_files, settings_of
from segmamba.prediction.predict import predict_case
from segmamba.prediction.result import finished

log = logging.getLogger(__name__)

_LISTED = 5


def predict_batch(
    model: Model,
    folder: Path,
    output: Path,
    options: PredictOptions,
    progress: Callable[[str, str, float], None] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> list[dict]:
    """Segments every case folder in `folder`, by name; goes on after a bad case, and skips what is finished.

    Args:
        model: as `models.package.load_package` gives it.
        folder: with a folder for each case.
        output: folder of the results of all cases, as of `output_files`.
        options: what a user may choose, the same for every case.
        progress: called with the case, the stage and the fraction (0 to 1) of it that is done.
        shard: (i, n), only every nth case from the ith on, 0 <= i < n: the share of one of n processes.

    Returns:
        A row a case: {"case", "status": "done" | "skipped" | "failed", and "summary" or "error"}.

    Raises:
        InputError: where `folder` is missing, a case itself, or holds no case at all, or as `check_options`.
    """
    check_options(model.manifest, options)
    modalities = model.manifest.preprocess.modalities
    _check_folder(folder, model)
    # results in between, of this run or of one before, are no cases
    of_output = (output.resolve(), *output.resolve().parents)
    folders = [f for f in subfolders(folder) if _may_be_case(f, modalities if f.resolve() in of_output else ())]
    if not folders:
        raise InputError(f"{folder} has no case folders; expected one folder a case, with four images each")
    rows = []
    for place in folders[shard[0] :: shard[1]]:
        case_id = place.name
        report = None if progress is None else (lambda stage, fraction, c=case_id: progress(c, stage, fraction))
        try:
            manifest = model.manifest
            sources = find_case(place, modalities, incomplete=manifest.incomplete is not None)
            files = output_files(output, case_id, options)
            if summary := finished(files, settings_of(model, options, digest_images(sources))):
                rows.append({"case": case_id, "status": "skipped", "summary": summary})
                continue
            summary = predict_case(model, sources, output, case_id, options, report)
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
    titles = "".join(f"{region} mL".rjust(9) for region in regions)
    lines = [f"{'case':<{width}}  status  {titles}  seconds  unsure"]
    for row in rows:
        text = f"{row['case']:<{width}}  {row['status']:<8}"
        if "summary" in row:
            volumes = row["summary"]["volumes_ml"]
            text += "".join(f"{volumes[region]:9.1f}" for region in regions)
            text += f"  {row['summary']['seconds']['total']:7.1f}"
            if "unsure" in row["summary"]:  # not in those of earlier versions
                text += f"  {row['summary']['unsure']:6.2f}"
        else:
            text += f"  {row['error']}"
        lines.append(text)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("done", "skipped", "failed")}
    lines.append(", ".join(f"{n} {status}" for status, n in counts.items()))
    if len(order := next_to_correct(rows)) > 1:
        lines.append(f"most worth correcting, the least sure first: {', '.join(order[:_LISTED])}")
    return "\n".join(lines)


def next_to_correct(rows: list[dict]) -> list[str]:
    """Cases of `predict_batch`, those first of which the model is least sure: they teach it most."""
    unsure = {row["case"]: row["summary"]["unsure"] for row in rows if "unsure" in row.get("summary", {})}
    return sorted(unsure, key=lambda case: -unsure[case])


def _check_folder(folder: Path, model: Model) -> None:
    """Raises InputError for what is no folder, and for a case in the place of a folder of cases."""
    if not folder.is_dir():
        what = "a file; expected a folder of cases" if folder.exists() else "no such folder; check the path"
        raise InputError(f"{folder}: {what}")
    try:
        find_case(folder, model.manifest.preprocess.modalities, incomplete=model.manifest.incomplete is not None)
    except InputError:
        return
    raise InputError(f"{folder}: a case itself; give it without --batch, or the folder above it")


def _may_be_case(folder: Path, images: Sequence[str]) -> bool:
    """Also where it cannot be looked into: that is said of this case, and the others are run.

    images: of which it holds one or more; none where it need not.
    """
    try:
        return not holds_results_only(folder) and (not images or may_hold_images(folder, images))
    except OSError:
        return True
