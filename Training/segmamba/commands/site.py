"""`segmamba improve`, `status` and `anchor`: of corrected cases a better model; how a site stands; what judges it."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import LABEL_CONVENTIONS, AddCommand, ready_for_output


def add(add_command: AddCommand) -> None:
    """Adds `improve`, `status` and `anchor` to the command line."""
    improve = add_command(
        "improve", _improve, "train a model from a site's corrected cases, and compare it with the model in use"
    )
    improve.add_argument("site", metavar="SITE", help="folder of the site (may be shared)")
    improve.add_argument(
        "--way",
        choices=("finetune", "retrain"),
        help="fine-tune the model in use, or retrain from fresh weights (default: finetune)",
    )
    improve.add_argument(
        "--steps",
        type=int,
        help="training steps (default for fine-tuning: 50, plus 50 per corrected case, at most 400)",
    )
    improve.add_argument("--run", dest="name", metavar="NAME", help="resume this run, or start one with this name")
    improve.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    improve.add_argument("--model", default="quick", help="name or folder of the first model, for a site that has none")
    do = improve.add_mutually_exclusive_group()
    do.add_argument("--detach", action="store_true", help="keep running after this command has ended")
    do.add_argument("--stop", metavar="RUN", help="ask a run to save its state and end")
    improve.add_argument("--json", action="store_true", help="print the result as JSON")
    status = add_command("status", _status, "show the state of a site: corrections, models, runs")
    status.add_argument("site", metavar="SITE")
    status.add_argument("--run", dest="name", metavar="NAME", help="also print the log of this run")
    status.add_argument("--json", action="store_true", help="print the result as JSON")
    anchor = add_command("anchor", _anchor, "judge a site's new models by labelled cases of its own")
    anchor.add_argument("site", metavar="SITE")
    anchor.add_argument("cases", metavar="CASES", help="folder or list of labelled cases; they stay where they are")
    anchor.add_argument(
        "--labels",
        metavar="CONVENTION",
        help=f"of their label maps: {', '.join(LABEL_CONVENTIONS)}; needed unless values and names are unambiguous",
    )
    anchor.add_argument("--subject-pattern", metavar="REGEX", help="finds the subject in a case id")
    anchor.add_argument("--jobs", type=int, default=1, help="number of processes (default: %(default)s)")


def _improve(options: Namespace) -> int:
    from segmamba.errors import Stopped
    from segmamba.learning.site import Site, ask_to_stop, detach, improve

    site = Site(Path(options.site).absolute())
    if options.stop:
        return _say(ask_to_stop(site, options.stop), options.json)
    if options.detach:
        return _say(detach(site, options.name, options.way, _options(options)), options.json)
    ready_for_output(site.folder)
    try:
        status = improve(
            site,
            options.name,
            way=options.way,
            steps=options.steps,
            model=options.model,
            device=lambda: _device(options.device),
        )
    except Stopped as stopped:
        print(f"{stopped}; go on with --run", file=sys.stderr)
        return 128 + stopped.signal_number
    print(json.dumps(vars(status), indent=2) if options.json else f"{status.run}: {status.text}")
    return 0


def _say(folder: Path, as_json: bool) -> int:
    print(json.dumps({"run": folder.name, "folder": str(folder)}) if as_json else folder)
    return 0


def _device(name: str) -> str:
    from segmamba.commands.shared import choose_device

    return choose_device(name)


def _options(options: Namespace) -> list[str]:
    """Those of an improvement again, as the command line has them."""
    model = Path(options.model)
    given = {
        "--way": options.way,
        "--steps": options.steps,
        "--device": options.device,
        "--model": model.absolute() if model.is_dir() else options.model,
    }
    return [text for name, value in given.items() if value is not None for text in (name, str(value))]


def _status(options: Namespace) -> int:
    from segmamba.learning.site import Site, summarise

    found = summarise(Site(Path(options.site).absolute()), options.name)
    print(json.dumps(found, indent=1) if options.json else _as_text(found))
    return 0


def _as_text(found: dict) -> str:
    corrections, models = found["corrections"], found["models"]
    states = ("train", "validation", "waiting", "doubtful", "refused", "replaced", "new")
    lines = [
        f"{corrections['sent']} corrections: " + ", ".join(f"{corrections[state]} {state}" for state in states),
        f"model in use: {models['champion'] or 'none yet'}"
        + (f", from {', '.join(models['parents'])}" if models["parents"] else ""),
    ]
    for run in found["runs"]:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["started"]))
        lines.append(f"{day}  {run['run']}  {run['state']}: {run['text']}")
    lines += [f"step {line['step']}: {_logged(line)}" for line in found.get("log", ())]
    return "\n".join(lines)


def _logged(line: dict) -> str:
    """What a line of a run's log says (SITE.md)."""
    if line["kind"] == "validation":
        dices = {region: scores.get("dice") for region, scores in line.get("mean", {}).items()}
        return "Dice " + ", ".join(f"{region} {_rounded(value)}" for region, value in dices.items())
    return f"loss {_rounded(line.get('loss'))}" if line["kind"] == "step" else str(line.get("text", line["kind"]))


def _rounded(value: float | None) -> str:
    """Where a loss or a score is no number, JSON has null."""
    return "-" if value is None else f"{value:.3f}"


def _anchor(options: Namespace) -> int:
    from segmamba.learning.gate.rules import ENOUGH
    from segmamba.learning.site import Site
    from segmamba.learning.site.anchor import set_anchor
    from segmamba.training.plan import may_hold_labels

    site = Site(Path(options.site).absolute())
    ready_for_output(site.folder)
    made = set_anchor(
        site, options.cases, convention=options.labels, subject_pattern=options.subject_pattern, jobs=options.jobs
    )
    for case, reason in made.left_out.items():
        print(f"left out: {case}: {reason}", file=sys.stderr)
    labelled = [case for case in made.dataset.cases if case.label is not None]
    print(f"{len(labelled)} labelled cases judge the new models of {site.folder} from now on")
    with_tumor = sum(map(may_hold_labels, labelled))
    if with_tumor < ENOUGH:
        print(f"{with_tumor} have a tumor; {ENOUGH} or more make them a guard: of fewer, chance moves the means")
    return 0
