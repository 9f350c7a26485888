"""`segmamba table1`: the networks of the paper's Table 1, trained with one configuration and set side by side."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import AddCommand, choose_device, ready_for_output


def add(add_command: AddCommand) -> None:
    """Adds `table1` to the command line."""
    command = add_command(
        "table1", run, "train or collect the paper's networks with one configuration, print the table"
    )
    command.add_argument("config", help="TOML configuration (see Training/configs); its [network] is replaced")
    command.add_argument(
        "--output", "-o", required=True, metavar="DIR", help="folder for the runs, table1.md and table1.json"
    )
    command.add_argument(
        "--networks", metavar="A,B,...", help="networks to train (default: released and every baseline)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, e.g. steps=100; can be repeated",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--test", action="store_true", help="score on the test part of a split by shares, with 7 mirrorings"
    )


def run(options: Namespace) -> int:
    """Runs `segmamba table1`; returns the exit code."""
    from segmamba.errors import Stopped
    from segmamba.training.config import load_config
    from segmamba.training.table1 import NETWORKS, format_markdown, make_table, parse_networks

    config = load_config(options.config, options.set)
    networks = parse_networks(options.networks or ",".join(NETWORKS))
    ready_for_output(options.output)
    try:
        rows = make_table(config, networks, Path(options.output), choose_device(options.device), options.test)
    except Stopped as stopped:
        print(f"{stopped}; the same command goes on", file=sys.stderr)
        return 128 + stopped.signal_number
    print(format_markdown(rows, options.test))
    return 1 if any(row.failure for row in rows) else 0
