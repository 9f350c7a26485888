"""`segmamba correct` and `segmamba intake`: a corrected case into a folder, and the folder into a data set."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from segmamba.errors import InputError


def add(add_command) -> None:
    correct = add_command("correct", _correct, "put a corrected case into a folder of corrections")
    correct.add_argument("case", help="folder of the case's images")
    correct.add_argument("--labels", required=True, metavar="FILE", help="the corrected label map")
    correct.add_argument(
        "--proposal", metavar="FILE", help="what the model had proposed, as `segmamba predict` wrote it"
    )
    correct.add_argument("--output", required=True, metavar="FOLDER", help="folder of corrections; may be shared")
    correct.add_argument("--convention", default="brats2023", help="of the labels: brats2023 (default), brats2021, msd")
    correct.add_argument("--subject", metavar="TEXT", help="what names the patient; only its salted hash is written")
    correct.add_argument("--role", default="", help="of who corrected it, e.g. radiologist; no name")
    correct.add_argument("--empty", action="append", default=[], metavar="LABEL", help="truly absent; repeat")
    correct.add_argument(
        "--consent", action="store_true", help="I say that the images are de-identified and may be used for training"
    )
    intake = add_command("intake", _intake, "examine corrected cases and make them a data set to train on")
    intake.add_argument("folder", help="folder of corrections")
    intake.add_argument("--output", metavar="FOLDER", help="where the data set goes; default: the same folder")
    intake.add_argument("--accept", action="append", default=[], metavar="CASE-vN", help="take a doubtful one; repeat")
    intake.add_argument("--reason", default="", help="why --accept is right")
    intake.add_argument("--json", action="store_true")


def _correct(options) -> int:
    from segmamba.case import find_case
    from segmamba.corrections import Provenance, proposal_facts, write_case

    proposal = Path(options.proposal) if options.proposal else None
    model, settings = proposal_facts(proposal) if proposal else (None, {})
    about = Provenance(model=model, settings=settings, role=options.role, confirmed_empty=tuple(options.empty))
    place = write_case(
        options.output,
        find_case(options.case),
        Path(options.labels),
        proposal,
        subject=options.subject,
        consent=options.consent,
        convention=options.convention,
        about=about,
    )
    print(place)
    return 0


def _intake(options) -> int:
    from segmamba.corrections import format_intake, take_in

    if options.reason and not options.accept:
        raise InputError("--reason says why --accept CASE-vN is right; name the case")
    accept = dict.fromkeys(options.accept, options.reason)
    result = take_in(
        options.folder,
        options.output,
        accept=accept,
        progress=lambda name: print(f"examining {name}", file=sys.stderr, flush=True),
    )
    print(json.dumps(asdict(result), indent=2) if options.json else format_intake(result))
    return 1 if any(name in result.new for name in result.names("refused")) else 0
