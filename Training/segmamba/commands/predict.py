"""`segmamba predict`: a case, or a folder of cases, to label maps."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

from segmamba.commands.dicom import (
    DicomCase,
    add_series_argument,
    dicom_case,
    named_series,
    seg_target,
    write_case_seg,
)
from segmamba.commands.shared import AddCommand, Bar, choose_device, ready_for_output
from segmamba.errors import InputError
from segmamba.images.modalities import MODALITIES


def add(add_command: AddCommand) -> None:
    """Adds `predict` to the command line."""
    command = add_command("predict", run, "segment a case, or a folder of cases")
    command.add_argument("case", nargs="?", help="folder of one case, in any of the BraTS namings, or an MSD 4-D file")
    for modality in MODALITIES:
        command.add_argument(f"--{modality}", metavar="FILE", help="image file or DICOM folder")
    command.add_argument("--dicom", metavar="FOLDER", help="folder of DICOM files; `segmamba dicom` lists its series")
    add_series_argument(command)
    command.add_argument(
        "--dicom-seg",
        action="store_true",
        help="with --dicom: also write case-seg.dcm, which contains the patient's name like every DICOM file",
    )
    command.add_argument("--batch", metavar="FOLDER", help="a folder of case folders")
    command.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="OUT",
        help="folder for the results, or the .nii.gz file of the label map, with the rest beside it; what lies there "
        "is written over only if it was made of the same images and is as it was written",
    )
    command.add_argument(
        "--model",
        action="append",
        metavar="NAME_OR_FOLDER",
        help="default: quick; repeat for the mean of several, as of the folds of a cross-validation",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--mirrorings",
        type=int,
        default=0,
        choices=(0, 1, 3, 7),
        help="test-time augmentation: extra passes with flipped axes (default: 0)",
    )
    command.add_argument(
        "--sw-batch-size", type=int, default=2, metavar="N", help="windows that a GPU takes together (default: 2)"
    )
    command.add_argument(
        "--prepare",
        default="auto",
        choices=("auto", "never"),
        help="auto: register the images to T1c and extract the brain where needed; never: use the images as they are",
    )
    command.add_argument(
        "--brain-mask", metavar="FILE", help="brain mask on the T1c image; without it, the brain is extracted"
    )
    command.add_argument(
        "--on",
        action="append",
        default=[],
        choices=MODALITIES,
        help="also write the label map on the grid of this image",
    )
    command.add_argument("--probabilities", action="store_true", help="also write the probability of each label")
    command.add_argument("--uncertainty", action="store_true", help="also write the entropy map")
    command.add_argument(
        "--remove-small",
        action="append",
        default=[],
        metavar="REGION=MM3",
        help="smallest component to keep, e.g. WT=250, instead of the model's own limit; can be repeated",
    )
    command.add_argument(
        "--postprocess",
        choices=("auto", "never"),
        default="auto",
        help="never: keep components and totals below the limits in the model's manifest",
    )
    command.add_argument(
        "--left-out",
        action="store_true",
        help="also write the components that were left out as a label map of their own",
    )
    command.add_argument(
        "--shard",
        metavar="I/N",
        help="with --batch: process every Nth case, starting at case I (0 to N-1); set by rank under torchrun",
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(options: Namespace) -> int:
    """Runs `segmamba predict`; returns the exit code."""
    if options.dicom is None:
        if options.series or options.dicom_seg:
            raise InputError("--series and --dicom-seg require --dicom FOLDER")
        return _predict(options)
    if options.case is not None or options.batch is not None or any(getattr(options, m) for m in MODALITIES):
        raise InputError("--dicom FOLDER cannot be combined with a CASE folder, images by name, or --batch")
    from segmamba.models.package import find_model, read_manifest

    incomplete = read_manifest(find_model(_models(options)[0])).incomplete is not None
    with dicom_case(options.dicom, named_series(options.series), incomplete=incomplete) as case:
        return _predict(options, case)


def _predict(options: Namespace, dicom: DicomCase | None = None) -> int:
    from segmamba.cases.case import Source, find_case
    from segmamba.models.ensemble import load_ensemble
    from segmamba.models.package import find_model
    from segmamba.prediction.batch import format_batch, predict_batch
    from segmamba.prediction.predict import PredictOptions, predict_case

    files = {m: Source(Path(getattr(options, m))) for m in MODALITIES if getattr(options, m)}
    files = dicom.sources if dicom else files
    if (options.case is not None) + bool(files) + (options.batch is not None) != 1:
        raise InputError("give one of: a CASE folder, the images by name (--t1n F --t1c F ...), --batch FOLDER")
    if options.shard and options.batch is None:
        raise InputError("--shard requires --batch FOLDER")
    if options.brain_mask and options.batch is not None:
        raise InputError("--brain-mask belongs to one case and cannot be combined with --batch FOLDER")
    output = Path(options.output)
    _check_output(output, options.batch is not None)
    model = load_ensemble([find_model(name) for name in _models(options)])
    settings = PredictOptions(
        device=_own_gpu(choose_device(options.device)),
        mirrorings=options.mirrorings,
        sw_batch_size=options.sw_batch_size,
        probabilities=options.probabilities,
        uncertainty=options.uncertainty,
        postprocess=options.postprocess,
        remove_small_mm3=_sizes(options.remove_small),
        left_out=options.left_out,
        prepare=options.prepare,
        brain_mask=Path(options.brain_mask) if options.brain_mask else None,
        onto=tuple(dict.fromkeys(options.on)),
    )
    bar = Bar()
    if options.batch is not None:
        rows = predict_batch(model, Path(options.batch), output, settings, bar.batch, _shard(options.shard))
        bar.close()
        print(json.dumps(rows, indent=2) if options.json else format_batch(rows))
        return 1 if any(row["status"] == "failed" for row in rows) else 0
    manifest = model.manifest
    try:
        sources = files or find_case(
            options.case, manifest.preprocess.modalities, incomplete=manifest.incomplete is not None
        )
    except InputError as error:
        raise InputError(f"{error}{_hint_at_batch(options.case)}") from None
    case_id = _case_id(Path(options.case)) if options.case else "case"
    where = output.parent if output.name.endswith((".nii", ".nii.gz")) else output
    target = seg_target(dicom, where / f"{case_id}-seg.dcm", model) if dicom and options.dicom_seg else None
    summary = predict_case(model, sources, output, case_id, settings, bar)
    bar.close()
    written = write_case_seg(dicom, where / summary["files"]["label_map"], target, model) if dicom and target else None
    if dicom:
        summary = {**summary, "dicom": dicom.facts()}
    if options.json:
        print(json.dumps(summary, indent=2))
        return 0
    for step in summary["steps"]:
        print(f"prepared: {step['text']} ({step['seconds']:.1f} s)")
    for note in [*(dicom.lines() if dicom else ()), *summary["notes"]]:
        print(f"note: {note}")
    volumes = ", ".join(f"{region} {summary['volumes_ml'][region]:.1f} mL" for region in summary["regions"])
    print(f"{volumes}; {summary['seconds']['total']:.1f} s on {summary['device']}")
    print(where / summary["files"]["label_map"])
    if target:
        print(written or "no tumour was found: there is no DICOM SEG")
    return 0


def _hint_at_batch(case: str) -> str:
    """Of a folder that holds folders and no image: it may be one of cases, not of a case."""
    from segmamba.images.image_io import image_suffix

    inside = [path for path in Path(case).iterdir() if path.name[0] != "."] if Path(case).is_dir() else []
    of_cases = any(path.is_dir() for path in inside) and not any(image_suffix(path) for path in inside)
    return f"; a folder of cases is given as --batch {case}" if of_cases else ""


def _models(options: Namespace) -> list[str]:
    return options.model or ["quick"]


def _check_output(output: Path, batch: bool) -> None:
    """Before the work, and takes away what a run that was killed left half-written there."""
    from segmamba.files.atomic import check_output_file

    if output.name.endswith((".nii", ".nii.gz")):
        if batch:
            raise InputError(f"--output {output}: a batch writes many files; give a folder that is not called as one")
        ready_for_output(output.parent)
        if output.parent.is_dir():
            check_output_file(output)
    else:
        ready_for_output(output)


def _shard(text: str | None) -> tuple[int, int]:
    """`I/N`, or what torchrun says in the environment."""
    text = text or f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(f"--shard {text}: expected I/N with I from 0 to N-1, e.g. 0/4")
    return int(index), int(count)


def _own_gpu(device: str) -> str:
    """Of a process that torchrun started."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def _sizes(entries: list[str]) -> dict[str, float]:
    sizes = {}
    for entry in entries:
        region, _, value = entry.partition("=")
        try:
            sizes[region] = float(value)
        except ValueError:
            raise InputError(f"--remove-small {entry}: expected REGION=MM3, e.g. WT=250") from None
    return sizes


def _case_id(path: Path) -> str:
    name = path.resolve().name
    return name.removesuffix(".gz").removesuffix(".nii") if path.is_file() else name
