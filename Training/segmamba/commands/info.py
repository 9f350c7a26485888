"""`segmamba info`: versions, devices, scan back ends, models."""

from __future__ import annotations

import json
import platform
from argparse import Namespace

from segmamba import __version__
from segmamba.commands.shared import AddCommand, device_name


def add(add_command: AddCommand) -> None:
    """Adds `info` to the command line."""
    command = add_command("info", run, "versions, devices, scan back ends, models")
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: Namespace) -> int:
    """Runs `segmamba info`; returns the exit code."""
    import torch

    from segmamba.models.package import read_manifest, shipped_models
    from segmamba.networks import winograd
    from segmamba.networks.scan import available_backends, choose_backend

    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    facts = {
        "segmamba": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "devices": {device: device_name(device) for device in devices},
        "scan_backend": {device: choose_backend(device) for device in devices},
        "scan_backends": {device: available_backends(device) for device in devices},
        "cpu_convolution": winograd.rule(),
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
    print(f"{'cpu 3x3x3':12} {facts['cpu_convolution']}")
    print(f"{'models':12} {', '.join(facts['models']) or 'none'}")
    return 0
