"""`segmamba network`: the parameters of a preset."""

from __future__ import annotations

from argparse import Namespace

from segmamba.commands.shared import AddCommand


def add(add_command: AddCommand) -> None:
    """Adds `network` to the command line."""
    command = add_command("network", run, "parameters of a network preset")
    command.add_argument("name", help="released, paper, v1, v1-text or quick")
    command.add_argument("--keys", action="store_true", help="print one line per tensor: name (shape) type")


def run(options: Namespace) -> int:
    """Runs `segmamba network`; returns the exit code."""
    from segmamba.networks.presets import build_network

    network = build_network(options.name)
    state = network.state_dict()
    if options.keys:
        for name, tensor in state.items():
            print(f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}")
    print(f"{options.name}: {sum(p.numel() for p in network.parameters())} parameters in {len(state)} tensors")
    return 0
