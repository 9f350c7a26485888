"""`segmamba phantom`: synthetic cases with exact labels."""

from __future__ import annotations

import secrets
import sys
from argparse import Namespace
from pathlib import Path

from segmamba.commands.measure import add_labels
from segmamba.commands.shared import AddCommand, ready_for_output
from segmamba.errors import InputError

_LOCK = ".phantom.lock"


def add(add_command: AddCommand) -> None:
    """Adds `phantom` to the command line."""
    command = add_command("phantom", run, "make synthetic cases with real anatomy and exact labels")
    command.add_argument("--output", "-o", required=True, metavar="FOLDER")
    command.add_argument("--count", type=int, default=1)
    command.add_argument(
        "--seed", type=int, default=1, help="seed of the first case; the following cases count up from it"
    )
    command.add_argument("--spacing", type=float, default=1.0, help="voxel spacing in mm")
    command.add_argument("--oblique", type=float, default=0.0, help="rotation of the grid in degrees")
    command.add_argument(
        "--raw", action="store_true", help="as from a scanner: with skull, on four grids, not registered"
    )
    command.add_argument(
        "--shapes",
        metavar="PATH",
        help="take the tumors of label maps in place of drawn ones: a folder of label maps or cases, one file, or an "
        ".npz with ids, label and spacing_mm; the cases are named phantom-SEED-shape",
    )
    add_labels(command)


def run(options: Namespace) -> int:
    """Runs `segmamba phantom`; returns the exit code."""
    from segmamba.files.atomic import make_folder
    from segmamba.files.shares import exclusive

    if options.labels and not options.shapes:
        raise InputError("--labels says what the label maps of --shapes mean; give --shapes, or leave it out")
    if options.count < 1:
        raise InputError(f"--count {options.count}: expected 1 or more")
    output = make_folder(ready_for_output(options.output))
    with exclusive(output / _LOCK, 0):
        return _make(options, output)


def _make(options: Namespace, output: Path) -> int:
    from segmamba.datasets.phantom import make_phantom, make_raw, read_shapes, save_phantom, save_raw
    from segmamba.files.atomic import share

    shapes = read_shapes(options.shapes, options.labels) if options.shapes else []
    there = 0
    for seed in range(options.seed, options.seed + options.count):
        name = f"phantom-{seed:04d}" + ("-shape" if shapes else "") + ("-raw" if options.raw else "")
        folder = output / name
        if folder.is_dir():
            there += 1
            continue
        phantom = make_phantom(seed, spacing=(options.spacing,) * 3, oblique_degrees=options.oblique, shapes=shapes)
        half = folder.with_name(f".{secrets.token_hex(8)}.tmp")
        half.mkdir()
        if options.raw:
            save_raw(make_raw(phantom), half, name)
        else:
            save_phantom(phantom, half, name)
        half.rename(folder)
        share(folder)
        print(folder)
    if there:
        kept = f"{there} of {options.count} were there and stay as they are; for other settings, name another folder"
        print(kept, file=sys.stderr)
    return 0
