"""`segmamba demo`: a synthetic case made, segmented, scored and drawn."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import AddCommand, Bar, choose_device, ready_for_output


def add(add_command: AddCommand) -> None:
    """Adds `demo` to the command line."""
    command = add_command("demo", run, "make a synthetic case, segment it, score it and draw it")
    command.add_argument("--output", "-o", default="demo", metavar="FOLDER")
    command.add_argument("--model", default="quick", metavar="NAME_OR_FOLDER", help="default: quick")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")


def run(options: Namespace) -> int:
    """Runs `segmamba demo`; returns the exit code."""
    from segmamba.models.package import find_model, load_package
    from segmamba.prediction.demo import run_demo

    ready_for_output(options.output)
    bar = Bar()
    result = run_demo(load_package(find_model(options.model)), Path(options.output), choose_device(options.device), bar)
    bar.close()
    summary, volumes = result["summary"], result["summary"]["volumes_ml"]
    print(f"A synthetic brain tumour, segmented by {summary['model']} in {summary['seconds']['total']:.1f} s:")
    print("region   volume mL   Dice   HD95 mm")
    for region in ("WT", "TC", "ET"):
        dice, hd95 = (result["scores"][metric][region] for metric in ("dice", "hd95"))
        print(f"{region:6} {volumes[region]:11.1f} {dice:6.2f} {hd95:9.1f}")
    print(f"picture: {result['picture']}   (research use only)")
    return 0
