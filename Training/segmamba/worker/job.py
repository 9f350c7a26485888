"""One request to segment a case: its state, shared between threads, and the work."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from segmamba.errors import Cancelled, InputError
from segmamba.worker.channel import Channel
from segmamba.worker.facts import find_facts, read_facts
from segmamba.worker.failures import ModelError, describe
from segmamba.worker.requests import Segment
from segmamba.worker.timing import Estimate, Record

if TYPE_CHECKING:
    from segmamba.models.package import Model
    from segmamba.prediction.options import PredictOptions

log = logging.getLogger(__name__)

_PART, _REPLACED = ".segmamba-part-", ".segmamba-replaced-"
_CASE = "case"
_READ_SECONDS = 0.5  # four images, uncompressed, on a local disk
_LOOK_SECONDS = 2.0  # to find out whether they need to be prepared
_GRID_MM = 1e-2  # in which grids may differ; files hold float32
# stages of segmamba.prediction.predict -> stages of the protocol, and what they are called
_STAGES = {
    "read": ("load", "Reading the images"),
    "check": ("prepare", "Looking at what the images need"),
    "prepare": ("prepare", "Registering the images and finding the brain where it is needed"),
    "preprocess": ("preprocess", "Preparing the images"),
    "network": ("inference", "Running the network"),
    "restore": ("postprocess", "Bringing the result back to the images' grid"),
    "write": ("write", "Writing the results"),
}


class Job:
    """What a request is doing. It is answered once, whoever answers first."""

    def __init__(self, request: Segment, channel: Channel):
        self.request = request
        self.part = request.output / f"{_PART}{secrets.token_hex(4)}"
        self.cancelled_at: float | None = None
        self.text = "Waiting"
        self.estimate: Estimate | None = None
        self.answered = False
        self.writing = False
        self._committed = False
        self._channel = channel
        self._lock = threading.RLock()

    @property
    def id(self) -> str:
        """The id of the request."""
        return self.request.id

    def cancel(self) -> bool:
        """Whether it comes in time."""
        with self._lock:
            if self.answered or self._committed:
                return False
            self.cancelled_at = self.cancelled_at or time.monotonic()
            return True

    def is_cancelled(self) -> bool:
        """Whether the client has asked for an end."""
        return self.cancelled_at is not None

    def go_on(self) -> None:
        """Lets the work go on unless it was cancelled. Raises Cancelled."""
        if self.is_cancelled():
            raise Cancelled

    def begin_writing(self) -> None:
        """From here on there may be files, so that only the work itself can answer. Raises Cancelled."""
        with self._lock:
            self.go_on()
            self.writing = True

    def commit(self) -> None:
        """From here on it is too late to cancel. Raises Cancelled."""
        with self._lock:
            self.go_on()
            self._committed = True

    def succeed(self, **values: object) -> None:
        """Sends the result, unless the request was answered already."""
        with self._lock:
            if not self.answered:
                self.answered = True
                self._channel.send("progress", self.id, stage="write", text="Done", fraction=1.0, seconds_left=0)
                self._channel.send("result", self.id, **values)

    def fail(self, error: BaseException) -> None:
        """Sends the error, unless the request was answered already."""
        with self._lock:
            if not self.answered:
                self.answered = True
                kind, message, detail = describe(error)
                clean = self._channel.clean
                self._channel.send("error", self.id, kind=kind, message=clean(message), detail=clean(detail))

    def give_up_waiting(self, after: float) -> None:
        """Answers for work that takes more than `after` seconds to notice that it was cancelled and has no files."""
        with self._lock:
            if self.cancelled_at and not self.writing and time.monotonic() - self.cancelled_at > after:
                self.fail(Cancelled())

    def report_progress(self) -> None:
        """Sends where it stands."""
        with self._lock:
            if self.estimate is None or self.answered or self.is_cancelled():
                return
            fraction, left = self.estimate.now()
            left = None if left is None else round(left, 1)
            stage = self.estimate.stage
            self._channel.send(
                "progress", self.id, stage=stage, text=self.text, fraction=round(fraction, 4), seconds_left=left
            )


class Shelf:
    """The model that was used last, loaded."""

    def __init__(self) -> None:
        self._key: list | None = None
        self._model: Model | None = None

    @property
    def has_model(self) -> bool:
        """Whether a model is loaded."""
        return self._model is not None

    def clear(self) -> None:
        """The next request loads its model anew: nobody knows what the last one left of this one."""
        self._key = self._model = None

    def get(self, name: str) -> Model:
        """The model by its name or folder, loaded or kept. Raises ModelError."""
        from segmamba.models.package import MANIFEST, WEIGHTS, find_model, load_package

        try:
            folder = find_model(name)
            key = [(folder / file, (folder / file).stat().st_mtime_ns) for file in (MANIFEST, WEIGHTS)]
            if self._model is not None and key == self._key:
                log.info("model %s is loaded already", self._model.manifest.id)
                return self._model
            self._key = self._model = None  # not two of them in memory
            self._model = load_package(folder)
        except (InputError, OSError, ValueError) as error:
            raise ModelError(f"{error}; choose another model, or fetch this one again") from error
        self._key = key
        log.info("model %s was loaded", self._model.manifest.id)
        return self._model


def run(job: Job, shelf: Shelf, record: Record, changed: Callable[[], None]) -> None:
    """Does the work of a request, and answers it. No error leaves it.

    Args:
        job: the request, with its channel.
        shelf: the models that stay loaded; emptied where an error nobody expected may have left one broken.
        record: how long earlier runs took, to which this one is added.
        changed: called when there is something new to tell.
    """
    try:
        job.go_on()
        values = _segment(job, shelf, record, changed)
    except BaseException as error:
        if not isinstance(error, Cancelled | InputError):
            shelf.clear()
        remove_files(job)  # before the answer: who has it finds the folder as it was
        job.fail(error)
    else:
        remove_files(job)
        job.succeed(**values)


def remove_files(job: Job) -> None:
    """What is half-written; nothing where all went well."""
    shutil.rmtree(job.part, ignore_errors=True)


def _segment(job: Job, shelf: Shelf, record: Record, changed: Callable[[], None]) -> dict:
    request = job.request
    _check_output(request.output)
    job.text = "Loading the libraries and the model"
    cold = not shelf.has_model
    expected, measured = record.expect(find_facts(request.model), _guess_device(request.device), request.mirrorings)
    look = {"prepare": _LOOK_SECONDS if request.prepare == "auto" else 0.0}
    if request.prepare == "auto" and _are_apart(list(request.images.values())):
        look = {"prepare": record.preparation()}
    expected = {**expected, **look} if cold else {**expected, **look, "load": _READ_SECONDS}
    estimate = job.estimate = Estimate(expected, measured=measured)
    changed()

    from segmamba.cases.case import Source
    from segmamba.prediction.devices import choose_device, empty_cache
    from segmamba.prediction.predict import PredictOptions, predict_case

    model = shelf.get(request.model)
    device = choose_device(request.device)
    device = "cuda:0" if device == "cuda" else device  # as the record of times knows it
    manifest = read_facts(model.folder)
    expected, measured = record.expect(manifest, device, request.mirrorings)
    estimate.expect({**expected, **look, "load": estimate.elapsed() + _READ_SECONDS}, measured)

    def progress(stage: str, fraction: float) -> None:
        job.go_on()
        name, job.text = _STAGES[stage]
        if name == "write" and not job.writing:
            job.begin_writing()
        estimate.enter(name)
        if stage in ("prepare", "network"):
            estimate.report(fraction)
        changed()

    options = PredictOptions(
        device=device,
        mirrorings=request.mirrorings,
        probabilities=request.probabilities,
        uncertainty=True,
        compressed=False,
        postprocess=request.postprocess,
        left_out=request.left_out,
        prepare=request.prepare,
        brain_mask=request.brain_mask,
    )
    _refuse_others(request, options)
    sources = {modality: Source(path) for modality, path in request.images.items()}
    try:
        summary = predict_case(model, sources, job.part, _CASE, options, progress, job.is_cancelled)
    finally:
        empty_cache(device)
    files = _publish(job, summary["files"])
    seconds = estimate.finish()
    if summary["device"] in (device, device.partition(":")[0]):  # else memory was short, and it went on elsewhere
        prepared = any(not step.get("left_alone") for step in summary["steps"])
        record.add(manifest["id"], device, seconds, summary["passes"], request.mirrorings, cold, prepared)
    return _answer(model, summary, files, seconds, request.mirrorings)


def _answer(
    model: Model, summary: dict, files: Mapping[str, str], seconds: Mapping[str, float], mirrorings: int
) -> dict:
    """The keys of a result, as PROTOCOL.md has them."""
    from segmamba.prediction.result import find_warnings

    left_out = summary["left_out"]
    return {
        "label_map": files["label_map"],
        "uncertainty": files["uncertainty"],
        "probabilities": files.get("probabilities"),
        "summary": files["summary"],
        "volumes_ml": summary["volumes_ml"],
        "regions": {name: list(labels) for name, labels in model.manifest.regions.items()},
        "labels": model.manifest.label_map,
        "seconds": {**{stage: round(s, 2) for stage, s in seconds.items()}, "total": round(sum(seconds.values()), 2)},
        "model": summary["model"],
        "device": summary["device"],
        "precision": summary["precision"],
        "scan_backend": summary["scan_backend"],
        "mirrorings": mirrorings,
        "unsure": summary["unsure"],
        "steps": summary["steps"],
        "left_out": {**left_out, "file": files.get("left_out")} if left_out else None,
        "warnings": find_warnings(summary),
    }


def _publish(job: Job, names: dict[str, str]) -> dict[str, str]:
    """Renames the finished files into the output folder, all or none -> their paths.

    What they replace waits in a folder of its own until all are there; where not even that can be put back, it stays.
    """
    job.commit()
    output = job.request.output
    replaced = output / f"{_REPLACED}{secrets.token_hex(4)}"
    old = [name for name in names.values() if (output / name).is_file()]
    renames = [(output / name, replaced / name) for name in old]
    renames += [(job.part / name, output / name) for name in names.values()]
    if old:
        replaced.mkdir()
    done = []
    try:
        for source, target in renames:
            source.replace(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            with contextlib.suppress(OSError):
                target.replace(source)
        with contextlib.suppress(OSError):  # where something is still in it
            replaced.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    return {kind: str(output / name) for kind, name in names.items()}


def _refuse_others(request: Segment, options: PredictOptions) -> None:
    """Raises InputError where the output folder holds what may not be written over (prediction.result)."""
    from segmamba.cases.case import Source
    from segmamba.prediction.options import digest_images, output_files
    from segmamba.prediction.result import check_place

    files = output_files(request.output, _CASE, options)
    if any(path.exists() for path in files.values()):  # mostly none is, and the images are not read for it
        check_place(files, digest_images({modality: Source(path) for modality, path in request.images.items()}))


def _are_apart(paths: list[Path]) -> bool:
    """Whether images lie on different grids, so that they will be registered; False where their headers do not tell."""
    import numpy as np
    from nibabel import loadsave
    from nibabel.spatialimages import SpatialImage

    try:
        first, *others = (cast(SpatialImage, loadsave.load(path)) for path in paths)
    except Exception:  # no library promises which errors a file brings out of it; reading it says what is wrong
        return False
    place = np.asarray(first.affine)
    return any(o.shape != first.shape or not np.allclose(np.asarray(o.affine), place, atol=_GRID_MM) for o in others)


def _check_output(folder: Path) -> None:
    """Raises InputError and OSError early: before minutes of work, not after."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such output folder; create it first")
    for left in folder.glob(f"{_PART}*"):  # of a worker that was killed
        shutil.rmtree(left, ignore_errors=True)
    trial = folder / f"{_PART}trial"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(folder)) from None


def _guess_device(name: str) -> str:
    return "cpu" if name == "auto" else "cuda:0" if name == "cuda" else name
