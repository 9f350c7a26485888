"""`segmamba correct` and `segmamba intake`: a corrected case into a folder, and the folder into a data set."""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.shared import LABEL_CONVENTIONS, AddCommand, ready_for_output
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.learning.submissions.write import Provenance

_SUBJECT = "SEGMAMBA_SUBJECT"


def add(add_command: AddCommand) -> None:
    """Adds `correct` and `intake` to the command line."""
    correct = add_command("correct", _correct, "put a corrected case into a folder of corrections")
    correct.add_argument("case", help="folder of the case's images")
    correct.add_argument("--labels", required=True, metavar="FILE", help="the corrected label map, on the grid of T1c")
    correct.add_argument("--proposal", metavar="FILE", help="the model's proposal, as `segmamba predict` wrote it")
    correct.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="FOLDER",
        help="folder of corrections (may be shared by several programs)",
    )
    known = ", ".join(LABEL_CONVENTIONS)
    correct.add_argument(
        "--convention", default="brats2023", help=f"label convention of --labels: {known} (default: %(default)s)"
    )
    correct.add_argument(
        "--subject",
        metavar="TEXT",
        default=os.environ.get(_SUBJECT) or None,
        help=f"patient identifier; only its salted hash is written. Other users of a computer can see command lines: "
        f"the environment variable {_SUBJECT} says the same unseen",
    )
    correct.add_argument(
        "--role",
        type=str,
        default="",
        help="profession of the person who corrected the case, e.g. radiologist; not a name",
    )
    correct.add_argument(
        "--empty",
        action="append",
        default=[],
        metavar="LABEL",
        help="label that is truly absent in this case; can be repeated",
    )
    correct.add_argument("--editor-seconds", type=float, metavar="S", help="seconds spent on the correction")
    correct.add_argument(
        "--preprocessing",
        action="append",
        default=[],
        metavar="TEXT",
        help="a step the images went through before; can be repeated",
    )
    correct.add_argument(
        "--prepare",
        default="auto",
        choices=("auto", "never"),
        help="auto: keep raw images registered onto T1c and without skull, on its grid; never: keep them as they are",
    )
    correct.add_argument(
        "--brain-mask", metavar="FILE", help="brain mask on the T1c image; without it, the brain is extracted"
    )
    correct.add_argument(
        "--model-id",
        metavar="ID",
        help="id of the model that made the proposal (default: read from the summary beside --proposal)",
    )
    correct.add_argument(
        "--weights-sha256", type=str, default="", metavar="HEX", help="sha256 of the weights of --model-id"
    )
    correct.add_argument("--mirrorings", type=int, metavar="N", help="number of mirrorings the proposal was made with")
    correct.add_argument("--json", action="store_true", help="print the result as JSON")
    do = correct.add_mutually_exclusive_group()
    do.add_argument(
        "--consent", action="store_true", help="confirm that the images are de-identified and may be used for training"
    )
    do.add_argument(
        "--check", action="store_true", help="only report, as JSON, what intake would find; nothing is submitted"
    )
    intake = add_command("intake", _intake, "examine corrected cases, and make a data set of those accepted")
    intake.add_argument("folder", help="folder of corrections")
    intake.add_argument(
        "--output", "-o", metavar="FOLDER", help="folder for the data set (default: the folder of corrections)"
    )
    intake.add_argument(
        "--accept", action="append", default=[], metavar="CASE-vN", help="accept a doubtful submission; can be repeated"
    )
    intake.add_argument("--reason", type=str, default="", help="why the accepted submissions are right")
    intake.add_argument(
        "--withdraw", action="append", default=[], metavar="CASE-vN", help="delete a submission; can be repeated"
    )
    intake.add_argument("--json", action="store_true", help="print the result as JSON")


def _correct(options: Namespace) -> int:
    from segmamba.cases.case import find_case
    from segmamba.learning.submissions.preview import preview_submission
    from segmamba.learning.submissions.write import write_case

    case = (options.output, find_case(options.case), Path(options.labels), _proposal(options))
    shared = {"subject": options.subject, "convention": options.convention, "about": _about(options)}
    shared["preparing"] = options.prepare
    shared["brain_mask"] = Path(options.brain_mask) if options.brain_mask else None
    if not options.check:
        ready_for_output(options.output)
        ready_for_output(Path(options.output) / "incoming")
    if options.check:
        found = preview_submission(*case, **shared)
        findings = [{**asdict(f), "mend": f.remedy, "severity": f.severity} for f in found.findings]
        print(json.dumps({**asdict(found), "findings": findings}, indent=2))
        return 0
    submission = write_case(*case, consent=options.consent, **shared)
    name, _, version = submission.name.rpartition("-v")
    about = {"name": submission.name, "case": name, "version": int(version), "folder": str(submission)}
    print(json.dumps(about) if options.json else submission)
    return 0


def _proposal(options: Namespace) -> Path | None:
    return Path(options.proposal) if options.proposal else None


def _about(options: Namespace) -> Provenance:
    """What is known of the correction; what the command line says of the model counts, then the proposal's summary."""
    from segmamba.learning.submissions.record import ModelRecord
    from segmamba.learning.submissions.write import Provenance, proposal_facts

    model, settings = proposal_facts(Path(options.proposal)) if options.proposal else (None, {})
    if options.weights_sha256 and not re.fullmatch("[0-9a-f]{64}", options.weights_sha256):
        raise InputError(f"--weights-sha256 {options.weights_sha256[:40]}: expected 64 hexadecimal digits")
    if options.weights_sha256 and not options.model_id:
        raise InputError("--weights-sha256 belongs to a model: name it with --model-id")
    if options.model_id:
        model = ModelRecord(id=options.model_id, weights_sha256=options.weights_sha256)
    if options.mirrorings is not None:
        settings = {**settings, "mirrorings": options.mirrorings}
    return Provenance(
        model=model,
        settings=settings,
        editor_seconds=options.editor_seconds,
        role=options.role,
        confirmed_empty=tuple(options.empty),
        preprocessing=tuple(options.preprocessing),
    )


def _intake(options: Namespace) -> int:
    from segmamba.learning.site.withdrawn import drop_traces_beside
    from segmamba.learning.submissions.intake import format_intake, ingest

    if options.reason and not options.accept:
        raise InputError("--reason explains --accept CASE-vN; give --accept as well")
    for folder in {options.folder, options.output or options.folder}:
        if Path(folder).is_dir() or folder == options.output:
            ready_for_output(folder)
    accept = {name: str(options.reason) for name in options.accept}
    try:
        result = ingest(
            options.folder,
            options.output,
            accept=accept,
            withdraw=options.withdraw,
            progress=lambda name: print(f"examining {name}", file=sys.stderr, flush=True),
        )
    finally:  # a case that is withdrawn may be only in part deleted, or another one be refused after it
        if options.withdraw:
            drop_traces_beside(Path(options.folder))
    print(json.dumps(asdict(result), indent=2) if options.json else format_intake(result))
    if options.json:  # it says so itself
        return 0
    return 1 if any(name in result.new for name in result.names("refused")) else 0
