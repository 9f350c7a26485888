"""`segmamba train`: a configuration to a run folder and a model."""

from __future__ import annotations

from pathlib import Path

from segmamba.commands.shared import choose_device


def add(add_command) -> None:
    command = add_command("train", run, "train a network from a configuration")
    command.add_argument("config", help="TOML file, see Training/configs")
    command.add_argument("--run-folder", help="default: runs/NAME")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a setting, e.g. steps=100"
    )
    command.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    command.add_argument("--device", default="auto")


def run(options) -> int:
    from segmamba.config import load_config
    from segmamba.training import train

    config = load_config(options.config, options.set)
    run = Path(options.run_folder or Path("runs") / config.name)
    print(train(config, run, resume=options.resume, device=choose_device(options.device)))
    return 0
