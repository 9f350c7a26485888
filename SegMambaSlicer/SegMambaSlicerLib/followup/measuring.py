"""The engine asked for what lesions measure at one date, or at several and how they changed.

The images and label maps are written once for a set of results and stay in a private folder until `close`; there the
engine also keeps its registrations, so that measuring again after a line was moved takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer

from ..engine.client import EngineError
from ..errors import InputError
from ..i18n import _
from ..results import history
from ..results.segments import labelArray
from ..volumes.scene import exportLabels, exportVolume, rightHanded
from ..volumes.temporary import temporaryFolder
from .dates import DatedResult, inOrder

MIXED = "mixed"  # enhancing and non-enhancing lesions, judged beside one another
REGIONS = ("ET", "TC", "WT", "non-enhancing", MIXED)
KINDS = {"csv": "follow-up.csv", "pdf": "report.pdf", "html": "report.html"}


@dataclass(frozen=True)
class Settings:
    """region: of REGIONS. radiotherapyEnd: a date or day as those of the results, or ""."""

    region: str = "ET"
    targets: int = 3
    confirmWeeks: float = 12.0
    volumetricMinor: float = 40.0
    radiotherapyEnd: str = ""

    @property
    def measured(self) -> tuple[str, ...]:
        """The regions whose lesions are measured: one, or of MIXED both."""
        return ("ET", "non-enhancing") if self.region == MIXED else (self.region,)

    def arguments(self) -> list[str]:
        found = ["--region", self.region, "--targets", str(self.targets), "--confirm-weeks", str(self.confirmWeeks)]
        found += ["--volumetric-minor", str(self.volumetricMinor)]
        return found + (["--radiotherapy-end", self.radiotherapyEnd] if self.radiotherapyEnd else [])


class Measuring:
    """Of `results`, in the order of their dates. start: Session.command. Raises InputError as dates.inOrder."""

    def __init__(self, start: Callable, results: list[DatedResult], settings: Settings):
        self.results, self.settings = inOrder(results), settings
        self._start, self._command = start, None
        self._isReport = False  # what the command is for
        self.folder = temporaryFolder()
        self._remove = weakref.finalize(self, shutil.rmtree, str(self.folder), ignore_errors=True)
        try:
            for place, result in zip(self._places(), self.results):
                place.mkdir()
                exportVolume(rightHanded(result.volume), place / "t1c.nii")
            self.writeLabels()
        except BaseException:
            self.close()
            raise

    @property
    def isBusy(self) -> bool:
        return self._command is not None and not self._command.isDone

    @property
    def isWriting(self) -> bool:
        """Whether reports are under way, and not a measuring."""
        return self.isBusy and self._isReport

    def writeLabels(self) -> None:
        """The segments as they are now. Raises InputError where one lies on another grid than its T1c."""
        for place, result in zip(self._places(), self.results):
            frame = rightHanded(result.volume)
            exportLabels(labelArray(result.segmentation, frame)[0], frame, place / "seg.nii")

    def measure(self, byHand: dict, onDone: Callable, onError: Callable):
        """onDone gets the record: "dates" (each with "day", "lesions" and "burdens"), "targets" and "warnings"."""
        self.cancel()
        self._isReport = False
        hand = self.folder / "by-hand.json"
        hand.write_text(json.dumps({"schema": 1, **byHand}), encoding="utf-8")
        more = ["--labels", "brats2023", "--by-hand", str(hand), "--json"]
        if len(self.results) > 1:
            arguments = [*self._follow(), *more]
        else:
            (self.folder / "out").mkdir(exist_ok=True)
            maps = [str(self._places()[0] / "seg.nii"), "--region", self.settings.region]
            arguments = ["measure", *maps, "--csv", str(self._output("csv")), *more]
        self._command = self._start(arguments, lambda answer: self._heard(answer, onDone, onError), onError)
        return self._command

    def save(self, kind: str, folder: Path) -> Path:
        """A copy of a file of the last measuring ("csv", "pdf" or "html") in `folder`, under a name that is free."""
        source = self._output(kind)
        if not source.is_file():
            raise InputError(_("There is no such file yet. Measure first."))
        return _copy(source, folder)

    def writeReports(self, byHand: dict, folder: Path, onDone: Callable, onError: Callable):
        """DICOM SEG and Structured Report of each date of which the T1c is of DICOM; onDone gets their paths."""
        self.cancel()
        self._isReport = True
        output = self.folder / "dicom-out"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        known = self.folder / "out" / "follow-up.json"
        if known.is_file():
            shutil.copyfile(known, output / known.name)  # for its registrations
        series = [str(_seriesFiles(result.volume, place / "dicom")) for place, result in self._pairs()]
        hand = self.folder / "by-hand.json"
        hand.write_text(json.dumps({"schema": 1, **byHand}), encoding="utf-8")
        more = ["--labels", "brats2023", "--by-hand", str(hand), "--json", "--dicom-sr", "--series", *series]

        def done(_answer):
            files = sorted(output.rglob("*.dcm"))
            if not files:
                onError(EngineError("input", _("Nothing is segmented on any date: there is nothing to report.")))
                return
            try:
                paths = [_copy(path, folder) for path in files]
            except InputError as error:
                onError(error)
                return
            onDone(paths)

        self._command = self._start([*self._follow(output), *more], done, onError)
        return self._command

    def cancel(self) -> None:
        if self.isBusy:
            self._command.cancel()
        self._command = None

    def close(self) -> None:
        """Ends what is under way and removes the files."""
        self.cancel()
        self._remove()

    def _follow(self, output: Path | None = None) -> list[str]:
        places = self._places()
        maps, images = [str(p / "seg.nii") for p in places], [str(p / "t1c.nii") for p in places]
        models = [history.modelFacts(r.segmentation).get("model", "") or "unknown" for r in self.results]
        arguments = ["follow", *maps, "--t1c", *images, "--dates", *(result.date for result in self.results)]
        arguments += ["--made-by", *models, "--output", str(output or self.folder / "out")]
        return [*arguments, *self.settings.arguments()]

    def _output(self, kind: str) -> Path:
        return self.folder / "out" / KINDS[kind]

    def _places(self) -> list[Path]:
        return [self.folder / f"date-{number}" for number in range(len(self.results))]

    def _pairs(self):
        return zip(self._places(), self.results)

    def _heard(self, answer, onDone: Callable, onError: Callable) -> None:
        try:
            if len(self.results) == 1:
                answer = {"dates": [{**answer, "day": 0, "burdens": []}], "targets": [], "warnings": answer["notes"]}
            for date in answer["dates"]:
                [(lesion["line1_ras_mm"], lesion["by_hand"], lesion["region"]) for lesion in date["lesions"]]
        except (TypeError, KeyError):
            onError(EngineError("internal", _("The engine's answer was not understood."), repr(answer)[:500]))
            return
        onDone(answer)


def regionTitle(region: str) -> str:
    """A region of REGIONS in the user's language; abbreviations are the same in all."""
    return {"non-enhancing": _("non-enhancing"), MIXED: _("mixed")}.get(region, region)


def isOfDicom(volume) -> bool:
    """Whether the files of a volume's series are in Slicer's DICOM database."""
    return bool(_filesOf(volume))


def _filesOf(volume) -> list[str]:
    database = getattr(slicer, "dicomDatabase", None)
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return []
    files = [database.fileForInstance(uid) for uid in uids]
    return files if all(files) else []


def _seriesFiles(volume, folder: Path) -> Path:
    """A folder with the files of a volume's series alone; Slicer's database may keep those of many in one."""
    files = _filesOf(volume)
    if not files:
        text = _("{volume} is not from DICOM: a Structured Report refers to DICOM images.")
        raise InputError(text.format(volume=volume.GetName()))
    folder.mkdir(exist_ok=True)
    try:
        for number, file in enumerate(dict.fromkeys(files)):
            shutil.copyfile(file, folder / f"{number:05d}.dcm")
    except OSError as error:
        text = _("The DICOM files of {volume} could not be read ({error}).")
        raise InputError(text.format(volume=volume.GetName(), error=error)) from error
    return folder


def _copy(source: Path, folder: Path) -> Path:
    """Written aside and renamed; nothing is overwritten."""
    target, number = folder / source.name, 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem}-{number}{source.suffix}"
    aside = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(source, aside)
        aside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        text = _("{file} could not be written ({error}). Choose a folder that you may write to.")
        raise InputError(text.format(file=target, error=error)) from error
    return target
