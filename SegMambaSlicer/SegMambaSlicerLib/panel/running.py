"""Model, quality and device, the button that starts, and what is seen of a run until its end."""

from __future__ import annotations

from ..errors import InputError
from ..i18n import _
from ..learning.verdicts import plainName
from ..parameters import QUALITIES
from ..volumes.incomplete import knownIncomplete
from .colors import paint
from .widgets import allow, fillCombo

SITE = "site"  # in the parameter node: the model that is in use at the site when the button is pressed


def timeText(seconds) -> str:
    """About how long, as in "40 s", "2 min 40 s" or "12 min"; "" for what is not known."""
    if seconds is None:
        return ""
    count = max(1, round(float(seconds)))
    if count < 90:
        return _("{count} s").format(count=count)
    if count < 300:
        return _("{minutes} min {seconds} s").format(minutes=count // 60, seconds=count % 60)
    return _("{count} min").format(count=round(count / 60))


class RunPanel:
    """start, cancel: called when the buttons are pressed. `machine` is the worker's answer to hello, or None.

    watch: a SiteWatch. Where the site has a model in use it is the first choice.
    """

    def __init__(self, ui, start, cancel, watch):
        self._ui, self._watch = ui, watch
        self._parameters = None
        self._filling = False
        self._isRaw = False
        self._incomplete: dict = {}
        self.isWaitingForSite = False  # to know what the chosen model does without
        self.machine: dict | None = None
        ui.modelCombo.currentIndexChanged.connect(self.onModel)
        ui.qualityCombo.currentIndexChanged.connect(self.onQuality)
        ui.deviceCombo.currentIndexChanged.connect(self.onDevice)
        ui.postprocessBox.clicked.connect(self.onPostprocess)
        ui.applyButton.clicked.connect(start)
        ui.cancelButton.clicked.connect(cancel)
        watch.onChange.append(self.show)
        self.showIdle()

    def setParameters(self, parameters) -> None:
        self._parameters = parameters
        self.show()

    def release(self) -> None:
        """For the end of the widget: what its widgets say is not listened to any more."""
        self._parameters = None

    def setMachine(self, machine: dict | None) -> None:
        """What the worker says of this machine: fills the choices and the expected times."""
        self.machine = machine
        self.show()

    def show(self) -> None:
        """From the parameter node to the widgets."""
        if self._parameters is None:
            return
        machine = self.machine or {}
        models = [model for model in machine.get("models", []) if not model.get("problem")]
        wanted = self._parameters.get("Model")
        choices = [(model.get("title") or model["name"], model["name"]) for model in models]
        if not choices:  # the worker has not answered yet
            choices = [(wanted, wanted) if wanted not in ("", SITE) else (_("Default"), "")]
        self._fill(self._ui.modelCombo, [*self._siteChoice(), *choices], wanted)
        broken = [f"{model['name']}: {model['problem']}" for model in machine.get("models", []) if model.get("problem")]
        self._ui.modelCombo.setToolTip("\n".join([_("The model that segments the tumor."), *broken]))
        devices = [(self._deviceTitle(device), device["name"]) for device in machine.get("devices", [])]
        devices = [(_("Automatic"), "auto"), *devices]
        wanted = self._parameters.get("Device")
        if not machine.get("complete") and wanted not in [name for _title, name in devices]:
            devices.append((wanted, wanted))  # the worker has not answered yet, or does not know all of them
        self._fill(self._ui.deviceCombo, devices, wanted)
        chosen = self._parameters.mirrorings
        names = {chosen: _("{count} mirrorings").format(count=chosen)}  # as a scene from Python may have it
        names |= zip(QUALITIES, (_("Fast"), _("Standard"), _("Best")))
        expected = self._expected()
        qualities = []
        for mirrorings, name in sorted(names.items()):
            about = timeText(expected.get(str(mirrorings)))
            qualities.append((_("{name} (about {time})").format(name=name, time=about) if about else name, mirrorings))
        self._fill(self._ui.qualityCombo, qualities, chosen)
        self._ui.postprocessBox.setChecked(self._parameters.postprocess == "auto")

    def onModel(self, index=0):
        self._keep("Model", self._ui.modelCombo)

    def onQuality(self, index=0):
        self._keep("Mirrorings", self._ui.qualityCombo)

    def onDevice(self, index=0):
        self._keep("Device", self._ui.deviceCombo)

    def _keep(self, name: str, combo) -> None:
        """What was chosen, and that alone: the others may show what there is instead of what is wanted."""
        value = combo.itemData(combo.currentIndex)
        if not self._filling and self._parameters is not None:
            self._parameters.set(name, "" if value is None else value)

    def onPostprocess(self, checked=False):
        if self._parameters is not None:
            self._parameters.set("Postprocess", "auto" if self._ui.postprocessBox.isChecked() else "never")

    def device(self) -> str:
        """The chosen one; "auto" in place of one that this machine has not."""
        return self._ui.deviceCombo.itemData(self._ui.deviceCombo.currentIndex) or "auto"

    def model(self) -> str:
        """Name or folder of the chosen model; of the one in use at the site what its registry says at this moment.

        Raises InputError where the site is out of reach: another model is taken by nobody but the user.
        """
        chosen = self._chosenModel()
        if chosen != SITE:
            return chosen
        folder = self._watch.site.championFolder()
        if folder is None:
            text = _("No model is in use at {folder} yet. Choose another one.")
            raise InputError(text.format(folder=self._watch.site.path))
        known = self._watch.models or {}
        if known.get("champion") == folder.name and known.get("folder"):
            return str(known["folder"])  # the engine passes over a damaged one
        return str(folder)

    def incomplete(self) -> dict:
        """What the chosen model does without (see incomplete.knownIncomplete).

        While the site does not tell it is what was last known.
        """
        self.isWaitingForSite = self._chosenModel() == SITE and self._watch.isSilent
        if not self.isWaitingForSite:
            try:
                self._incomplete = knownIncomplete(self.model())
            except InputError:  # the site is out of reach; it is said where the model is chosen
                self._incomplete = {}
        return self._incomplete

    def showState(self, reason: str, isBusy: bool, isRaw: bool = False) -> None:
        """Why the button cannot be pressed or, where it can, with what and how long it will take.

        isRaw: whether the volumes have to be registered first.
        """
        ui, self._isRaw = self._ui, isRaw
        self.show()
        text = _("Segment the tumor in these volumes (Ctrl+Return).")
        allow(ui.applyButton, not reason and not isBusy, text, _("In progress.") if isBusy else reason)
        ui.stateLabel.setText(reason or self._readyText())
        ui.stateLabel.setVisible(not isBusy)

    def showProgress(self, event: dict) -> None:
        ui = self._ui
        ui.progressBar.setValue(round(1000 * float(event.get("fraction") or 0)))
        left = timeText(event.get("seconds_left"))
        text = str(event.get("text") or event.get("stage") or "")
        ui.progressLabel.setText(_("{stage}, about {time} left").format(stage=text, time=left) if left else text)

    def showBusy(self, text: str) -> None:
        ui = self._ui
        ui.progressBar.setValue(0)
        ui.progressLabel.setText(text)
        paint(ui.progressLabel)
        ui.cancelButton.setEnabled(True)
        for widget in (ui.progressBar, ui.cancelButton, ui.progressLabel):
            widget.setVisible(True)
        self._allowChoices(False)

    def showStage(self, text: str) -> None:
        self._ui.progressLabel.setText(text)

    def showCancelling(self) -> None:
        self._ui.cancelButton.setEnabled(False)
        self._ui.progressLabel.setText(_("Cancelling..."))

    def showIdle(self, text: str = "", failed: bool = False) -> None:
        """The end of a run, with what became of it."""
        ui = self._ui
        ui.progressBar.setVisible(False)
        ui.cancelButton.setVisible(False)
        ui.progressLabel.setText(text)
        paint(ui.progressLabel, "wrong" if failed else "")
        ui.progressLabel.setVisible(bool(text))
        self._allowChoices(True)

    def _allowChoices(self, allowed: bool) -> None:
        for widget in (self._ui.modelCombo, self._ui.qualityCombo, self._ui.deviceCombo, self._ui.postprocessBox):
            widget.setEnabled(allowed)

    def _chosenModel(self) -> str:
        """Its name, SITE, or "" for the first there is."""
        combo = self._ui.modelCombo
        return combo.itemData(combo.currentIndex) or ""

    def _siteChoice(self) -> list[tuple[str, str]]:
        if self._watch.site.reason:
            return []
        models = self._watch.models
        if models is None:
            return [(_("In use here: not known yet"), SITE)]
        if not models.get("champion"):
            return []
        return [(_("In use here: {name}").format(name=plainName(models["champion"])), SITE)]

    def _readyText(self) -> str:
        if self.machine is None or self._parameters is None:
            return _("Ready.")
        model, where = self._ui.modelCombo.currentText, _("on this computer")
        if self._chosenModel() == SITE:
            model = plainName(str((self._watch.models or {}).get("champion") or model))
        if self._device().get("name", "cpu") != "cpu":
            where = _("on the graphics card")
        about = timeText(self._expected().get(str(self._parameters.mirrorings)))
        if not about:
            return _("Ready: {model}.").format(model=model)
        if self._isRaw:
            text = _("Ready: {model}, about {time} {where}, registration included.")
        else:
            text = _("Ready: {model}, about {time} {where}.")
        return text.format(model=model, time=about, where=where)

    def _device(self) -> dict:
        """What the worker says of the chosen device, or of the one that it would choose itself; {} where unknown."""
        devices, wanted = (self.machine or {}).get("devices") or [], self._parameters.get("Device")
        named = {device["name"]: device for device in devices}
        first = next((name for name in named if name.startswith("cuda")), "cpu")
        return named.get(wanted) or named.get(first) or {}

    def _expected(self) -> dict:
        """Seconds for each number of mirrorings with the chosen model on the chosen device, for these volumes."""
        machine, device = self.machine or {}, self._device()
        chosen = self._parameters.get("Model")
        model = next((entry for entry in machine.get("models", []) if entry["name"] == chosen), {})
        known = (model.get("expected_seconds") or {}).get(device.get("name")) or device.get("expected_seconds") or {}
        before = float(machine.get("prepare_seconds") or 0) if self._isRaw else 0.0
        return {mirrorings: seconds + before for mirrorings, seconds in known.items()}

    def _deviceTitle(self, device: dict) -> str:
        title, free = device.get("title") or device["name"], device.get("free_bytes")
        if not free:
            return title
        return _("{device} ({free} GB free)").format(device=title, free=f"{free / 1e9:.1f}")

    def _fill(self, combo, choices, wanted) -> None:
        self._filling = True
        try:
            fillCombo(combo, choices, wanted)
        finally:
            self._filling = False
