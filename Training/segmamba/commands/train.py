"""`segmamba train`: a configuration to a run folder and a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segmamba.commands.shared import choose_device


def add(add_command) -> None:
    command = add_command("train", run, "train a network from a configuration")
    command.add_argument("config", help="TOML file, see Training/configs")
    command.add_argument("--run-folder", help="default: runs/NAME")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a setting, e.g. steps=100"
    )
    command.add_argument(
        "--resume",
        nargs="?",
        const="must",
        default="never",
        choices=("auto", "must", "never"),
        help="go on from the run folder's checkpoint: auto, where there is one; must (also without a word)",
    )
    command.add_argument("--device", default="auto")


def run(options) -> int:
    from segmamba.config import load_config
    from segmamba.errors import Stopped
    from segmamba.training import train

    config = load_config(options.config, options.set)
    run = Path(options.run_folder or Path("runs") / config.name)
    try:
        model = train(config, run, resume=options.resume, device=choose_device(options.device))
    except Stopped as stopped:
        print(f"{stopped}; go on with --resume auto", file=sys.stderr)
        return 128 + stopped.signal_number
    if os.environ.get("RANK", "0") == "0":
        print(model)
    return 0
