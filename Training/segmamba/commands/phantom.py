"""`segmamba phantom`: synthetic cases with exact labels."""

from __future__ import annotations

import os
from pathlib import Path


def add(add_command) -> None:
    command = add_command("phantom", run, "make synthetic cases with real anatomy and exact labels")
    command.add_argument("--output", "-o", required=True, metavar="FOLDER")
    command.add_argument("--count", type=int, default=1)
    command.add_argument("--seed", type=int, default=1, help="of the first; the others follow")
    command.add_argument("--spacing", type=float, default=1.0, help="mm")
    command.add_argument("--oblique", type=float, default=0.0, help="degrees")


def run(options) -> int:
    from segmamba.datasets.phantom import make_phantom, save_phantom

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
