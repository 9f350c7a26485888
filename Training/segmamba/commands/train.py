"""`segmamba train`: a configuration, or corrected cases, to a run folder and a model."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmamba import limits
from segmamba.commands.shared import AddCommand, choose_device, ready_for_output
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.training.config import TrainingConfig


def add(add_command: AddCommand) -> None:
    """Adds `train` to the command line."""
    command = add_command("train", run, "train a network from a configuration, or from corrected cases")
    command.add_argument("config", nargs="?", help="TOML configuration (see Training/configs)")
    command.add_argument("--run-folder", help="folder of the run (default: runs/NAME)")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, e.g. steps=100; can be repeated",
    )
    command.add_argument(
        "--resume",
        nargs="?",
        const="must",
        default="never",
        choices=("auto", "must", "never"),
        help="resume from the checkpoint in the run folder: auto, if there is one; must (also --resume alone)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validation: one training per fold of `segmamba dataset split --folds N`, and a table of all scores",
    )
    command.add_argument(
        "--seeds",
        type=str,
        metavar="A,B,...",
        help="one training per seed, and a table of all scores; may be combined with --folds",
    )
    way = command.add_mutually_exclusive_group()
    way.add_argument("--finetune", metavar="CORRECTIONS", help="fine-tune a model on the cases of `segmamba intake`")
    way.add_argument(
        "--retrain",
        metavar="CORRECTIONS",
        help="train fresh weights on all cases, including those of `segmamba intake`",
    )
    command.add_argument(
        "--model", help="model for --finetune: name or folder (default: the one in use in --models, otherwise quick)"
    )
    command.add_argument("--models", metavar="FOLDER", help="registry of models (`segmamba models`)")
    command.add_argument(
        "--replay",
        action="append",
        metavar="DATASET",
        help="data set of earlier cases, can be repeated; 'none': only corrected cases",
    )
    command.add_argument("--anchor", metavar="DATASET", help="data set to validate on as well; never trained on")


def run(options: Namespace) -> int:
    """Runs `segmamba train`; returns the exit code."""
    from segmamba.errors import Stopped
    from segmamba.training.loop import train

    config = _config(options)
    run = Path(options.run_folder or Path("runs") / config.name)
    ready_for_output(run)
    device = choose_device(options.device)
    try:
        if options.folds is not None or options.seeds is not None:
            return _train_variants(config, options, run, device)
        model = train(config, run, resume=options.resume, device=device)
    except Stopped as stopped:
        print(f"{stopped}; go on with --resume auto", file=sys.stderr)
        return 128 + stopped.signal_number
    if os.environ.get("RANK", "0") == "0":
        print(model)
    return 0


def _train_variants(config: TrainingConfig, options: Namespace, run: Path, device: str) -> int:
    from segmamba.training.variants import format_summary, make_variants, train_variants

    seeds = _seeds(options.seeds) if options.seeds is not None else []
    if options.folds is not None and options.folds < 2:
        raise InputError(f"--folds {options.folds}: expected 2 or more")
    variants = make_variants(config, options.folds, seeds)
    summary = train_variants(variants, run, resume=options.resume, device=device)
    if os.environ.get("RANK", "0") == "0":
        print(format_summary(summary), end="")
    return 0


def _seeds(given: str) -> list[int]:
    texts = [text.strip() for text in given.split(",") if text.strip()]
    whole = all(text.isdecimal() and len(text) <= limits.DIGITS for text in texts)
    seeds = [int(text) for text in texts] if whole else []
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {given!r}: expected whole numbers with commas between them, each once")
    return seeds


def _config(options: Namespace) -> TrainingConfig:
    if options.finetune is None and options.retrain is None:
        from segmamba.training.config import load_config

        if options.config is None:
            raise InputError("train needs a configuration, or --finetune or --retrain with a folder of corrections")
        given = {"--model": options.model, "--models": options.models}
        given |= {"--replay": options.replay, "--anchor": options.anchor}
        if strange := [name for name, value in given.items() if value is not None]:
            raise InputError(
                f"{', '.join(strange)}: only valid with --finetune or --retrain; otherwise use --set sources..."
            )
        return load_config(options.config, options.set)
    from segmamba.training.recipes import finetune, retrain

    given = {"--model": options.model, "--models": options.models} if options.retrain is not None else {}
    if strange := [name for name, value in given.items() if value is not None]:
        raise InputError(f"{', '.join(strange)}: only valid with --finetune; --retrain starts from fresh weights")
    if options.replay is not None and "none" in options.replay and len(options.replay) > 1:
        raise InputError("--replay none: leave out the data sets, or none; together they contradict each other")
    shared: dict[str, Any] = {
        "config": Path(options.config) if options.config else None,
        "replay": [] if options.replay == ["none"] else options.replay,
        "anchor": options.anchor,
        "overrides": options.set,
    }
    if options.retrain is not None:
        return retrain(options.retrain, **shared)
    return finetune(str(options.finetune), _initial(options), **shared)


def _initial(options: Namespace) -> Path:
    from segmamba.learning.registry.in_use import champion, find_package
    from segmamba.models.package import find_model

    if options.models and options.model:
        return find_package(options.models, options.model)
    return champion(options.models).folder if options.models else find_model(options.model or "quick")
