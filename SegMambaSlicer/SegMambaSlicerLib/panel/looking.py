"""The button "Look closer" of the Prepare row: what the engine sees in the volumes, and what it will do to them."""

from __future__ import annotations

import html
import shutil

import slicer

from ..engine.client import asEngineError
from ..errors import InputError
from ..i18n import _
from ..volumes.checks import referenceOf
from ..volumes.scene import exportCase, momentOf
from ..volumes.temporary import temporaryFolder
from .colors import painted
from .widgets import allow


class LookingPanel:
    """start: Session.command; said: called for the warnings that stand above already.

    What was seen is shown until the volumes are others; then it is dropped.

    Nothing here changes the scene; the files are written into a temporary folder, which is removed at the end.
    """

    def __init__(self, ui, start, said):
        self._ui = ui
        self._start = start
        self._said = said
        self._volumes = {}
        self._reason = ""
        self._prepare = "auto"
        self._command = self._folder = None
        self._of: tuple = ()  # the volumes that are looked at, or were
        ui.inspectButton.clicked.connect(self.onLook)
        self._say("")

    def showState(self, volumes: dict, prepare: str, reason: str) -> None:
        """volumes: modality -> node or None, as they are chosen now, and how they are to be prepared.

        reason: why they cannot be looked at, or "".
        """
        self._volumes = {modality: node for modality, node in volumes.items() if node is not None}
        self._reason, self._prepare = reason, prepare
        if self._of and self._of != self._now():
            self._stop(_("The volumes have changed. Look again.") if self._volumes else "")
        self._allow()

    def onLook(self, checked=False):
        if self._command is not None or self._reason or not self._volumes:
            return
        self._of = self._now()
        self._say(_("Checking the volumes..."))
        try:
            self._folder = temporaryFolder()
            files = exportCase(self._volumes, self._folder, referenceOf(self._volumes), ownGrids=True)
            named = [part for modality, path in files.items() for part in (f"--{modality}", str(path))]
            folder = self._folder  # what is heard of another look, that was stopped, is not listened to
            self._command = self._start(
                ["look", "--json", *named],
                lambda answer: self._handleAnswer(folder, self._show, answer),
                lambda error: self._handleAnswer(folder, self._fail, error),
            )
        except Exception as error:  # whatever it is, it may not leave the panel as if it was looking
            self._end()
            self._fail(asEngineError(error))
        self._allow()

    def drop(self) -> None:
        """The scene is closed: what is under way ends, and what was seen goes."""
        self._stop("")
        self._volumes = {}
        self._allow()

    def release(self) -> None:
        """For the end of the widget."""
        self._end()
        self._volumes = {}

    def _handleAnswer(self, folder, function, answer) -> None:
        if folder is not self._folder:
            return
        self._end()
        if self._of and self._of == self._now():
            function(answer)
        else:
            self._stop(_("The volumes have changed. Look again."))
        self._allow()

    def _show(self, answer) -> None:
        try:
            lines = [
                _("<b>{title}</b> ({name}): {text}").format(
                    title=html.escape(volume["title"]),
                    name=html.escape(self._volumes[volume["modality"]].GetName()),
                    text=html.escape(volume["text"]),
                )
                for volume in answer["volumes"]
            ]
            notes = [f"{v['title']}: {note}" for v in answer["volumes"] for note in v["notes"]]
            will = answer["will"] if self._prepare == "auto" else [_("Nothing will be done: Prepare is set to Never.")]
            lines += [html.escape(line) for line in (*notes, answer["left_right"], *will)]
            label, said = self._ui.inspectLabel, self._said()
            lines += [painted(f"\u26a0 {line}", "doubtful", label) for line in answer["warnings"] if line not in said]
        except (KeyError, TypeError):
            self._fail(_("The engine's answer was not understood. Engine and module may be of different versions."))
            return
        self._say("<br>".join(lines))

    def _fail(self, error) -> None:
        text = _("The volumes could not be looked at: {reason}").format(reason=error)
        self._say(painted(text, "wrong", self._ui.inspectLabel))

    def _stop(self, why: str) -> None:
        self._end()
        self._of = ()
        self._say(html.escape(why))

    def _end(self) -> None:
        """Ends the command, if it is still under way, and removes its files."""
        command, self._command = self._command, None
        if command is not None and not command.isDone:
            command.cancel()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _allow(self) -> None:
        busy = self._command is not None
        text = _("Examines the voxels: skull, thick slices, unusual values, swapped volumes; and what will be done.")
        reason = _("In progress.") if busy else self._reason or _("Choose the volumes first.")
        allow(self._ui.inspectButton, not busy and not self._reason and bool(self._volumes), text, reason)

    def _now(self) -> tuple:
        """What is looked at: volumes, where they stand, their voxels' time; () where one is under a warp or gone."""
        found = [self._prepare]
        for modality, node in self._volumes.items():
            if node.GetImageData() is None or slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
                return ()
            try:
                found.append((modality, momentOf(node)))
            except InputError:
                return ()
        return tuple(found)

    def _say(self, text: str) -> None:
        self._ui.inspectLabel.setText(text)
        self._ui.inspectLabel.setVisible(bool(text))
