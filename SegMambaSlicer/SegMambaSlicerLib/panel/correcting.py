"""The section "Add to training": a corrected case is checked, shown with what was changed, and sent with consent."""

from __future__ import annotations

import ctk
import qt
import slicer

from ..engine.client import EngineError, asEngineError
from ..errors import InputError
from ..i18n import _
from ..learning import site
from ..learning.consent import consentText, hasConsented, keepConsent
from ..learning.corrections import FOLDER, REFERENCE, Correction
from ..learning.nextcase import nextCaseText
from ..results import history
from ..volumes.dicomtags import dicomTags
from .casereport import ReportView
from .colors import paint
from .widgets import EditWatch, allow, singleTimer

ROLE_SETTING = "SegMamba/Role"
LIST_MILLISECONDS = 200
TYPING_MILLISECONDS = 500  # a path says that it has changed with each letter


def roles() -> list[tuple[str, str]]:
    """(title for the user, what is written) of those who may have corrected a case."""
    return [
        (_("Not stated"), ""),
        (_("Radiologist"), "radiologist"),
        (_("Neuroradiologist"), "neuroradiologist"),
        (_("Neurosurgeon"), "neurosurgeon"),
        (_("Radiation oncologist"), "radiation oncologist"),
        (_("Medical physicist"), "medical physicist"),
        (_("Technician"), "technician"),
        (_("Researcher"), "researcher"),
        (_("Student"), "student"),
    ]


class CorrectionPanel:
    """start: Session.command; log: called with (level, text); changed: called when the site or its cases changed."""

    def __init__(self, ui, start, log, changed):
        self._ui = ui
        self._start = start
        self._log = log
        self._changed = changed
        self._node = self._correction = self._lastEdit = None
        self._onTheWay: list[Correction] = []  # sent with consent: these go on whatever becomes of the scene
        self._edits = EditWatch(self._edited)
        self._volumeId = ""
        self._patientId = ""
        self._typed = singleTimer(TYPING_MILLISECONDS, changed)
        self._listed = singleTimer(LIST_MILLISECONDS, self._showNextCase)
        self._observed = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeRemovedEvent, self._nodeRemoved)
        ui.sitePath.filters = ctk.ctkPathLineEdit.Dirs
        ui.sitePath.setCurrentPath(site.readSite().folder)
        for title, value in roles():
            ui.roleCombo.addItem(title, value)
        role = slicer.util.settingsValue(ROLE_SETTING, "", converter=str)
        ui.roleCombo.setCurrentIndex(max(0, ui.roleCombo.findData(role)))
        self._view = ReportView(ui, self.onAbsent)
        ui.sitePath.currentPathChanged.connect(self.onSite)
        ui.subjectEdit.textChanged.connect(self.onSubject)
        ui.roleCombo.currentIndexChanged.connect(self.onRole)
        ui.subjectDicomButton.clicked.connect(self.onDicom)
        ui.caseCheckButton.clicked.connect(self.onCheck)
        ui.caseCancelButton.clicked.connect(self.onCancel)
        ui.caseSendButton.clicked.connect(self.onSend)
        self._drop()

    # --- the scene

    def setSegmentation(self, node) -> None:
        """Another result, or None."""
        if node is self._node:
            return
        volume = None if node is None else history.sourceVolumes(node)[REFERENCE]
        volumeId = "" if volume is None else volume.GetID()
        if volumeId != self._volumeId:
            self._ui.subjectEdit.setText("")  # never of one patient to another
        self._volumeId = volumeId
        self._patientId = "" if volume is None else dicomTags(volume).get("PatientID", "")
        self._edits.watch(node)
        self._node, self._lastEdit = node, None
        self._drop()

    def showState(self) -> None:
        """What can be pressed, and why the rest cannot."""
        ui, busy = self._ui, self._isBusy
        unasked = _("There is no result yet.") if self._node is None else site.readSite().reason
        reason = _("In progress.") if busy else unasked or self._reason()
        text = _("Compares the segments with the model's result and looks for mistakes. Nothing is sent yet.")
        allow(ui.caseCheckButton, not busy and not unasked, text, reason)
        allow(ui.caseSendButton, not reason, _("Copy this case into the training folder."), reason)
        ui.caseReasonLabel.setText(reason)
        ui.caseReasonLabel.setVisible(bool(reason) and not busy)
        self._showNextCase()
        text, none = _("Uses the patient ID from DICOM."), _("The T1c volume was not loaded from DICOM.")
        allow(ui.subjectDicomButton, bool(self._patientId) and not busy, text, none)
        for widget in (ui.caseProgressBar, ui.caseCancelButton):
            widget.setVisible(busy)
        for widget in (ui.sitePath, ui.subjectEdit, ui.roleCombo):
            widget.setEnabled(not busy)
        self._view.setEnabled(not busy)

    def release(self) -> None:
        """For the end of the widget: ends what is under way and removes its files."""
        self._typed.stop()
        self._listed.stop()
        slicer.mrmlScene.RemoveObserver(self._observed)
        self._edits.watch(None)
        for correction in filter(None, [self._correction, *self._onTheWay]):
            correction.close()
        self._node = None
        self._correction = None
        self._onTheWay = []

    # --- the site and the person

    def onSite(self, path=""):
        site.write(site.SETTING, self._ui.sitePath.currentPath)
        self._drop()
        self._typed.start()

    def onSubject(self, text=""):
        """Whose it is, is among what was checked: beside others of the same patient, or of another one."""
        correction = self._unsent
        if correction is not None and correction.subject.strip() != self._ui.subjectEdit.text.strip():
            self._drop(_("The patient ID has changed. Check the case again."))

    def onRole(self, index=0):
        qt.QSettings().setValue(ROLE_SETTING, self._role())
        if self._unsent is not None:
            self._unsent.role = self._role()  # nothing that is found depends on it

    def onDicom(self, checked=False):
        self._ui.subjectEdit.setText(self._patientId)

    # --- checking and sending

    def onCheck(self, checked=False):
        if self._isBusy or self._node is None:
            return
        self._drop()
        subject, role = self._ui.subjectEdit.text, self._role()
        correction = Correction(self._start, self._node, site.readSite().path, subject, role)
        self._correction = correction
        try:
            correction.prepare()
            self._say(_withPreparing(_("Checking the case..."), correction))
            correction.check(
                lambda report: self._handleAnswer(correction, self._checked, report),
                lambda error: self._handleAnswer(correction, self._failed, error),
            )
        except Exception as error:  # whatever it is, it has to be said
            self._failed(asEngineError(error))
        self.showState()

    def onAbsent(self, checked=False):
        self.showState()

    def onCancel(self, checked=False):
        if self._correction in self._onTheWay:
            self._onTheWay.remove(self._correction)
        self._drop()
        self._say(_("Cancelled."))

    def onSend(self, checked=False):
        correction = self._correction
        if correction is None or self._isBusy or not self._mayBeSent(correction):
            return
        self._say(_withPreparing(_("Adding the case..."), correction))
        self._onTheWay.append(correction)
        try:
            correction.send(
                self._view.confirmed(),
                lambda answer: self._handleAnswer(correction, self._added, answer),
                lambda error: self._handleAnswer(correction, self._failed, error),
            )
        except (InputError, EngineError) as error:
            self._handleAnswer(correction, self._failed, error)
        self.showState()

    def _mayBeSent(self, correction: Correction) -> bool:
        """Asks what has to be asked: once for a folder, and where the very same was sent already."""
        if not hasConsented(correction.site):
            if not _confirm(consentText(correction.site / FOLDER), _("SegMamba: cases for training")):
                self._say(_("Nothing was sent."))
                return False
            keepConsent(correction.site)
        before = correction.sentBefore.rpartition("-v")[2]
        if not before:
            return True
        text = _(
            "This case was sent already as version {before}, and nothing was changed since. Send it again as version "
            "{next}?"
        ).format(before=before, next=correction.report.get("next_version", "?"))
        return _confirm(text, _("SegMamba: sent already"))

    def _handleAnswer(self, correction: Correction, function, answer) -> None:
        """What became of `correction`, which may no longer be the one that is shown."""
        wasSent = correction in self._onTheWay
        if wasSent:
            self._onTheWay.remove(correction)
        if correction is self._correction:
            function(answer)
            self.showState()
        elif wasSent:
            self._note(answer)
        if wasSent:
            self._changed()

    def _checked(self, report: dict) -> None:
        self._say(_("Checked. Nothing has been sent yet."))
        self._view.show(report)

    def _added(self, answer: dict) -> None:
        self._drop(_("To add this case again, check it again."))
        self._note(answer)

    def _failed(self, error) -> None:
        self._drop()
        self._note(error)

    def _note(self, answer) -> None:
        """The end of a case, in the panel and the log."""
        if isinstance(answer, dict):
            text = _("Added as version {version} ({name}).").format(version=answer["version"], name=answer["name"])
            self._log("info", text)
            self._say(text)
            return
        self._log("error", str(answer))
        if getattr(answer, "detail", ""):
            self._log("error", answer.detail)
        self._say(_("Failed: {reason}").format(reason=answer), failed=True)

    # --- what is seen

    @property
    def _isBusy(self) -> bool:
        return self._correction is not None and self._correction.isBusy

    @property
    def _unsent(self) -> Correction | None:
        """The checked one, as long as it was not sent."""
        return None if self._correction in self._onTheWay else self._correction

    def _reason(self) -> str:
        """Why the case cannot be added."""
        if self._correction is None:
            return self._unchecked
        return "\n".join(self._correction.reasons(self._view.confirmed()))

    def _role(self) -> str:
        return self._ui.roleCombo.itemData(self._ui.roleCombo.currentIndex) or ""

    def _drop(self, why: str = "") -> None:
        """Forgets what was checked: the case, the folder or the result is another one."""
        self._unchecked = why or _("Check the case first.")
        correction, self._correction = self._correction, None
        if correction is not None and correction not in self._onTheWay:
            correction.close()
        self._view.clear()
        self._say("")
        self.showState()

    def _showNextCase(self) -> None:
        text = nextCaseText() if self._node is not None else ""  # the results of a scene that is closing do not count
        self._ui.nextCaseLabel.setText(text)
        self._ui.nextCaseLabel.setVisible(bool(text))

    def _nodeRemoved(self, caller=None, event=None):
        if not slicer.mrmlScene.IsClosing():
            self._listed.start()  # a listed result, or one of its volumes

    def _say(self, text: str, failed: bool = False) -> None:
        self._ui.caseStateLabel.setText(text)
        paint(self._ui.caseStateLabel, "wrong" if failed else "")
        self._ui.caseStateLabel.setVisible(bool(text))

    # --- edits

    def _edited(self, caller=None, event=None):
        if self._node is None or slicer.mrmlScene.IsClosing():
            return
        self._lastEdit = history.noteEdit(self._node, self._lastEdit)
        if self._unsent is not None:
            self._drop(_("The segments have changed. Check the case again."))


def _withPreparing(text: str, correction: Correction) -> str:
    more = _("The volumes are prepared as for the model, which takes about half a minute.")
    return f"{text} {more}" if correction.isRaw else text


def _confirm(question: str, title: str) -> bool:
    return slicer.util.confirmOkCancelDisplay(question, windowTitle=title)
