"""`segmamba import`: a published checkpoint to a model folder."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import AddCommand, ready_for_output
from segmamba.errors import InputError


def add(add_command: AddCommand) -> None:
    """Adds `import-model` to the command line."""
    command = add_command("import", run, "make a model folder of a published SegMamba checkpoint")
    command.add_argument("checkpoint")
    command.add_argument("--output", "-o", required=True, metavar="FOLDER")
    command.add_argument("--id", help="name of the model (default: the name of the file)")
    command.add_argument(
        "--mamba-residual",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether Mamba layers add their input, which a checkpoint does not record (default: as its form does)",
    )


def run(options: Namespace) -> int:
    """Runs `segmamba import`; returns the exit code."""
    from segmamba.files.atomic import check_regular
    from segmamba.models.package import MANIFEST, Manifest, read_manifest, save_package
    from segmamba.models.published import load_published
    from segmamba.models.specs import InferenceSpec, PreprocessSpec

    ready_for_output(options.output)
    check_regular(Path(options.checkpoint))
    name = options.id or Path(options.checkpoint).stem
    if (Path(options.output) / MANIFEST).exists() and (other := read_manifest(options.output).id) != name:
        raise InputError(f"{options.output}: holds another model, {other}; name another folder, or move that one away")
    network = load_published(options.checkpoint, mamba_residual=options.mamba_residual)
    channels = network.config.in_channels, network.config.out_channels
    if channels != (4, 4):
        raise InputError(
            f"{options.checkpoint}: {channels[0]} input and {channels[1]} output channels; expected 4 and 4, those of "
            "BraTS 2023: the published preprocessing and labels are all that `segmamba import` knows"
        )
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
