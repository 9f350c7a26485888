"""What intake found in a submission: made once, kept on the disk, and taken from there while nothing has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segmamba import __version__, limits, settings
from segmamba.datasets.fingerprint import fingerprint
from segmamba.datasets.manifest import CaseEntry
from segmamba.errors import explain, last_line
from segmamba.files.atomic import is_left_by_system, write_aside
from segmamba.files.digest import hash_file
from segmamba.images.digest import size_and_time
from segmamba.learning.submissions.checks import Examined, examine, same_task
from segmamba.learning.submissions.findings import Finding
from segmamba.learning.submissions.record import FOLDER, INCOMING, RECORD

log = logging.getLogger(__name__)

VERDICTS = "verdicts"
BESIDE = {"other subject", "other task", "same image", "repeated image", "same label"}  # kinds of `beside_others`
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What intake found in a submission."""

    schema: int = _SCHEMA
    """Of the file; a verdict of another one is made anew."""
    examined: Examined
    """The submission as found."""
    stamp: dict[str, tuple[int, int]]
    """File -> (bytes, ns since 1970) when it was examined; (0, 0) for a folder."""
    record_sha256: str
    """Of case.json when it was examined."""
    reason: str = ""
    """Why a person accepted it although it is doubtful."""
    segmamba: str = __version__
    """Version that examined it."""

    @property
    def state(self) -> str:
        """One of "accepted", "doubtful" (waits for a person) and "refused"."""
        severities = {finding.severity for finding in self.examined.findings}
        if "wrong" in severities:
            return "refused"
        return "doubtful" if "doubtful" in severities and not self.reason else "accepted"


def make_verdict(submission: Path, output: Path) -> Verdict:
    """Examines one submission. An unexpected error refuses this submission alone; intake goes on with the others."""
    try:
        stamp, digest = _stamp(submission), _record_hash(submission)
        return Verdict(examined=examine(submission, output), stamp=stamp, record_sha256=digest)
    except Exception as error:
        log.debug("%s", submission.name, exc_info=True)
        said = explain(error) if isinstance(error, OSError) else f"{type(error).__name__}: {last_line(error)}"
        finding = Finding(kind="file", text=f"{submission.name} cannot be examined ({said})")
        # without a stamp it is looked at again the next time: the disk may be back by then
        return Verdict(examined=Examined(name=submission.name, findings=(finding,)), stamp={}, record_sha256="")


def _stamp(submission: Path) -> dict[str, tuple[int, int]]:
    """Also of what is no file, which is refused only while it is there."""
    present = [path for path in sorted(submission.iterdir()) if not is_left_by_system(path)]
    return {path.name: size_and_time(path) if path.is_file() else (0, 0) for path in present}


def _record_hash(submission: Path) -> str:
    record = submission / RECORD
    return hash_file(record) if record.is_file() and record.stat().st_size <= limits.RECORD_BYTES else ""


def earlier_verdict(output: Path, name: str) -> Verdict | None:
    """The verdict of an earlier intake on a submission, whether or not that is as it was; None: it cannot be read."""
    path = output / VERDICTS / f"{name}.json"
    try:
        return settings.build(Verdict, settings.read_json(path), str(path))
    except Exception:  # none yet, of another version, damaged
        return None


def keep_reason(new: Verdict, old: Verdict | None) -> Verdict:
    """A verdict made anew, with the reason for which a person accepted the submission.

    It holds for the same content, and for no doubt of a kind that the person did not see.
    """
    if old is None or not new.record_sha256 or new.record_sha256 != old.record_sha256:
        return new
    unseen = _doubts(new) - _doubts(old)
    return new if unseen else replace(new, reason=old.reason)


def _doubts(verdict: Verdict) -> set[str]:
    return {finding.kind for finding in verdict.examined.findings if finding.severity == "doubtful"}


def known_verdict(output: Path, submission: Path) -> Verdict | None:
    """The verdict of an earlier intake, unless something in the folder is not as it was."""
    verdict = earlier_verdict(output, submission.name)
    if verdict is None:
        return None
    try:
        if verdict.examined.entry is not None:
            entry, labels = verdict.examined.entry, verdict.examined.labels
            fingerprint((entry,), tuple(entry.images), tuple(labels))  # its statistics are plain JSON: are they ours?
        stamp, digest = _stamp(submission), _record_hash(submission)
    except Exception:  # statistics of another version, or the submission cannot be read: examine again
        return None
    same = verdict.schema == _SCHEMA and verdict.stamp == stamp and verdict.record_sha256 == digest
    return verdict if same and stamp else None


def find_trainable(folder: Path, output: Path | None = None) -> tuple[list[CaseEntry], list[str]]:
    """What an intake found that is trained on, or would be once a person accepts it.

    Args:
        folder: of corrections; it need not be there.
        output: as of `ingest`.

    Returns:
        The cases, and the names of submissions that no intake has examined as they are now.
    """
    incoming = folder / INCOMING
    names = [path.name for path in incoming.iterdir() if FOLDER.fullmatch(path.name)] if incoming.is_dir() else []
    known = {name: known_verdict(output or folder, incoming / name) for name in sorted(names)}
    entries = [verdict.examined.entry for verdict in known.values() if verdict is not None]
    return [entry for entry in entries if entry is not None], [name for name in known if known[name] is None]


def beside_others(examined: Examined, verdicts: Mapping[str, Verdict]) -> Examined:
    """What is found of a submission, with what shows only beside the others that are accepted, found anew.

    verdicts: of the others, by name.
    """
    if examined.entry is None:
        return examined
    found: list[Finding] = []
    own = examined.entry.id
    accepted = [v.examined for v in verdicts.values() if v.state == "accepted"]
    others = [other for other in accepted if entry_of(other).id != own]
    # else a case that is never trained on could become one that is: the place is the subject's
    if any(other.subject != examined.subject for other in accepted if entry_of(other).id == own):
        found.append(Finding(kind="other subject", text="an earlier version of this case is another patient's"))
    for other in others:
        if not same_task(examined, other):
            found.append(Finding(kind="other task", text=f"its labels or modalities are not those of {other.name}"))
            break
    for other in others:
        images = [m for m, digest in examined.contents.items() if m != "label" and digest in other.contents.values()]
        same = other.subject == examined.subject
        if images:
            kind = "repeated image" if same else "same image"
            found.append(Finding(kind=kind, text=f"{', '.join(images)} is an image of {other.name} too"))
        elif examined.contents.get("label") and examined.contents["label"] == other.contents.get("label"):
            found.append(Finding(kind="same label", text=f"its label map is that of {other.name}, the images are not"))
    alone = [finding for finding in examined.findings if finding.kind not in BESIDE]
    return replace(examined, findings=tuple(dict.fromkeys([*alone, *found])))


def entry_of(accepted: Examined) -> CaseEntry:
    """Of a submission that was accepted: how the data set has it."""
    assert accepted.entry is not None  # what has none was refused
    return accepted.entry


def write_verdict(output: Path, name: str, verdict: Verdict) -> None:
    """Keeps a verdict for the next intake.

    Args:
        output: as of `ingest`.
        name: of the submission's folder, CASE-vN.
        verdict: what was found in it.
    """
    write_aside(output / VERDICTS / f"{name}.json", (json.dumps(asdict(verdict), indent=1) + "\n").encode())
