"""The four volume selectors: filled by themselves, with their confidence, what is wrong, and what is prepared."""

from __future__ import annotations

import numpy as np
import slicer

from ..errors import InputError
from ..i18n import _
from ..volumes.checks import (
    PREPARE,
    TITLES,
    checkVolumes,
    describeVolumes,
    listed,
    offGrid,
    preparation,
    referenceOf,
)
from ..volumes.modalities import MODALITIES, guessModalities, undecidedVolumes
from ..volumes.scene import addRegistered, momentOf
from ..volumes.swaps import swapWarnings
from .colors import paint
from .results import background, endOverlay, overlay
from .thumbnails import showThumbnails
from .widgets import VolumeWatch

CLEAR = 0.6  # below this confidence a choice is marked as one to look at
MOST_NAMES = 6


class InputsPanel:
    """changed: called with no argument when the problems may be others than before.

    incomplete: called for what the chosen model does without (see incomplete.knownIncomplete). watched: called when
    one of the chosen volumes was moved, put under another transform, or given other voxels. chosen: called when one was
    chosen by hand.
    """

    def __init__(self, ui, changed, incomplete, watched, chosen):
        self._ui = ui
        self._changed = changed
        self._incomplete = incomplete
        self._onChosen = chosen
        self._parameters = None
        self._guesses = {}
        self._chosen: set[str] = set()  # modalities that somebody has chosen by hand, or left empty by hand
        self._filling = False
        self._watch = VolumeWatch(watched)
        self._done: tuple[object, list[str]] = (None, [])  # for which volumes, and what the engine did to them
        self._moves: dict[str, np.ndarray] = {}  # of those volumes, modality -> to where T1c is
        self._compared = ("", "")  # modality, and the copy of it that is laid over T1c
        self.isSettled = True  # False while the scene is closed, loaded or restored: the selectors then say nothing
        self.problems = None  # not looked at yet
        self.notes: list[str] = []  # what is said of volumes that can be segmented
        self._absent: list[str] = []  # modalities without a volume when they were looked at
        self._undecided: list = []  # volumes that may be those which are missing
        self.isRaw = False  # whether the volumes will be registered first, as far as their grids tell
        for modality in MODALITIES:
            self._selector(modality).setMRMLScene(slicer.mrmlScene)
            self._selector(modality).currentNodeChanged.connect(self._chooser(modality))
        ui.guessButton.clicked.connect(self.onGuess)
        for title, value in zip((_("Automatic"), _("Never")), PREPARE):
            ui.prepareCombo.addItem(title, value)
        ui.prepareCombo.currentIndexChanged.connect(self.onPrepareChosen)
        ui.compareButton.clicked.connect(self.onCompare)
        ui.compareButton.setVisible(False)

    def setParameters(self, parameters) -> None:
        """Another parameter node, e.g. that of a scene that was loaded."""
        self._parameters = parameters
        self._watch.watch([])  # it, and what was found, would keep the volumes of a scene that is closed
        self._guesses, self._undecided = {}, []
        self._chosen = set()
        self.problems = None
        self._done = (None, [])
        self.endComparing()
        self.show()

    def show(self) -> None:
        """From the parameter node to the widgets."""
        self._filling = True
        try:
            for modality in MODALITIES:
                self._selector(modality).setCurrentNode(self._parameters.volume(modality))
            self._ui.prepareCombo.setCurrentIndex(PREPARE.index(self._parameters.prepare))
        finally:
            self._filling = False

    def onVolumeChosen(self, modality: str) -> None:
        if self._filling or not self.isSettled or self._parameters is None or slicer.mrmlScene.IsClosing():
            return
        self._chosen.add(modality)
        self._parameters.setVolume(modality, self._selector(modality).currentNode())
        self._onChosen()

    def onPrepareChosen(self, index=0):
        if not self._filling and self.isSettled and self._parameters is not None:
            self._done = (None, [])
            self._parameters.set("Prepare", self._ui.prepareCombo.itemData(self._ui.prepareCombo.currentIndex))

    def showSteps(self, result) -> None:
        """What the engine did to the volumes of a Run's Result, until they are others."""
        lines = [str(step["text"]) for step in result.steps if step.get("text")]
        if "steps" in result.answer and not lines:
            lines = [_("Nothing had to be prepared.")]
        self.endComparing()
        self._done = (result.moments, lines)  # shown when the volumes are looked at the next time
        self._moves = {
            step["modality"]: np.eye(4) if step.get("left_alone") else np.asarray(step["transform"], float)
            for step in result.steps
            if step.get("kind") == "register" and step.get("modality") in MODALITIES and step.get("transform")
        }

    def onCompare(self, checked=False):
        """Lays the next registered volume over T1c or, after the last one, none."""
        following = self._nextToCompare()
        self.endComparing()
        if following:
            node = self._parameters.volume(following)
            name = _("{volume} registered").format(volume=node.GetName())
            copy = addRegistered(node, self._moves[following], name)
            self._compared = (following, copy.GetID())
            volumes = self._parameters.volumes()
            background(volumes[referenceOf(volumes)])
            overlay(copy)
        self._showComparing(True)

    def endComparing(self) -> None:
        """Takes away what was laid over T1c."""
        node = slicer.mrmlScene.GetNodeByID(self._compared[1]) if self._compared[1] else None
        self._compared = ("", "")
        if node is not None:
            endOverlay(node)
            for part in (node.GetDisplayNode(), node):
                slicer.mrmlScene.RemoveNode(part)

    def leave(self, node) -> None:
        """Lets go of a volume that is about to be removed; a selector that has it would take its neighbour instead."""
        if self._parameters is None or not self.isSettled:
            return
        with self._parameters.together():
            for modality in MODALITIES:
                if self._parameters.volume(modality) is node:
                    self._parameters.setVolume(modality, None)
                    self._chosen.discard(modality)
        self.show()

    def release(self) -> None:
        """For the end of the widget: its selectors live on for a while, hidden, and are not listened to any more."""
        self._parameters = None
        self._watch.watch([])

    def onGuess(self, checked=False):
        """What was left empty by hand may be filled now, and what was guessed is guessed anew."""
        self._chosen = {modality for modality in self._chosen if self._parameters.volume(modality) is not None}
        self.guess(anew=True)

    def guess(self, anew: bool = False) -> None:
        """Fills the selectors that are empty; with `anew` also those that were guessed. What somebody chose stays."""
        if self._parameters is None:
            return
        volumes = self._parameters.volumes()
        if anew:
            volumes = {name: node if name in self._chosen else None for name, node in volumes.items()}
        known = {name: node for name, node in volumes.items() if node is not None}
        free = [name for name in MODALITIES if name not in known and name not in self._chosen]
        try:
            guesses = guessModalities(fixed=known) if free else {}
        except InputError:  # the engine's files are missing, and its rules with them; Setup says so
            guesses = {}
        with self._parameters.together():
            for modality in free:
                if modality in guesses:
                    self._guesses[modality] = guesses[modality]
                    self._parameters.setVolume(modality, guesses[modality].node)
        self.show()

    def check(self) -> None:
        """Looks at the volumes themselves; takes a moment, so it is called when the user has paused."""
        if self._parameters is None:
            return
        volumes = self._parameters.volumes()
        self._watch.watch([node for node in volumes.values() if node is not None])
        self.problems = checkVolumes(volumes, prepare=self._parameters.prepare, incomplete=self._incomplete())
        blocked = any(problem.blocking for problem in self.problems)
        notes = [problem.text for problem in self.problems if not problem.blocking]
        notes += self._guessNotes(volumes)
        if not blocked:
            try:
                notes += swapWarnings(volumes)
            except InputError as error:
                notes.append(str(error))
        self.notes = notes
        self._ui.warningsLabel.setText("\n".join(f"\u26a0 {note}" for note in notes))
        paint(self._ui.warningsLabel, "doubtful")
        self._ui.warningsLabel.setVisible(bool(notes))
        given = {name: node for name, node in volumes.items() if node is not None}
        self._showPreparation(given, blocked)
        for modality in MODALITIES:
            self._showHint(modality, volumes[modality])
        self._absent = [modality for modality, node in volumes.items() if node is None]
        self._undecided = undecidedVolumes(volumes) if self._absent else []
        self.isRaw = not blocked and self._parameters.prepare == "auto" and bool(offGrid(given))
        showThumbnails(self._ui.thumbnailsLabel, self._undecided)
        self._changed()

    @property
    def reason(self) -> str:
        """Why these volumes cannot be segmented; "" where they can."""
        if self.problems is None:
            return _("Checking the volumes...")
        missing = [problem for problem in self.problems if problem.kind == "missing"]
        if missing and self._undecided:
            names = ", ".join(node.GetName() for node in self._undecided[:MOST_NAMES])
            one = _("Choose {modalities} above. It could be {volumes}; the names do not tell.")
            if len(self._undecided) > 1:
                one = _("Choose {modalities} above. It could be one of {volumes}; the names do not tell.")
            several = _("Choose {modalities} above. They could be among {volumes}; the names do not tell.")
            return (one if len(self._absent) == 1 else several).format(modalities=listed(self._absent), volumes=names)
        if len(missing) == len(MODALITIES):
            return _("Load the four MRI volumes T1, T1c, T2 and FLAIR of a patient, or a sample case.")
        return "\n".join(problem.text for problem in self.problems if problem.blocking)

    def _guessNotes(self, volumes: dict) -> list[str]:
        found = [
            name
            for name, guess in self._guesses.items()
            if guess.isByIntensity and name not in self._chosen and guess.node is volumes[name]
        ]
        text = _("{modalities}: selected by intensities alone. Check that each volume is what it is taken for.")
        return [text.format(modalities=listed(found))] if found else []

    def _showPreparation(self, volumes: dict, blocked: bool) -> None:
        """What will be done to the volumes or, where that is known, what was done."""
        label = self._ui.prepareLabel
        lines = []
        facts = []
        isDone = False
        if not blocked:
            lines, facts = preparation(volumes, self._parameters.prepare), describeVolumes(volumes)
            isDone = bool(self._done[1]) and self._done[0] == {name: momentOf(node) for name, node in volumes.items()}
            if isDone:
                lines = [_("Done: {step}").format(step=line) for line in self._done[1]]
        label.setText("\n".join(lines))
        label.setToolTip("\n".join(facts))
        label.setVisible(bool(lines))
        self._showComparing(isDone)

    def _showComparing(self, isDone: bool) -> None:
        """The button, where there is something to compare; what was shown of other volumes goes."""
        button, following = self._ui.compareButton, self._nextToCompare()
        button.setVisible(isDone and bool(self._moves))
        if not isDone:
            self.endComparing()
        elif following:
            text = _("Show {modality} as registered over {reference}")
            button.setText(text.format(modality=TITLES[following], reference=self._referenceTitle()))
        else:
            button.setText(_("Show {reference} alone").format(reference=self._referenceTitle()))

    def _referenceTitle(self) -> str:
        return TITLES[referenceOf(self._parameters.volumes())]

    def _nextToCompare(self) -> str:
        """The modality after the one that is shown; "" after the last one."""
        names = ["", *self._moves, ""]
        return names[names.index(self._compared[0]) + 1] if self._compared[0] in names else ""

    def _showHint(self, modality: str, node) -> None:
        label, guess = getattr(self._ui, f"{modality}Hint"), self._guesses.get(modality)
        if node is None or guess is None or guess.node is not node or modality in self._chosen:
            label.setText("")
            label.setToolTip("")
            return
        isClear, percent = guess.confidence >= CLEAR, round(100 * guess.confidence)
        label.setText(f"{percent} %")
        paint(label, "good" if isClear else "doubtful")
        label.setToolTip(_("{percent} % confidence: {reason}").format(percent=percent, reason=guess.reason))

    def _chooser(self, modality: str):
        def onChosen(node=None):
            self.onVolumeChosen(modality)

        return onChosen

    def _selector(self, modality: str):
        return getattr(self._ui, f"{modality}Selector")
