"""The four volume selectors: filled by themselves, with how sure the choice is, and what is wrong with it."""

from __future__ import annotations

import html

import slicer

from ..checks import checkVolumes
from ..i18n import _
from ..modalities import MODALITIES, guessModalities
from ..swaps import swapWarnings

SURE = 0.6  # below it a choice is marked as one to look at
_AMBER, _GREEN = "#9a5b00", "#2e6b34"


class InputsPanel:
    """changed: called with no argument when the problems may be others than before."""

    def __init__(self, ui, changed):
        self._ui, self._changed = ui, changed
        self._parameters = None
        self._guesses = {}
        self._chosenByUser = False
        self._filling = False
        self.isSettled = True  # False while the scene is closed, loaded or restored: the selectors then say nothing
        self.problems = None  # not looked at yet
        for modality in MODALITIES:
            self._selector(modality).setMRMLScene(slicer.mrmlScene)
            self._selector(modality).currentNodeChanged.connect(self._chooser(modality))
        ui.guessButton.clicked.connect(self.onGuess)

    def setParameters(self, parameters) -> None:
        """Another parameter node, e.g. that of a scene that was loaded."""
        self._parameters, self._guesses, self._chosenByUser = parameters, {}, False
        self.problems = None
        self.show()

    def show(self) -> None:
        """From the parameter node to the widgets."""
        self._filling = True
        try:
            for modality in MODALITIES:
                self._selector(modality).setCurrentNode(self._parameters.volume(modality))
        finally:
            self._filling = False

    def onVolumeChosen(self, modality: str) -> None:
        if self._filling or not self.isSettled or self._parameters is None or slicer.mrmlScene.IsClosing():
            return
        self._chosenByUser = True
        self._parameters.setVolume(modality, self._selector(modality).currentNode())

    def leave(self, node) -> None:
        """Lets go of a volume that is about to be removed; a selector that has it would take its neighbour instead."""
        if self._parameters is None or not self.isSettled:
            return
        with self._parameters.together():
            for modality in MODALITIES:
                if self._parameters.volume(modality) is node:
                    self._parameters.setVolume(modality, None)
        self.show()

    def release(self) -> None:
        """For the end of the widget: its selectors live on for a while, hidden, and are not listened to any more."""
        self._parameters = None

    def onGuess(self, checked=False):
        self._chosenByUser = False
        self.guess(everything=True)

    def guess(self, everything: bool = False) -> None:
        """Fills the selectors that are empty, or all of them; leaves alone what the user has chosen."""
        if self._parameters is None or (self._chosenByUser and not everything):
            return
        self._guesses = guessModalities()
        taken = {node for node in self._parameters.volumes().values() if node is not None}
        with self._parameters.together():
            for modality, guess in self._guesses.items():
                empty = self._parameters.volume(modality) is None
                if everything or (empty and guess.node not in taken):
                    self._parameters.setVolume(modality, guess.node)
        self.show()

    def check(self) -> None:
        """Looks at the volumes themselves; takes a moment, so it is called when the user has paused."""
        if self._parameters is None:
            return
        volumes = self._parameters.volumes()
        self.problems = checkVolumes(volumes)
        blocked = any(problem.blocking for problem in self.problems)
        notes = [problem.text for problem in self.problems if not problem.blocking]
        if not blocked:
            notes += swapWarnings(volumes)
        self._ui.warningsLabel.setText("<br>".join("\u26a0 " + html.escape(note) for note in notes))
        self._ui.warningsLabel.setStyleSheet(f"color: {_AMBER}")
        self._ui.warningsLabel.setVisible(bool(notes))
        for modality in MODALITIES:
            self._showHint(modality, volumes[modality])
        self._changed()

    @property
    def reason(self) -> str:
        """Why these volumes cannot be segmented; "" where they can."""
        if self.problems is None:
            return _("Looking at the volumes...")
        missing = [problem for problem in self.problems if problem.kind == "missing"]
        if len(missing) == len(MODALITIES):
            return _("Load the four MRI volumes T1, T1c, T2 and FLAIR of a patient, or a sample case.")
        return "\n".join(problem.text for problem in self.problems if problem.blocking)

    def _showHint(self, modality: str, node) -> None:
        label, guess = getattr(self._ui, f"{modality}Hint"), self._guesses.get(modality)
        if node is None or guess is None or guess.node is not node:
            label.setText("")
            label.setToolTip("")
            return
        sure = guess.confidence >= SURE
        label.setText(_("{percent} % sure").format(percent=round(100 * guess.confidence)))
        label.setStyleSheet(f"color: {_GREEN if sure else _AMBER}")
        label.setToolTip(guess.reason)

    def _chooser(self, modality: str):
        def onChosen(node=None):
            self.onVolumeChosen(modality)

        return onChosen

    def _selector(self, modality: str):
        return getattr(self._ui, f"{modality}Selector")
