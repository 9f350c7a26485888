"""`segmamba predict`: a case, or a folder of cases, to label maps."""

from __future__ import annotations

import json
import os
from pathlib import Path

from segmamba.commands.shared import Bar, choose_device
from segmamba.errors import InputError


def add(add_command) -> None:
    command = add_command("predict", run, "segment a case, or a folder of cases")
    command.add_argument("case", nargs="?", help="folder of one case, in any of the BraTS namings, or an MSD 4-D file")
    for modality in ("t1n", "t1c", "t2w", "t2f"):
        command.add_argument(f"--{modality}", metavar="FILE", help="image file or DICOM folder")
    command.add_argument("--batch", metavar="FOLDER", help="a folder of case folders")
    command.add_argument(
        "--output", "-o", required=True, metavar="OUT", help="folder, or .nii.gz file of the label map"
    )
    command.add_argument("--model", default="quick", metavar="NAME_OR_FOLDER")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--mirrorings", type=int, default=0, choices=(0, 1, 3, 7), help="extra passes with flipped axes"
    )
    command.add_argument("--probabilities", action="store_true", help="write the probability of each label too")
    command.add_argument("--uncertainty", action="store_true", help="write the entropy map too")
    command.add_argument(
        "--remove-small",
        action="append",
        default=[],
        metavar="REGION=MM3",
        help="e.g. WT=250; off by default",
    )
    command.add_argument(
        "--shard", metavar="I/N", help="of --batch every Nth case from the Ith on, 0 to N-1; under torchrun by rank"
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(options) -> int:
    from segmamba.case import MODALITIES, Source, find_case
    from segmamba.package import find_model, load_package
    from segmamba.predict import PredictOptions, format_batch, predict_batch, predict_case

    files = {m: Source(Path(getattr(options, m))) for m in MODALITIES if getattr(options, m)}
    if (options.case is not None) + bool(files) + (options.batch is not None) != 1:
        raise InputError("give one of: a CASE folder, the four images by name (--t1n F --t1c F ...), --batch FOLDER")
    if options.shard and options.batch is None:
        raise InputError("--shard goes with --batch FOLDER")
    model = load_package(find_model(options.model))
    settings = PredictOptions(
        device=_own_gpu(choose_device(options.device)),
        mirrorings=options.mirrorings,
        probabilities=options.probabilities,
        uncertainty=options.uncertainty,
        remove_small_mm3=_sizes(options.remove_small),
    )
    output = Path(options.output)
    bar = Bar()
    if options.batch is not None:
        rows = predict_batch(model, Path(options.batch), output, settings, bar.batch, _shard(options.shard))
        bar.close()
        print(json.dumps(rows, indent=2) if options.json else format_batch(rows))
        return 1 if any(row["status"] == "failed" for row in rows) else 0
    sources = files or find_case(options.case, model.manifest.preprocess.modalities)
    case_id = _case_id(Path(options.case)) if options.case else "case"
    summary = predict_case(model, sources, output, case_id, settings, bar)
    bar.close()
    if options.json:
        print(json.dumps(summary, indent=2))
        return 0
    for note in summary["notes"]:
        print(f"note: {note}")
    volumes = ", ".join(f"{region} {summary['volumes_ml'][region]:.1f} mL" for region in summary["regions"])
    where = output.parent if output.name.endswith((".nii", ".nii.gz")) else output
    print(f"{volumes}; {summary['seconds']['total']:.1f} s on {summary['device']}")
    print(where / summary["files"]["label_map"])
    return 0


def _shard(text: str | None) -> tuple[int, int]:
    """`I/N`, or what torchrun says in the environment."""
    text = text or f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
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
