"""A sample case made on the spot by the engine: real anatomy (MNI152), a synthetic tumour, nothing of a patient.

It needs no download, but the Python package nilearn, which carries the anatomy.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import slicer

from .engine.childprocess import ChildProcess
from .engine.client import EngineError, explain
from .engine.interpreter import findInterpreter, trainingFolder
from .errors import InputError
from .i18n import _
from .volumes.modalities import MODALITIES
from .volumes.scene import temporaryFolder

SEED = 20_401  # far from the seeds of the phantoms that models were trained with
SPACING = 1.0  # mm
_SINGLE_FILE = 4  # of AddArchetypeVolume's options; 2 would move the image to the origin
NAME = "BrainTumorPhantom"


class SampleMaker:
    """A child process that makes the case; `poll` until it `isDone`, then `load`. Raises EngineError."""

    def __init__(self, seed: int = SEED, spacing: float | None = None, interpreter=findInterpreter):
        python = interpreter()
        self._folder: Path | None = temporaryFolder()
        arguments = ["-m", "segmamba", "phantom", "--output", str(self._folder), "--seed", str(seed)]
        try:
            self._process = ChildProcess(
                [python.path, *arguments, "--spacing", str(spacing or SPACING)],
                python.environment,
                str(trainingFolder()),
            )
        except OSError as error:
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
            return loadCase(case)
        finally:
            self._process.kill()
            self._clean()

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def loadCase(folder: Path) -> dict:
    """Loads the four images of a case folder (BraTS names) into the scene: modality -> node."""
    logic = slicer.modules.volumes.logic()
    nodes = {}
    for modality in MODALITIES:
        files = sorted(folder.glob(f"*{modality}.nii*"))
        if not files:
            raise InputError(_("{folder} has no image of {modality}.").format(folder=folder, modality=modality))
        nodes[modality] = logic.AddArchetypeVolume(str(files[0]), f"{NAME}-{modality}", _SINGLE_FILE)
        storage = nodes[modality].GetStorageNode()
        if storage is not None:  # the file is temporary; the volume is to be saved somewhere else
            slicer.mrmlScene.RemoveNode(storage)
    return nodes


def makeSample(**options) -> dict:
    """The same, waiting for it. Raises EngineError."""
    maker = SampleMaker(**options)
    while not maker.poll():
        time.sleep(0.05)
    return maker.load()


def registerSampleData() -> None:
    """Offers the phantom in Slicer's module Sample Data, where that is there."""
    try:
        import SampleData
    except ImportError:
        return

    def download(source):
        # Sample Data calls this from a button and shows no error itself
        with slicer.util.tryWithErrorDisplay(_("The sample case was not made."), waitCursor=True):
            volumes = makeSample()
        slicer.util.setSliceViewerLayers(background=volumes["t1c"])
        if slicer.app.layoutManager() is not None:
            slicer.util.resetSliceViews()
        return list(volumes.values())

    icon = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "SegMambaSlicer.png"
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("Brain tumor"),
        sampleName=NAME,
        customDownloader=download,
        thumbnailFileName=str(icon),
    )
