"""What goes with a result: how it was made, what the engine warned of, what was left out, and the views on it."""

from __future__ import annotations

import qt
import slicer

from ..errors import InputError
from ..i18n import _
from ..results import history, leftout, uncertainty
from ..results.lesions import Lesion, lesionsOf
from .colors import makeStrip
from .running import timeText
from .widgets import allow


class ResultFacts:
    """say: called with a line for the user. changed: called when segments were changed here."""

    def __init__(self, ui, say, changed):
        self._ui = ui
        self._say = say
        self._changed = changed
        self._node, self._lesion = None, -1
        self.lesions: list[Lesion] = []
        self._unknownBecause = ""  # why it is not known whether there are any
        self._canInclude: bool | None = None  # something of what was left out; None where it is not known
        makeStrip(ui.resultWarningsLabel)
        ui.showLeftOutButton.clicked.connect(self.onShowLeftOut)
        ui.includeButton.clicked.connect(self.onInclude)
        ui.nextLesionButton.clicked.connect(self.onNextLesion)
        ui.backgroundButton.clicked.connect(self.onBackground)
        ui.opacitySlider.valueChanged.connect(self.onOpacity)

    def setSegmentation(self, node) -> None:
        """Another result, or None."""
        before = self._node
        if before is not None and before is not node and leftout.isShown(before):
            leftout.show(before, False)
        self._node, self._lesion = node, -1

    def measure(self) -> None:
        """The lesions, from the segments as they are now, and what can be done with them."""
        self.lesions, self._canInclude, self._unknownBecause = [], None, ""
        if self._node is not None:
            try:
                self.lesions = lesionsOf(self._node)
                self._canInclude = leftout.canInclude(self._node)
            except InputError as error:
                self._unknownBecause = str(error)
        self.show()

    def show(self) -> None:
        ui, node = self._ui, self._node
        nothing = _("There is no result yet.")
        warnings = history.warningsOf(node) if node is not None else []
        ui.resultWarningsLabel.setText("\n".join(_("Warning: {text}").format(text=text) for text in warnings))
        ui.resultWarningsLabel.setVisible(bool(warnings))
        text = leftout.leftOutText(node, self._canInclude is False) if node is not None else ""
        ui.leftOutLabel.setText(text)
        ui.leftOutWidget.setVisible(bool(text))
        ui.showLeftOutButton.setChecked(bool(text) and leftout.isShown(node))
        text = _("Adds the spots that were left out to the segments; what you have edited stays as it is.")
        allow(ui.includeButton, self._canInclude is not False, text, _("They are in the segments already."))
        reason = nothing if node is None else "" if self.lesions else self._unknownBecause or _("No lesion was found.")
        text = _("Moves the views to the next lesion, the largest first.")
        allow(ui.nextLesionButton, not reason, text, reason)
        other = self._otherBackground()
        reason = nothing if node is None else "" if other else _("T1c or FLAIR is no longer in the scene.")
        text = _("Switches between T1c and FLAIR under the segments (Ctrl+Shift+B).")
        allow(ui.backgroundButton, not reason, text, reason)
        ui.backgroundButton.setText(_("Show T1c") if other and other[0] == "t1c" else _("Show FLAIR"))
        ui.backgroundButton.setShortcut(qt.QKeySequence("Ctrl+Shift+B"))  # which a new text takes away
        ui.opacitySlider.setEnabled(node is not None)
        if node is not None and node.GetDisplayNode() is not None:
            ui.opacitySlider.blockSignals(True)
            ui.opacitySlider.setValue(round(100 * node.GetDisplayNode().GetOpacity2DFill()))
            ui.opacitySlider.blockSignals(False)

    def title(self) -> str:
        """The result's name, and what made it: model, quality, time and device."""
        if self._node is None:
            return _("No result yet.")
        facts, name = history.modelFacts(self._node), self._node.GetName()
        parts = [_("model {model}").format(model=facts["model"])] if "model" in facts else []
        qualities = {"0": _("fast"), "1": _("standard"), "7": _("best")}
        parts += [qualities[facts["mirrorings"]]] if facts.get("mirrorings") in qualities else []
        if "seconds" in facts:
            text = _("{time} on {device}")
            parts.append(text.format(time=timeText(facts["seconds"]), device=facts.get("device", "?")))
        return _("{name}: {facts}").format(name=name, facts=", ".join(parts)) if parts else name

    def goTo(self, number: int) -> None:
        """Moves the views to a lesion, counted from 0."""
        self._lesion = number
        lesion = self.lesions[number]
        uncertainty.jumpTo(lesion.ras)
        text = _("Lesion {number} of {count}: {volume} mL")
        self._say(text.format(number=number + 1, count=len(self.lesions), volume=f"{lesion.volume:.1f}"))

    # --- from the widgets

    def onNextLesion(self, checked=False):
        if self.lesions:
            self.goTo((self._lesion + 1) % len(self.lesions))

    def onBackground(self, checked=False):
        other = self._otherBackground()
        if other:
            for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
                composite.SetBackgroundVolumeID(other[1].GetID())
        self.show()

    def onOpacity(self, value=0):
        if self._node is not None and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetOpacity2DFill(self._ui.opacitySlider.value / 100)

    def onShowLeftOut(self, checked=False):
        if self._node is not None:
            leftout.show(self._node, self._ui.showLeftOutButton.isChecked())

    def onInclude(self, checked=False):
        if self._node is None:
            return
        try:
            leftout.include(self._node)
        except InputError as error:
            self._say(str(error))
            return
        self._say(_("The spots were added to the segments, and the volumes were measured again."))
        self._changed()
        self.show()

    def _otherBackground(self):
        """(modality, volume) of T1c and FLAIR that is not under the segments; None where one of them is missing."""
        if self._node is None:
            return None
        volumes = history.sourceVolumes(self._node)
        t1c, flair = volumes["t1c"], volumes["t2f"]
        if t1c is None or flair is None:
            return None
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        isFlair = bool(composites) and composites[0].GetBackgroundVolumeID() == flair.GetID()
        return ("t1c", t1c) if isFlair else ("t2f", flair)
