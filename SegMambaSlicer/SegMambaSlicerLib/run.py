"""One segmentation from the volumes in the scene to the segments in the scene, without waiting.

The scene is read at the start and written once at the end, when everything has arrived and been checked. A run that is
cancelled or fails leaves the scene as it was. What has arrived is read in steps, so that Slicer does not stand still.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import slicer

from .engine.client import Engine, EngineError, Request, asEngineError
from .errors import InputError
from .i18n import _
from .results import history
from .results.leftout import keepLeftOut
from .results.segments import checkMode, createSegmentation
from .results.uncertainty import addUncertainty, makeUncertainty
from .volumes.checks import PREPARE, PREPARED, checkVolumes, referenceOf
from .volumes.incomplete import knownIncomplete
from .volumes.modalities import MODALITIES
from .volumes.scene import Moment, exportCase, momentOf, putBeside, readLabelMap, readScalarMap
from .volumes.temporary import temporaryFolder


@dataclass(frozen=True)
class Options:
    """model: a name or folder ("" for the first there is). mirrorings: 0, 1, 3 or 7. mode: "labels" or "regions".

    prepare: "auto" registers volumes on other grids to T1c, and cuts out the brain where the skull is on; "never" takes
    them as they are. postprocess: "auto" leaves out what the model calls too small, "never" nothing.
    """

    model: str = ""
    mirrorings: int = 0
    device: str = "auto"
    mode: str = "labels"
    prepare: str = "auto"
    postprocess: str = "auto"


@dataclass(frozen=True)
class Result:
    """What a run made. volumes: modality -> what of; moments: the same -> as they were when the engine was given them;
    answer: the worker's result, among whose warnings is what was said of the volumes; seconds: from the click."""

    segmentation: object
    uncertainty: object | None
    volumes: dict
    moments: dict[str, Moment]
    answer: dict = field(repr=False)
    seconds: float = 0.0

    @property
    def warnings(self) -> list[str]:
        return list(self.answer.get("warnings") or [])

    @property
    def steps(self) -> list[dict]:
        """What was done to the volumes before they were segmented: "kind", "text", "seconds" ... (see the protocol)."""
        return list(self.answer.get("steps") or [])


class Run:
    """`start` it, poll its engine, and hear of it: onProgress(event), onDone(Result), onError(EngineError)."""

    def __init__(
        self,
        engine: Engine,
        volumes: dict,
        options: Options | None = None,
        previous=None,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Result], None] | None = None,
        onError: Callable[[EngineError], None] | None = None,
    ):
        self._engine = engine
        self._options = options or Options()
        self._previous = previous
        self._volumes = dict(volumes)
        self._notes: list[str] = []  # what is said of the volumes, and does not stand in the way
        self._moments: dict[str, Moment] = {}
        self._onProgress = onProgress
        self._onDone = onDone
        self._onError = onError
        self._request: Request | None = None
        self._steps: Iterator[None] | None = None  # from the engine's files into the scene
        self._folder = None
        self._started = time.monotonic()
        self.result: Result | None = None
        self.error: EngineError | None = None

    @property
    def isDone(self) -> bool:
        return self._steps is None and (self.result is not None or self.error is not None)

    def start(self) -> Run:
        """Checks and writes out the volumes and sends the request.

        Raises InputError where the volumes cannot be used or an option is unknown, EngineError where the engine does
        not start.
        """
        prepare = self._options.prepare
        if prepare not in PREPARE:
            text = _("prepare is {value}; expected {known}.")
            raise InputError(text.format(value=repr(prepare), known=_(" or ").join(map(repr, PREPARE))))
        checkMode(self._options.mode)
        *known, last = MODALITIES
        for name in self._volumes:
            if name not in MODALITIES:
                text = _("{name} is no modality; expected {known} or {last}.")
                raise InputError(text.format(name=name, known=", ".join(known), last=last))
        for node in filter(None, self._volumes.values()):
            if not _isInScene(node):
                text = _("{volume} is not in the scene. Add it first (slicer.mrmlScene.AddNode).")
                raise InputError(text.format(volume=node.GetName()))
        found = checkVolumes(self._volumes, prepare=prepare, incomplete=knownIncomplete(self._options.model))
        problems = [problem.text for problem in found if problem.blocking]
        if problems:
            raise InputError("\n".join(problems))
        # of a volume that is missing the engine speaks itself
        self._notes = [problem.text for problem in found if not problem.blocking and problem.kind != "incomplete"]
        given = {modality: self._volumes.get(modality) for modality in MODALITIES}
        self._volumes = {modality: node for modality, node in given.items() if node is not None}
        self._moments = {modality: momentOf(node) for modality, node in self._volumes.items()}
        self._folder = temporaryFolder()
        try:
            images = exportCase(self._volumes, self._folder, referenceOf(self._volumes), ownGrids=prepare == "auto")
            output = self._folder / "output"
            output.mkdir()
            options = {"mirrorings": self._options.mirrorings, "device": self._options.device, "prepare": prepare}
            options |= {"postprocess": self._options.postprocess, "left_out": True}
            if self._options.model:
                options["model"] = self._options.model
            self._request = self._engine.segment(
                images, str(output), self._arrived, self._failed, self._onProgress, **options
            )
        except BaseException:
            self._clean()
            raise
        return self

    def cancel(self) -> None:
        """The engine has stopped, or was ended, within 2 s; onError then gets kind "cancelled"."""
        if self.result is not None:
            self.advance()  # it is in the scene already
        elif self._steps is not None:
            self._steps = None
            self._failed(EngineError("cancelled", _("Cancelled.")))
        elif self._request is not None:
            self._engine.cancel(self._request)

    def wait(self) -> Result:
        """Blocks until the segments are there. Raises EngineError and InputError."""
        while not self.isDone:
            self._engine.poll()
            if not self.advance() and not self.isDone:
                time.sleep(0.02)
        if self.error is not None:
            raise self.error
        return self.result

    def _arrived(self, answer: dict) -> None:
        if self._request.killAt is not None:  # it was ready before it heard of the cancelling
            self._failed(EngineError("cancelled", _("Cancelled.")))
            return
        self._steps = self._intoScene(answer)

    def advance(self) -> bool:
        """One step of what is left to do after the engine's answer; whether there was one. Each takes a moment."""
        if self._steps is None:
            return False
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
            self._clean()
            if self._onDone:
                self._onDone(self.result)
        except Exception as error:  # whatever it is, it has to reach the user, not the timer
            self._steps = None
            self._failed(asEngineError(error))
        return True

    def _failed(self, error: EngineError) -> None:
        self._clean()
        self.error = error
        if self._onError:
            self._onError(error)

    def _intoScene(self, answer: dict) -> Iterator[None]:
        """Reads in steps, looks once more whether the scene is still the one, and writes all of it in one step."""
        answer = {**answer, "warnings": [*self._notes, *(answer.get("warnings") or [])]}
        reference = self._reference()
        labels = readLabelMap(answer["label_map"], reference)
        yield
        reference = self._reference()
        uncertainty = None
        if answer.get("uncertainty"):
            uncertainty = makeUncertainty(readScalarMap(answer["uncertainty"], reference), reference)
            yield
        reference = self._reference()
        found = answer.get("left_out") or {}
        leftOut = readLabelMap(found["file"], reference) if found.get("file") else None
        previous = self._previous
        if previous is not None and not _isInScene(previous):
            previous = None
        segmentation = createSegmentation(labels, reference, previous, self._options.mode)
        overlay = None if uncertainty is None else addUncertainty(uncertainty, reference, segmentation)
        for node in filter(None, (segmentation, overlay)):
            putBeside(node, reference)
        seconds = time.monotonic() - self._started
        history.keepOrigin(segmentation, self._volumes, answer, seconds)
        if leftOut is not None:
            keepLeftOut(segmentation, leftOut, found)
        result = Result(segmentation, overlay, dict(self._volumes), self._moments, answer, seconds)
        done = {str(step.get("kind")) for step in result.steps if not step.get("left_alone")}
        if done:
            segmentation.SetAttribute(PREPARED, " ".join(sorted(done)))
        self.result = result
        yield

    def _reference(self):
        """The volume on whose grid the result lies.

        Raises InputError where it is gone, or where the result is of other voxels than there are now. Volumes may have
        been moved: the result lies where the reference is, and whether its grid is still that is seen when it is read.
        """
        reference = self._volumes[referenceOf(self._volumes)]
        if not _isInScene(reference):
            raise InputError(_("The volumes are no longer in the scene; the result was dropped."))
        for modality, node in self._volumes.items():
            image = node.GetImageData()
            if image is None or image.GetMTime() != self._moments[modality].time:
                text = _("The voxels of {volume} have changed since; the result was dropped. Run it again.")
                raise InputError(text.format(volume=node.GetName()))
        return reference

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _isInScene(node) -> bool:
    return slicer.mrmlScene.GetNodeByID(node.GetID() or "") is node
