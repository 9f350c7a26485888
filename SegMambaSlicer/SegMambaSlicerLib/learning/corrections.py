"""A corrected case on its way into the site's folder of corrections: written out, checked by the engine, sent.

What is checked is what is sent: the files of the case are written once, into a folder of their own, which is removed
at the end, whatever the end is. The engine writes the sending (segmamba/corrections/FORMAT.md). Raw volumes
it prepares once more as it did for the model, and keeps them so, on the T1c's own grid. Nothing that names the
patient leaves the scene but, where one gives it, the patient's number; the engine keeps a salted hash of it.
"""

from __future__ import annotations

import hashlib
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import slicer

from ..engine.client import EngineError, asEngineError
from ..engine.interpreter import isThere
from ..errors import InputError
from ..i18n import _
from ..results import history
from ..results.segments import labelArray, onVolume, representation, segmentArray
from ..results.vocabulary import LABELS, MODES
from ..volumes.checks import PREPARED, REQUIRED, checkVolumes, listed, offGrid
from ..volumes.scene import exportCase, exportLabels, rightHanded
from ..volumes.temporary import temporaryFolder
from .consent import consentText

FOLDER, INCOMING = "corrections", "incoming"  # in the site folder
REFERENCE = "t1c"
_SUBJECT = "SEGMAMBA_SUBJECT"  # of `segmamba correct`
_SENT, _SENT_LABELS = "SegMamba.Sent", "SegMamba.SentLabels"


def problemsOf(segmentationNode, volumes: dict | None = None) -> list[str]:
    """Why a result cannot be sent as it lies in the scene, in sentences; [] where nothing stands in the way.

    volumes: modality -> node; those that the result was made from unless given. Reads voxels, and changes nothing.
    """
    if segmentationNode is None:
        return [_("There is no result yet.")]
    try:
        representation(segmentationNode)
        history.originalLabels(segmentationNode)
    except InputError as error:
        return [str(error), _("Only a result of the model, corrected by a person, can be added.")]
    volumes = volumes or history.sourceVolumes(segmentationNode)
    gone = [modality for modality in REQUIRED if volumes.get(modality) is None]
    if gone:
        text = _(
            "{modalities}: not in the scene, or unknown. A volume that is loaded again counts as another one: segment "
            "the volumes again, and correct that result. A result made without one of {all} cannot be added, because "
            "models are trained on all four."
        )
        return [text.format(modalities=listed(gone), all=listed(REQUIRED))]
    problems = [problem.text for problem in checkVolumes(volumes, prepare="auto") if problem.blocking]
    if problems:
        return problems
    try:
        onVolume(history.originalLabels(segmentationNode), segmentationNode, volumes[REFERENCE])
    except InputError:
        text = _(
            "{segmentation} is no longer on the grid of {volume}. If one of them was moved or put under a transform "
            "alone, undo that and check again."
        )
        return [text.format(segmentation=segmentationNode.GetName(), volume=volumes[REFERENCE].GetName())]
    return []


def needPreparing(segmentationNode, volumes: dict) -> bool:
    """Whether the engine has to see what is to be done to `volumes`; not where the model saw them as they are."""
    asSeen = not segmentationNode.GetAttribute(PREPARED) and volumes == history.sourceVolumes(segmentationNode)
    return bool(offGrid(volumes)) or not asSeen


def foreignSegments(segmentationNode) -> list[str]:
    """Names of segments with voxels that are none of the model's: they would be left out."""
    own, segmentation = MODES[representation(segmentationNode)], segmentationNode.GetSegmentation()
    others = [segmentId for segmentId in segmentation.GetSegmentIDs() if segmentId not in own]
    return [
        segmentation.GetSegment(segmentId).GetName()
        for segmentId in others
        if segmentArray(segmentationNode, segmentId).any()
    ]


def wasSent(segmentationNode) -> bool:
    """Whether it was added to a training folder, as it is now or before it was changed again."""
    return bool(segmentationNode.GetAttribute(_SENT))


class Correction:
    """One case: `prepare`, then `check`, then `send`; `close` at the end, which also ends what is under way.

    start: Session.command. site: the site folder. subject: whatever names the patient here, or "". role: of who
    corrected, no name. volumes: see `problemsOf`.
    """

    def __init__(self, start: Callable, segmentationNode, site: str | Path, subject="", role="", volumes=None):
        self.segmentation, self.site = segmentationNode, Path(site).expanduser()
        self.place = self.site / FOLDER
        self.subject, self.role = subject, role
        self.notes: list[dict] = []  # findings of this side, as those of the engine
        self.report: dict | None = None  # the engine's, after `check`
        self.labelsHash = ""
        self.isRaw = False  # after `prepare`: whether the engine prepares the volumes, which takes its time
        self._start = start
        self._command = None
        self._folder = None
        self._volumes = volumes or (history.sourceVolumes(segmentationNode) if segmentationNode is not None else {})

    def prepare(self) -> Correction:
        """Writes the images, the corrected labels and the model's answer into a temporary folder.

        Raises InputError where the scene or the site folder cannot be used, or the files cannot be written.
        """
        problems = problemsOf(self.segmentation, self._volumes)
        if problems:
            raise InputError("\n".join(problems))
        if not isThere(self.site):
            text = _("{folder} is not a folder that can be reached. Create it, or connect its network drive.")
            raise InputError(text.format(folder=self.site))
        if self.place.is_file():
            text = _("{folder} is a file; a folder was expected. Move it away.")
            raise InputError(text.format(folder=self.place))
        self._folder = temporaryFolder()
        # also where nobody calls `close`: when this is forgotten, and when Slicer ends
        self._remove = weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)
        try:
            self._write(self._folder)
        except BaseException:
            self.close()
            raise
        return self

    def _write(self, folder: Path) -> None:
        # in the order in which Slicer loads them again: a case is known by its voxels, also after saving and loading
        volumes = {modality: rightHanded(self._volumes[modality]) for modality in REQUIRED}
        frame = volumes[REFERENCE]
        self.isRaw = needPreparing(self.segmentation, self._volumes)
        labels, texts = labelArray(self.segmentation, frame)
        original = onVolume(history.originalLabels(self.segmentation), self.segmentation, frame)
        (folder / "case").mkdir()
        exportCase(volumes, folder / "case", ownGrids=True)
        exportLabels(labels, frame, folder / "corrected.nii")
        exportLabels(original, frame, folder / "proposal.nii")
        self.labelsHash = hashlib.sha256(labels.tobytes()).hexdigest()
        for name in foreignSegments(self.segmentation):
            text = _("the segment {name} is not one of {known} and is left out").format(
                name=name, known=", ".join(MODES[representation(self.segmentation)])
            )
            self.notes.append(_finding("segment", "doubtful", text, _("add it to one of them, or delete it")))
        self.notes += [_finding("segments", "note", text) for text in texts]
        self.facts, self.seconds = history.modelFacts(self.segmentation), history.editorSeconds(self.segmentation)

    def check(self, onDone: Callable | None = None, onError: Callable | None = None):
        """Asks the engine what it says of the case; it writes nothing into the site. Returns the Command.

        onDone gets the report, which is also in `report`, with `notes` among its findings; onError an EngineError.
        Raises EngineError where nothing starts.
        """

        def done(answer):
            try:
                self.report = {**answer, "findings": [*self.notes, *answer["findings"]]}
            except (TypeError, KeyError):
                self._fail(onError, EngineError("internal", _("The engine's answer was not understood."), repr(answer)))
                return
            if onDone:
                onDone(self.report)

        return self._run(["--check"], done, lambda error: self._fail(onError, error))

    def send(
        self,
        confirmedEmpty: Sequence[str] = (),
        onDone: Callable | None = None,
        onError: Callable | None = None,
    ):
        """Has the engine write the sending: a person has consented (consent.consentText). Returns the Command.

        confirmedEmpty: labels that a person says are truly absent. onDone gets {"name", "case", "version", "folder"}.
        The files are gone when either is called. Raises InputError where `reasons` is not empty.
        """
        reasons = self.reasons(confirmedEmpty)
        if reasons:
            raise InputError("\n".join(reasons))

        def done(answer):
            self.close()
            if not isinstance(answer, dict) or not answer.get("name"):
                self._fail(onError, EngineError("internal", _("The engine's answer was not understood."), repr(answer)))
                return
            if slicer.mrmlScene.GetNodeByID(self.segmentation.GetID() or "") is self.segmentation:
                self.segmentation.SetAttribute(_SENT, str(answer["name"]))
                self.segmentation.SetAttribute(_SENT_LABELS, self.labelsHash)
            if onDone:
                onDone(answer)

        arguments = ["--consent"]
        for name in confirmedEmpty:
            arguments += ["--empty", name]
        return self._run(arguments, done, lambda error: self._fail(onError, error))

    def reasons(self, confirmedEmpty: Sequence[str] = ()) -> list[str]:
        """Why the case cannot be sent after `check`; [] where it can."""
        if self.report is None or self._folder is None:
            return [_("The case has not been checked as it is now.")]
        wrong = [finding["text"] for finding in self.report["findings"] if finding["severity"] == "wrong"]
        empty = [name for name in self.report.get("empty", []) if name not in confirmedEmpty]
        unknown = sorted(set(confirmedEmpty) - set(LABELS))
        return [
            *(_("Fix first: {text}").format(text=text) for text in wrong),
            *(_("{label} has no voxels. Draw it, or confirm that it is truly absent.").format(label=e) for e in empty),
            *(_("{label} is not a label.").format(label=name) for name in unknown),
        ]

    @property
    def sentBefore(self) -> str:
        """The name of the sending with these very labels in this site; "" where it was not sent, or was changed since.

        It is known of what was sent from this segmentation; of others the report's "earlier_versions" tells.
        """
        name = self.segmentation.GetAttribute(_SENT) or ""
        same = self.segmentation.GetAttribute(_SENT_LABELS) == self.labelsHash
        return name if name and same and (self.place / INCOMING / name).is_dir() else ""

    @property
    def isBusy(self) -> bool:
        return self._command is not None and not self._command.isDone

    def close(self) -> None:
        """Ends what is under way, without a word, and removes the files. The engine leaves no half case behind."""
        if self.isBusy:
            self._command.cancel()
        if self._folder is not None:
            self._remove()
            self._folder = None

    def _fail(self, onError: Callable | None, error: EngineError) -> None:
        self.close()
        if onError:
            onError(error)

    def _run(self, arguments: list[str], done: Callable, failed: Callable):
        facts, seconds = self.facts, self.seconds
        line = ["correct", str(self._folder / "case"), f"--labels={self._folder / 'corrected.nii'}"]
        line += [f"--proposal={self._folder / 'proposal.nii'}", f"--output={self.place}", *arguments, "--json"]
        line += [f"--prepare={'auto' if self.isRaw else 'never'}"]
        line += [f"--role={self.role}"] if self.role else []
        line += [f"--model-id={facts['model']}"] if "model" in facts else []
        line += [f"--weights-sha256={facts['weights_sha256']}"] if {"model", "weights_sha256"} <= set(facts) else []
        line += [f"--mirrorings={facts['mirrorings']}"] if "mirrorings" in facts else []
        line += [f"--editor-seconds={seconds:.0f}"] if seconds is not None else []
        # what the engine lays aside is removed with the rest, also where it was killed
        variables = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._folder))
        if self.subject.strip():  # not on the command line, which other users of the machine can read
            variables[_SUBJECT] = self.subject.strip()
        try:
            self._command = self._start(line, done, failed, variables=variables)
        except BaseException:
            self.close()
            raise
        return self._command


def addCorrectedCase(
    start: Callable,
    segmentationNode,
    site: str | Path,
    subject: str = "",
    role: str = "",
    confirmedEmpty: Sequence[str] = (),
    consent: bool = False,
    volumes: dict | None = None,
    wait: bool = True,
    onDone: Callable | None = None,
    onError: Callable | None = None,
):
    """See SegMambaSlicerLogic.addCorrectedCase."""
    if not consent:
        raise InputError(consentText(Path(site) / FOLDER) + "\n\n" + _("To agree, pass consent=True."))
    correction = Correction(start, segmentationNode, site, subject, role, volumes).prepare()

    def failed(error):
        correction.close()
        if onError:
            onError(asEngineError(error))

    def checked(report):
        try:
            correction.send(confirmedEmpty, onDone, onError)
        except (InputError, EngineError) as error:
            failed(error)

    if not wait:
        correction.check(checked, onError)
        return correction
    try:
        correction.check().wait()
        return correction.send(confirmedEmpty).wait()
    finally:
        correction.close()


def _finding(kind: str, severity: str, text: str, remedy: str = "") -> dict:
    return {"kind": kind, "text": text, "mend": remedy, "severity": severity}
