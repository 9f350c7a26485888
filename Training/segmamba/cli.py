"""The command line: `segmamba COMMAND`, or `python -m segmamba COMMAND`. Says what happens, does nothing itself.

Exit codes: 0 all went well, 1 something failed, 2 the command was wrong (argparse), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from pathlib import Path

from segmamba import __version__
from segmamba.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose or options.command == "train" else logging.WARNING,
        format="%(asctime)s %(message)s" if options.command == "train" else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _info(options) -> int:
    import torch

    from segmamba.network.scan import available_backends, choose_backend
    from segmamba.package import read_manifest, shipped_models

    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    facts = {
        "segmamba": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "devices": {device: _device_name(device) for device in devices},
        "scan_backend": {device: choose_backend(device) for device in devices},
        "scan_backends": {device: available_backends(device) for device in devices},
        "models": {name: read_manifest(folder).id for name, folder in shipped_models().items()},
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name in ("segmamba", "python", "torch", "platform", "cpu_threads"):
        print(f"{name:12} {facts[name]}")
    for device in devices:
        print(f"{'device':12} {device}: {facts['devices'][device]}")
        print(f"{'  scan':12} {facts['scan_backend'][device]} (chosen; SEGMAMBA_SCAN overrides)")
        for backend, reason in facts["scan_backends"][device].items():
            print(f"{'':12} {backend:10} {'usable' if not reason else 'not usable: ' + reason}")
    print(f"{'models':12} {', '.join(facts['models']) or 'none'}")
    return 0


def _network(options) -> int:
    from segmamba.network import build_network

    network = build_network(options.name)
    state = network.state_dict()
    if options.keys:
        for name, tensor in state.items():
            print(f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}")
    print(f"{options.name}: {sum(p.numel() for p in network.parameters())} parameters in {len(state)} tensors")
    return 0


def _predict(options) -> int:
    from segmamba.case import MODALITIES, Source, find_case
    from segmamba.package import find_model, load_package
    from segmamba.predict import PredictOptions, format_batch, predict_batch, predict_case

    files = {m: Source(Path(getattr(options, m))) for m in MODALITIES if getattr(options, m)}
    if (options.case is not None) + bool(files) + (options.batch is not None) != 1:
        raise InputError("give one of: a CASE folder, the four images by name (--t1n F --t1c F ...), --batch FOLDER")
    model = load_package(find_model(options.model))
    settings = PredictOptions(
        device=_choose_device(options.device),
        mirrorings=options.mirrorings,
        probabilities=options.probabilities,
        uncertainty=options.uncertainty,
        remove_small_mm3=_sizes(options.remove_small),
    )
    output = Path(options.output)
    bar = _Bar()
    if options.batch is not None:
        rows = predict_batch(model, Path(options.batch), output, settings, bar.batch)
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
    volumes = ", ".join(f"{region} {summary['volumes_ml'][region]:.1f} mL" for region in ("WT", "TC", "ET"))
    where = output.parent if output.name.endswith((".nii", ".nii.gz")) else output
    print(f"{volumes}; {summary['seconds']['total']:.1f} s on {summary['device']}")
    print(where / summary["files"]["label_map"])
    return 0


def _evaluate(options) -> int:
    from segmamba.evaluate import evaluate_folders, format_table

    result = evaluate_folders(Path(options.predictions), Path(options.truths), convention=options.convention)
    print(json.dumps(result, indent=2) if options.json else format_table(result))
    return 0


def _phantom(options) -> int:
    from segmamba.phantom import make_phantom, save_phantom

    for seed in range(options.seed, options.seed + options.count):
        phantom = make_phantom(seed, spacing=(options.spacing,) * 3, oblique_degrees=options.oblique)
        name = f"phantom-{seed:04d}"
        folder = Path(options.output) / name
        if folder.is_dir():
            continue
        half = folder.with_name(f".{name}.{os.getpid()}")
        half.mkdir(parents=True, exist_ok=True)
        save_phantom(phantom, half, name)
        half.rename(folder)
        print(folder)
    return 0


def _demo(options) -> int:
    from segmamba.demo import run_demo
    from segmamba.package import find_model, load_package

    bar = _Bar()
    result = run_demo(
        load_package(find_model(options.model)), Path(options.output), _choose_device(options.device), bar
    )
    bar.close()
    summary, volumes = result["summary"], result["summary"]["volumes_ml"]
    print(f"A synthetic brain tumour, segmented by {summary['model']} in {summary['seconds']['total']:.1f} s:")
    print("region   volume mL   Dice   HD95 mm")
    for region in ("WT", "TC", "ET"):
        dice, hd95 = (result["scores"][metric][region] for metric in ("dice", "hd95"))
        print(f"{region:6} {volumes[region]:11.1f} {dice:6.2f} {hd95:9.1f}")
    print(f"picture: {result['picture']}   (research use only)")
    return 0


def _import(options) -> int:
    from segmamba.inference import InferenceSpec
    from segmamba.network import load_published
    from segmamba.package import Manifest, save_package
    from segmamba.preprocess import PreprocessSpec

    network = load_published(options.checkpoint, mamba_residual=options.mamba_residual)
    name = options.id or Path(options.checkpoint).stem
    manifest = Manifest(
        id=name,
        network=network.config,
        preprocess=PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c"), normalisation="zscore_box"),
        inference=InferenceSpec(),
        licence="that of the checkpoint",
    )
    card = f"# {name}\n\nImported from a published SegMamba checkpoint, with the published preprocessing.\n"
    save_package(options.output, network, manifest, card)
    print(f"{network.config.form}, directions {', '.join(network.config.directions)} -> {options.output}")
    return 0


def _train(options) -> int:
    from segmamba.config import load_config
    from segmamba.training import train

    config = load_config(options.config, options.set)
    run = Path(options.run_folder or Path("runs") / config.name)
    print(train(config, run, resume=options.resume, device=_choose_device(options.device)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segmamba", description="Brain-tumour segmentation with SegMamba. Research use only."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--verbose", action="store_true", help="say more")
        command.set_defaults(run=run)
        return command

    command = add("info", _info, "versions, devices, scan back ends, models")
    command.add_argument("--json", action="store_true")

    command = add("network", _network, "parameters of a network preset")
    command.add_argument("name", help="released, paper, v1 or quick")
    command.add_argument("--keys", action="store_true", help="one line a tensor: name (shape) type")

    command = add("predict", _predict, "segment a case, or a folder of cases")
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
    command.add_argument("--json", action="store_true", help="print the summary as JSON")

    command = add("evaluate", _evaluate, "Dice and HD95 of predictions against truths")
    command.add_argument("predictions")
    command.add_argument("truths")
    command.add_argument("--convention", help="label convention of the truths: brats2023, brats2021 or msd")
    command.add_argument("--json", action="store_true")

    command = add("demo", _demo, "make a synthetic case, segment it, score it and draw it")
    command.add_argument("--output", "-o", default="demo", metavar="FOLDER")
    command.add_argument("--model", default="quick", metavar="NAME_OR_FOLDER")
    command.add_argument("--device", default="auto")

    command = add("phantom", _phantom, "make synthetic cases with real anatomy and exact labels")
    command.add_argument("--output", "-o", required=True, metavar="FOLDER")
    command.add_argument("--count", type=int, default=1)
    command.add_argument("--seed", type=int, default=1, help="of the first; the others follow")
    command.add_argument("--spacing", type=float, default=1.0, help="mm")
    command.add_argument("--oblique", type=float, default=0.0, help="degrees")

    command = add("import", _import, "make a model folder of a published SegMamba checkpoint")
    command.add_argument("checkpoint")
    command.add_argument("--output", "-o", required=True, metavar="FOLDER")
    command.add_argument("--id", help="name of the model; default: that of the file")
    command.add_argument(
        "--mamba-residual",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether Mamba layers add their input; no checkpoint tells (default: as the code of its form does)",
    )

    command = add("train", _train, "train a network from a configuration")
    command.add_argument("config", help="TOML file, see Training/configs")
    command.add_argument("--run-folder", help="default: runs/NAME")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a setting, e.g. steps=100"
    )
    command.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    command.add_argument("--device", default="auto")
    return parser


class _Bar:
    """Progress of a prediction: a bar on a terminal, a plain line a stage elsewhere; on standard error."""

    def __init__(self):
        self._case = self._stage = self._bar = None

    def __call__(self, stage: str, fraction: float) -> None:
        self.batch("", stage, fraction)

    def batch(self, case: str, stage: str, fraction: float) -> None:
        if not sys.stderr.isatty():
            if (case, stage) != (self._case, self._stage):
                print(f"{case} {stage}".strip(), file=sys.stderr, flush=True)
        else:
            self._show(f"{case} {stage}".strip(), fraction, (case, stage) != (self._case, self._stage))
        self._case, self._stage = case, stage

    def _show(self, text: str, fraction: float, fresh: bool) -> None:
        from tqdm import tqdm

        if fresh:
            self.close()
            self._bar = tqdm(
                total=100, desc=text, leave=False, bar_format="{desc} {bar} {percentage:3.0f}% {remaining}"
            )
        self._bar.n = round(100 * fraction)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _choose_device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used: {reason}; `segmamba info` lists what can") from None
    return name


def _device_name(device: str) -> str:
    import torch

    if device == "cpu":
        return f"{os.cpu_count()} logical cores"
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return f"{properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


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
