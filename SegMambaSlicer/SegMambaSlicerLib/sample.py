"""Sample cases made on the spot by the engine: real anatomy (MNI152), a synthetic tumour, nothing of a patient.

Two kinds: prepared as published data sets are, and raw as from a scanner, to show what preparation does. No download.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import qt
import slicer

from .engine.childprocess import ChildProcess
from .engine.client import EngineError, explain
from .engine.interpreter import findInterpreter, trainingFolder
from .errors import InputError
from .i18n import _
from .volumes.modalities import MODALITIES
from .volumes.temporary import temporaryFolder

SEED = 20_403  # an enhancing tumor; far from the seeds of the phantoms that models were trained with
SPACING = 1.0  # mm
RAW_SPACING = 1.5  # of what the scanner sees: a head around the brain takes its time
_SINGLE_FILE = 4  # of AddArchetypeVolume's options; 2 would move the image to the origin
NAME, RAW_NAME = "BrainTumorPhantom", "BrainTumorPhantomRaw"


class SampleMaker:
    """A child process that makes the case; `poll` until it is True, then `load`.

    Raises EngineError where nothing starts, InputError without a Python or a temporary folder.
    """

    def __init__(self, raw: bool = False, seed: int = SEED, interpreter=findInterpreter):
        python = interpreter()
        self._raw = raw
        self._folder: Path | None = temporaryFolder()
        arguments = ["-m", "segmamba", "phantom", "--output", str(self._folder), "--seed", str(seed)]
        arguments += ["--spacing", str(RAW_SPACING), "--raw"] if raw else ["--spacing", str(SPACING)]
        try:
            self._process = ChildProcess(
                [python.path, *arguments],
                python.environment,
                str(trainingFolder()),
            )
        except (OSError, InputError) as error:
            self._clean()
            raise EngineError("start", _("The engine did not start: {reason}").format(reason=error)) from error

    def poll(self) -> bool:
        """Takes what the process has written, so that it never waits for us; True when it has ended."""
        self._process.lines()
        return self._process.hasEnded()

    def cancel(self) -> None:
        self._process.kill()
        self._clean()

    def load(self) -> dict:
        """The four volumes in the scene (modality -> node). Raises EngineError if the case was not made."""
        try:
            if self._process.exitCode() != 0:
                tail = [line for line in self._process.tail if line.strip()]
                text = explain(tail) or (tail[-1] if tail else _("no reason was given"))
                text = _("The sample was not made: {reason}").format(reason=text)
                raise EngineError("internal", text, "\n".join(tail))
            case = next(path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith("."))
            return loadCase(case, RAW_NAME if self._raw else NAME)
        finally:
            self._process.kill()
            self._clean()

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def loadCase(folder: Path, name: str = NAME) -> dict:
    """Loads the four images of a case folder (BraTS names) into the scene: modality -> node."""
    logic = slicer.modules.volumes.logic()
    nodes = {}
    for modality in MODALITIES:
        files = sorted(folder.glob(f"*{modality}.nii*"))
        if not files:
            raise InputError(_("{folder} has no image of {modality}.").format(folder=folder, modality=modality))
        nodes[modality] = logic.AddArchetypeVolume(str(files[0]), f"{name}-{modality}", _SINGLE_FILE)
        storage = nodes[modality].GetStorageNode()
        if storage is not None:  # the file is temporary; the volume is to be saved somewhere else
            slicer.mrmlScene.RemoveNode(storage)
    return nodes


def makeSample(raw: bool = False) -> dict:
    """The same, waiting for it; Slicer goes on drawing, and takes no clicks. Raises EngineError and InputError."""
    maker = SampleMaker(raw)
    while not maker.poll():
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)
        time.sleep(0.05)
    return maker.load()


def registerSampleData() -> None:
    """Offers both kinds in Slicer's module Sample Data, where that is there."""
    try:
        import SampleData
    except ImportError:
        return

    def download(source):
        # Sample Data calls this from a button and shows no error itself
        with slicer.util.tryWithErrorDisplay(_("The sample case was not made."), waitCursor=True):
            volumes = makeSample(raw=source.sampleName == RAW_NAME)
        slicer.util.setSliceViewerLayers(background=volumes["t1c"])
        if slicer.app.layoutManager() is not None:
            slicer.util.resetSliceViews()
        return list(volumes.values())

    icon = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "SegMambaSlicer.png"
    for name in (NAME, RAW_NAME):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=_("Brain tumor"),
            sampleName=name,
            customDownloader=download,
            thumbnailFileName=str(icon),
        )
