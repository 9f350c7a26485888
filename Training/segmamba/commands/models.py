"""`segmamba gate` and `segmamba models`: is a candidate better, and which model is in use."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from segmamba.commands.shared import AddCommand, choose_device, ready_for_output
from segmamba.errors import InputError


def add(add_command: AddCommand) -> None:
    """Adds `gate` and `models` to the command line."""
    gate = add_command("gate", _gate, "compare a candidate with the model in use, and recommend or refuse it")
    gate.add_argument("candidate", help="folder of a model, or its name in --models")
    gate.add_argument("--models", metavar="FOLDER", help="registry of models; the model in use is the reference")
    gate.add_argument("--champion", metavar="MODEL", help="reference model, instead of the one in use")
    gate.add_argument("--anchor", required=True, metavar="DATASET", help="data set of cases that are never trained on")
    gate.add_argument(
        "--local", metavar="CORRECTIONS", help="folder of corrections after intake; its validation cases are scored too"
    )
    gate.add_argument(
        "--margin", type=float, help="allowed loss of mean Dice on the anchor set (default: from its spread)"
    )
    gate.add_argument(
        "--mirrorings", type=int, default=0, choices=(0, 1, 3, 7), help="extra passes with flipped axes (default: 0)"
    )
    gate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    gate.add_argument("--apply", action="store_true", help="promote or refuse the candidate in --models by the verdict")
    gate.add_argument("--json", action="store_true", help="print the result as JSON")
    models = add_command("models", _models, "the registry of models: what is in use, what was, and why")
    models.add_argument("folder", metavar="MODELS", help="folder of the registry (may be shared)")
    actions = ("list", "current", "start", "add", "promote", "refuse", "adopt", "rollback")
    models.add_argument("action", nargs="?", default="list", choices=actions)
    models.add_argument(
        "model", nargs="?", help="name or folder of the model, for start, add, promote, refuse and adopt"
    )
    models.add_argument("--reason", type=str, default="", help="why, for adopt and refuse")
    models.add_argument(
        "--against-the-gate", action="store_true", help="with adopt: take a model that the gate found worse"
    )
    models.add_argument("--json", action="store_true", help="print the result as JSON")


def _gate(options: Namespace) -> int:
    from segmamba.learning.gate import Criteria, format_report, run_gate
    from segmamba.learning.registry import in_use
    from segmamba.learning.registry.change import promote, refuse
    from segmamba.models.package import find_model, shipped_models

    if not (options.models or options.champion) or (options.apply and not options.models):
        raise InputError("the gate needs a model to compare with: --models FOLDER, or --champion MODEL")
    if options.apply and options.champion:
        raise InputError("--apply goes by the model in use: leave --champion out")
    if options.apply and options.margin is not None:
        raise InputError("--apply goes by margins from the spread of the anchor set: leave --margin out")
    name = options.candidate
    candidate = in_use.find_package(options.models, name) if options.models else find_model(name)
    if candidate.resolve() in {folder.resolve() for folder in shipped_models().values()}:
        raise InputError(
            f"{options.candidate} comes with the program, in whose folder the gate's report would be; add it to a "
            f"registry (`segmamba models MODELS add {options.candidate}`), and name the copy there with --models"
        )
    ready_for_output(candidate)  # where the report goes
    champion = find_model(options.champion) if options.champion else in_use.champion(options.models).folder
    report = run_gate(
        candidate,
        champion,
        options.anchor,
        options.local,
        criteria=Criteria(margin=options.margin),
        device=choose_device(options.device),
        mirrorings=options.mirrorings,
        progress=lambda text, left: print(text, file=sys.stderr, flush=True),
    )
    print(json.dumps(report, indent=2) if options.json else format_report(report))
    if options.apply and report["verdict"] == "promote":
        print(f"in use: {promote(options.models, candidate)}", file=sys.stderr)
    elif options.apply and report["verdict"] == "refuse":
        failed = ", ".join(check["name"] for check in report["checks"] if not check["holds"])
        print(f"refused: {refuse(options.models, candidate, f'the gate: {failed}')}", file=sys.stderr)
    elif options.apply:
        print(
            "not worse: nothing was changed; a person decides "
            f"(`segmamba models {options.models} adopt {options.candidate} --reason WHY`)",
            file=sys.stderr,
        )
    return 0 if report["verdict"] == "promote" else 1


def _models(options: Namespace) -> int:
    from segmamba.learning.registry import state  # the others need torch, which takes seconds

    folder, action = options.folder, options.action
    if action not in ("start", "add", "adopt") and not Path(folder).is_dir():
        raise InputError(
            f"{folder}: no such folder; check the path, or begin with `segmamba models {folder} start quick`"
        )
    if action not in ("list", "current"):
        ready_for_output(folder)
        ready_for_output(Path(folder) / "models")
    if options.against_the_gate and action != "adopt":
        raise InputError(f"--against-the-gate belongs to adopt, not to {action}")
    alone = action in ("list", "current", "rollback")
    if alone == bool(options.model):
        raise InputError(f"models {action} {'takes no model' if alone else 'needs a model: its name or folder'}")
    if action == "list":
        found = state.read_registry(folder)
        print(json.dumps(asdict(found), indent=2) if options.json else state.format_registry(folder))
        return 0
    if action == "current":
        from segmamba.learning.registry import in_use

        found = in_use.current(folder)
        about = {"name": found.name, "folder": str(found.folder), "note": found.note}
        print(json.dumps(about) if options.json else found.folder)
        return 0
    from segmamba.learning.registry import change

    if action == "rollback":
        name = change.rollback(folder, options.reason)
    else:
        from segmamba.models.package import find_model

        inside = Path(folder) / "models" / options.model
        package = inside if inside.is_dir() else find_model(options.model)
        do = {
            "start": change.start,
            "add": change.add,
            "promote": change.promote,
            "refuse": change.refuse,
            "adopt": change.adopt,
        }[action]
        reasons = {"refuse": (options.reason,), "adopt": (options.reason, options.against_the_gate)}
        name = do(folder, package, *reasons.get(action, ()))
    print(json.dumps({"name": name, "in_use": state.read_registry(folder).champion}) if options.json else name)
    return 0
