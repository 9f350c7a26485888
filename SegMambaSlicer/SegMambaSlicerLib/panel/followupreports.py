"""What the section "Follow-up" writes: table, report, and DICOM, one click each."""

from __future__ import annotations

from pathlib import Path

import ctk
import qt
import slicer

from ..engine.client import EngineError
from ..engine.interpreter import isThere
from ..errors import InputError
from ..followup.measuring import isOfDicom
from ..i18n import _
from .widgets import allow

FOLDER_SETTING = "SegMamba/ReportFolder"


class Reports:
    """byHand: what the engine is told of lines and physician; say(text), failed(error), changed(): of the section."""

    def __init__(self, ui, byHand, say, failed, changed):
        self._ui = ui
        self._byHand = byHand
        self._say = say
        self._failed = failed
        self._changed = changed
        self._measuring = self._answer = None
        ui.followUpFolder.filters = ctk.ctkPathLineEdit.Dirs
        ui.followUpFolder.setCurrentPath(slicer.util.settingsValue(FOLDER_SETTING, "", converter=str))
        ui.followUpFolder.currentPathChanged.connect(self.onFolder)
        ui.followUpCsvButton.clicked.connect(self.onCsv)
        ui.followUpPdfButton.clicked.connect(self.onPdf)
        ui.followUpHtmlButton.clicked.connect(self.onHtml)
        ui.followUpSrButton.clicked.connect(self.onSr)

    def showState(self, measuring, answer, busy: str) -> None:
        """measuring, answer: what there is, or None. busy: why nothing can be written now, or ""."""
        self._measuring = measuring
        self._answer = answer
        ui = self._ui
        nowhere = "" if ui.followUpFolder.currentPath else _("Choose a folder to save into.")
        reason = busy or (_("Measure first.") if answer is None else "") or nowhere
        allow(ui.followUpCsvButton, not reason, _("Write the table."), reason)
        one = answer is not None and len(answer["dates"]) < 2
        reason = reason or (_("Needs two or more dates: tick another date and compare.") if one else "")
        allow(ui.followUpPdfButton, not reason, _("Write the report."), reason)
        allow(ui.followUpHtmlButton, not reason, _("Write the report for a browser."), reason)
        reason = reason or self._foreign()
        text = _("Write a DICOM SEG and a Structured Report of each date. They name the patient, as all DICOM does.")
        allow(ui.followUpSrButton, not reason, text, reason)

    def onFolder(self, path=""):
        qt.QSettings().setValue(FOLDER_SETTING, self._ui.followUpFolder.currentPath)
        self._changed()

    def onCsv(self, checked=False):
        self._save("csv")

    def onPdf(self, checked=False):
        self._save("pdf")

    def onHtml(self, checked=False):
        self._save("html")

    def onSr(self, checked=False):
        measuring = self._measuring
        if measuring is None or measuring.isBusy:
            return
        self._say(_("Writing DICOM..."))
        try:
            measuring.writeReports(
                self._byHand(),
                self._folder(),
                lambda paths: self._handleAnswer(measuring, self._written, paths),
                lambda error: self._handleAnswer(measuring, self._failed, error),
            )
        except (InputError, EngineError, OSError) as error:
            self._failed(error)
        self._changed()

    def _save(self, kind: str) -> None:
        if self._measuring is None or self._answer is None:
            return
        try:
            self._written([self._measuring.save(kind, self._folder())])
        except InputError as error:
            self._failed(error)

    def _handleAnswer(self, measuring, function, answer) -> None:
        if measuring is self._measuring:
            function(answer)
            self._changed()

    def _written(self, paths: list) -> None:
        self._say(_("Saved: {files}").format(files=", ".join(str(path) for path in paths)))

    def _folder(self) -> Path:
        """Raises InputError where it is not there. A drive that is gone holds up who asks: not for every state."""
        path = self._ui.followUpFolder.currentPath
        if not isThere(path):
            text = _("{folder} is not a folder that can be reached. Create it, or connect its network drive.")
            raise InputError(text.format(folder=path))
        return Path(path)

    def _foreign(self) -> str:
        """Why there can be no Structured Report, or ""."""
        names = [result.volume.GetName() for result in self._measuring.results if not isOfDicom(result.volume)]
        text = _("A Structured Report refers to DICOM images. Not loaded from DICOM: {names}")
        return text.format(names=", ".join(names)) if names else ""
