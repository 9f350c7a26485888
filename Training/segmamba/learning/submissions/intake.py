"""Intake: submissions become a data set to train on. Each is examined once, and each subject is assigned once.

    FOLDER/incoming/CASE-vN/      submissions, only ever read; what was broken off beside them is swept away
    OUTPUT/verdicts/CASE-vN.json  what was found, by which a killed intake resumes
    OUTPUT/verdicts/CASE-vN.png   of a doubtful one, for the person who decides
    OUTPUT/splits.json            subject -> train or validation; only ever added to
    OUTPUT/dataset.json           the newest accepted version of every case (segmamba.datasets), for train.py
    OUTPUT/intake.json            the whole as a report

OUTPUT is FOLDER unless given. Only one program at a time may write verdicts, splits and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from segmamba import __version__
from segmamba.datasets.fingerprint import fingerprint
from segmamba.datasets.manifest import MANIFEST, CaseEntry, Dataset, read_dataset, write_dataset
from segmamba.datasets.split import SPLIT, Split, extend, read_split, write_split
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, sweep, write_aside
from segmamba.files.shares import exclusive
from segmamba.learning.provenance import DOUBTFUL
from segmamba.learning.submissions.checks import Examined
from segmamba.learning.submissions.doubtful import draw, picture_file
from segmamba.learning.submissions.doubtful import withdraw as take_back
from segmamba.learning.submissions.findings import Finding
from segmamba.learning.submissions.record import FOLDER, INCOMING, UNFINISHED, check_sent
from segmamba.learning.submissions.verdicts import (
    BESIDE,
    VERDICTS,
    Verdict,
    beside_others,
    earlier_verdict,
    entry_of,
    keep_reason,
    known_verdict,
    make_verdict,
    write_verdict,
)

REPORT = "intake.json"
LOCK = ".intake.lock"
VALIDATION = 0.2  # of the subjects
UNCHANGED = 0.3  # at most, of the cases of each part: the model's own answers teach it its own mistakes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One submission in the report."""

    name: str
    """CASE-vN."""
    status: str
    """"train", "validation" (in use), "replaced" (by a newer version), "waiting" (unchanged, until more corrected ones
    are there), "doubtful" (until a person accepts or withdraws it) or "refused"; then findings say why."""
    findings: tuple[Finding, ...] = ()
    """What was found about it."""
    dice: dict[str, float] = field(default_factory=dict)
    """Region -> Dice of the proposal against the correction; {} without a proposal."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What an intake gave."""

    folder: str
    """Name of the data set's folder."""
    rows: tuple[Row, ...]
    """Every submission, by name."""
    new: tuple[str, ...] = ()
    """Names of those examined now."""
    unfinished: tuple[str, ...] = ()
    """Interrupted submissions."""

    def names(self, status: str) -> list[str]:
        """Names of the submissions with this status."""
        return [row.name for row in self.rows if row.status == status]


def ingest(
    folder: Path | str,
    output: Path | str | None = None,
    *,
    accept: Mapping[str, str] | None = None,
    withdraw: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Intake:
    """Examines the new submissions in `folder` and updates the data set. The files are listed at the top of this file.

    Args:
        folder: the folder of corrections.
        output: where verdicts, splits and the manifest are written; None: `folder`.
        accept: name of a submission ("CASE-vN") -> why a person accepts it although it is doubtful. A submission with
            a finding of severity "wrong" stays refused.
        withdraw: names of submissions that are deleted first.
        progress: called with the name of each submission before it is examined.

    Returns:
        The report, which is also written as intake.json.

    Raises:
        InputError: `folder` is not a folder of corrections, splits.json was lost, or another program does not finish
            its intake.
    """
    folder = Path(folder)
    output = Path(output) if output is not None else folder
    check_sent(folder)
    for swept in (output, make_folder(output / VERDICTS), folder / INCOMING):
        sweep(swept)
    with exclusive(output / LOCK):
        for name in withdraw:
            take_back(folder / INCOMING, output / VERDICTS, name)
        return _ingest(folder, output, dict(accept or {}), progress or (lambda name: None))


def _ingest(folder: Path, output: Path, accept: dict[str, str], progress: Callable[[str], None]) -> Intake:
    present = sorted(path.name for path in (folder / INCOMING).iterdir())
    sent = sorted((name for name in present if FOLDER.fullmatch(name)), key=_order)
    _check_accept(accept, sent)
    known = {name: known_verdict(output, folder / INCOMING / name) for name in sent}
    verdicts = {name: verdict for name, verdict in known.items() if verdict is not None}
    new = [name for name in sent if name not in verdicts]
    for name in new:
        progress(name)
        verdict = make_verdict(folder / INCOMING / name, output)
        earlier = earlier_verdict(output, name)
        verdicts[name] = keep_reason(replace(verdict, examined=beside_others(verdict.examined, verdicts)), earlier)
        if verdict.stamp or earlier is None:  # what cannot be looked at now takes no acceptance away
            write_verdict(output, name, verdicts[name])
    for name in sent:
        verdict = verdicts.pop(name)
        now = replace(verdict, reason=accept.get(name, verdict.reason))
        # what it was refused beside may have been withdrawn, and what it is accepted beside may have come later
        if name in accept or any(finding.kind in BESIDE for finding in verdict.examined.findings):
            now = replace(now, examined=beside_others(verdict.examined, verdicts))
        if now != verdict:
            write_verdict(output, name, now)
        verdicts[name] = now
        _show(folder / INCOMING / name, now.state == "doubtful", output / VERDICTS)
    rows = _settle(output, verdicts)
    unfinished = tuple(name for name in present if UNFINISHED.fullmatch(name))
    result = Intake(folder=output.resolve().name, rows=rows, new=tuple(new), unfinished=unfinished)
    write_aside(output / REPORT, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return result


def _show(submission: Path, is_doubtful: bool, verdicts: Path) -> None:
    """A picture of what waits for a person, and of nothing else."""
    picture = picture_file(verdicts, submission.name)
    if not is_doubtful:
        with suppress(OSError):  # a viewer may hold it: the next intake tries again
            picture.unlink(missing_ok=True)
    elif not picture.exists():
        draw(submission, picture)


def _order(name: str) -> tuple[int, str]:
    match = FOLDER.fullmatch(name)
    assert match is not None  # only such folders are examined
    return int(match[2]), match[1]


def _check_accept(accept: Mapping[str, str], sent: list[str]) -> None:
    for name, reason in accept.items():
        if name not in sent:
            raise InputError(f"--accept {name}: no such submission; there are {', '.join(sent[:10]) or 'none'}")
        if not reason.strip():
            raise InputError(f"--accept {name}: say why it is right, e.g. --reason 'looked at by two readers'")


# --- from verdicts to a data set


def _settle(output: Path, verdicts: Mapping[str, Verdict]) -> tuple[Row, ...]:
    accepted = {name: v.examined for name, v in verdicts.items() if v.state == "accepted"}
    newest = {entry_of(examined).id: name for name, examined in accepted.items()}  # in order of version
    chosen = {name: accepted[name] for name in sorted(newest.values())}
    # a later proposal that needs no correction any more confirms the correction before it
    corrected = {entry_of(examined).id for examined in accepted.values() if not examined.unchanged}
    split = _place_subjects(output, chosen.values(), corrected)
    waiting = _waiting(chosen, split, corrected)
    used = [examined for name, examined in chosen.items() if name not in waiting]
    rows = []
    for name, verdict in verdicts.items():
        findings, dice = verdict.examined.findings, verdict.examined.dice
        if verdict.state != "accepted":
            status = verdict.state
        elif name not in chosen:
            status = "replaced"
        else:
            status = "waiting" if name in waiting else cast(str, split.part_of(verdict.examined.subject))
        rows.append(Row(name=name, status=status, findings=findings, dice=dice))
    _write_manifest(output, used, {row.name: row for row in rows if row.status in ("refused", "doubtful", "waiting")})
    return tuple(rows)


def _place_subjects(output: Path, chosen: Collection[Examined], corrected: Collection[str]) -> Split:
    """The places as they were, and new ones for new subjects; on the disk before anything is made of them.

    Those with a corrected case (`corrected`: ids) come first, so that the first to validate on is not one that waits.
    Those that were withdrawn keep their places, and keep no new ones from being validated on.
    """
    if (output / SPLIT).exists():
        old = read_split(Dataset(name=output.name, modalities=(), labels={}, regions={}, label_values={}, cases=(),
                                 folder=str(output)))  # fmt: skip
    elif (output / MANIFEST).exists():
        raise InputError(
            f"{output / SPLIT} is gone; it says which patients are never trained on, and another choice would let the "
            "model be tested on what it has learnt: restore it from a backup"
        )
    else:
        shares = {"train": 1 - VALIDATION, "validation": VALIDATION, "test": 0.0}
        old = Split(seed=1, shares=shares, subjects={})
    present = {examined.subject for examined in chosen}
    new = extend(old, {examined.subject for examined in chosen if entry_of(examined).id in corrected}, present)
    new = extend(new, present, present)
    if new != old or not (output / SPLIT).exists():
        write_split(new, output)
    return new


def _waiting(chosen: Mapping[str, Examined], split: Split, corrected: Collection[str]) -> set[str]:
    """Names of unchanged cases that are too many beside the `corrected` ones (ids); which, a hash decides."""
    waiting: set[str] = set()
    for part in split.parts:
        here = {name: examined for name, examined in chosen.items() if split.part_of(examined.subject) == part}
        unchanged = sorted(name for name, examined in here.items() if entry_of(examined).id not in corrected)
        allowed = int((len(here) - len(unchanged)) * UNCHANGED / (1 - UNCHANGED) + 1e-9)
        waiting.update(unchanged[allowed:])
    return waiting


def _write_manifest(output: Path, used: list[Examined], not_used: Mapping[str, Row]) -> None:
    if not used:
        if (output / MANIFEST).exists():  # all that was there is refused now: nothing may be trained on
            was = read_dataset(output)
            made = {**was.made, DOUBTFUL: []}
            write_dataset(replace(was, cases=(), left_out=_left_out(not_used), made=made))
        return
    cases: tuple[CaseEntry, ...] = tuple(sorted(map(entry_of, used), key=lambda entry: entry.id))
    modalities = tuple(entry_of(used[0]).images)
    dataset = Dataset(
        name=output.resolve().name,
        modalities=modalities,
        labels=used[0].labels,
        regions=used[0].regions,
        label_values={str(value): name for name, value in used[0].labels.items()},
        cases=cases,
        fingerprint=fingerprint(cases, modalities, tuple(used[0].labels)),
        left_out=_left_out(not_used),
        made={"corrections": INCOMING, "segmamba": __version__, DOUBTFUL: _doubtful(used)},
        folder=str(output),
    )
    write_dataset(dataset)


def _doubtful(used: list[Examined]) -> list[str]:
    """Names of those that a person accepted against the advice: the gate goes by them (learning.provenance)."""
    return sorted(e.name for e in used if any(f.severity == "doubtful" for f in e.findings))


def _left_out(rows: Mapping[str, Row]) -> dict[str, str]:
    return {
        name: "; ".join(f.text for f in row.findings if f.severity != "note") or "waits: unchanged"
        for name, row in sorted(rows.items())
    }


def format_intake(result: Intake) -> str:
    """A table for a terminal: what is in use, what was refused and why, what waits."""
    lines = []
    for row in result.rows:
        dice = ", ".join(f"{region} {value:.2f}" for region, value in row.dice.items())
        mark = " (new)" if row.name in result.new else ""
        lines.append(f"{row.name}  {row.status}{mark}" + (f"  Dice with the proposal: {dice}" if dice else ""))
        for finding in row.findings:
            lines.append(f"    {finding.severity}: {finding.text}" + (f"; {finding.remedy}" if finding.remedy else ""))
    states = ("train", "validation", "replaced", "waiting", "doubtful", "refused")
    lines.append(", ".join(f"{len(result.names(status))} {status}" for status in states))
    if result.unfinished:
        lines.append(
            f"{len(result.unfinished)} submission(s) are incomplete or still being written; send missing cases again"
        )
    if doubtful := result.names("doubtful"):
        lines.append(
            f"a doubtful submission waits for a person: --accept {doubtful[0]} --reason 'why it is right', or "
            "--withdraw it"
        )
    return "\n".join(lines)
