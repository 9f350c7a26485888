"""Validation of a network in training: whole held-out volumes, on the grids they were labelled on."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from segmamba.errors import Stopped
from segmamba.files.atomic import make_folder
from segmamba.models.package import load_package
from segmamba.models.specs import ModelSpecs, PreprocessSpec
from segmamba.training.distributed import World
from segmamba.training.samples import TrainingCase
from segmamba.training.stop_signals import StopRequests, ignore_stop_signals

if TYPE_CHECKING:
    from segmamba.prediction.preprocess import Prepared

log = logging.getLogger(__name__)


def validate(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    specs: ModelSpecs,
    world: World,
    mirrorings: int = 0,
    jobs: int = 0,
    stop: StopRequests | None = None,
) -> dict:
    """Dice and HD95 of whole held-out cases, the cases shared among processes.

    Args:
        network: left in the mode in which it came.
        cases: held-out ones.
        specs: what the network wants to see, how it is run, and what its answers mean.
        world: the processes of the training.
        mirrorings: extra passes with flipped axes.
        jobs: processes that read cases and score them while the network runs; 0: this process does it in between.
        stop: asks for an end between two cases; None: nobody does.

    Returns:
        {"mean": {region: {"dice", "hd95"}}, "cases": {id: ...}}, the same in every process.

    Raises:
        Stopped: in every process, where an end was asked for in any of them before its last case.
    """
    mine = cases[world.rank :: world.size]
    training = network.training
    network.eval()

    def rows(jobs: int) -> list[tuple[str, dict]]:
        return _rows(network, mine, specs, world.device, mirrorings, min(jobs, len(mine)), stop)

    try:
        found = rows(jobs)
    except BrokenProcessPool:
        log.warning("a process that scores was ended, most likely because memory ran out; scoring goes on in this one")
        found = rows(0)
    network.train(training)
    if world.any(len(found) < len(mine)):
        raise Stopped(None, stop.number if stop else signal.SIGTERM)
    per_case = dict(sorted(world.gather(found)))
    mean = {
        region: {metric: float(np.mean([scores[region][metric] for scores in per_case.values()])) for metric in first}
        for region, first in next(iter(per_case.values())).items()
    }
    return {"mean": mean, "cases": per_case}


def _rows(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    specs: ModelSpecs,
    device: str,
    mirrorings: int,
    jobs: int,
    stop: StopRequests | None,
) -> list[tuple[str, dict]]:
    """Ids and scores, fewer than cases where a stop was asked for.

    While the network runs, other processes read the next cases and score those before.
    """
    from segmamba.prediction.windows import predict  # here: a training that validates nothing reads no images

    with _processes(jobs) as submit:
        waiting = iter(cases)
        read = deque(submit(_read, entry, specs.preprocess) for entry in itertools.islice(waiting, max(1, jobs)))
        scored: list[Future] = []
        while read and not stop:
            prepared, truth, affine = read.popleft().result()
            found = predict(network, prepared.tensor, specs.inference, device=device, mirrorings=mirrorings)
            given = _without_image(prepared), found.probabilities.numpy(), truth, affine
            scored.append(submit(_score, *given, specs))
            read.extend(submit(_read, entry, specs.preprocess) for entry in itertools.islice(waiting, 1))
            if len(scored) > 2 * jobs:  # what waits to be scored is in memory
                scored[-1 - 2 * jobs].result()
        return [(entry.id, future.result()) for entry, future in zip(cases, scored)]


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[Callable[..., Future]]:
    """Gives submit(function, *arguments) -> future: done in other processes, or, of 0 jobs, at once in this one."""
    if not jobs:
        yield _at_once
        return
    # spawned: a forked child of a process that uses CUDA, or threads, may hang
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawned, initializer=ignore_stop_signals, initargs=(0,)) as pool:
        try:
            yield pool.submit
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _at_once(function: Callable, *arguments: Any) -> Future:
    future: Future = Future()
    future.set_result(function(*arguments))
    return future


def _read(entry: TrainingCase, preprocess: PreprocessSpec) -> tuple[Prepared, np.ndarray, np.ndarray]:
    """-> a held-out case as the network sees it, its label map, its affine."""
    from segmamba.cases.case import load_case, load_label_map
    from segmamba.prediction import preprocess as preprocessing

    case = load_case(entry.sources, entry.id, preprocess.modalities)
    return preprocessing.preprocess(case, preprocess), load_label_map(entry.label, entry.renumbering, case), case.affine


def _without_image(prepared: Prepared) -> Prepared:
    """For another process, which needs to know of the image how large it is."""
    return replace(prepared, tensor=torch.zeros(()).expand(prepared.tensor.shape))


def _score(
    prepared: Prepared,
    probabilities: np.ndarray,
    truth: np.ndarray,
    affine: np.ndarray,
    specs: ModelSpecs,
) -> dict[str, dict[str, float]]:
    from nibabel.affines import voxel_sizes

    from segmamba.evaluation.metrics import region_scores
    from segmamba.prediction.postprocess import postprocess
    from segmamba.prediction.segment import restore

    label_map = restore(prepared, torch.from_numpy(probabilities), specs.inference.nested)
    label_map, _ = postprocess(label_map, affine, specs.postprocess, specs.scheme)
    return region_scores(label_map, truth, tuple(voxel_sizes(affine)), specs.scheme)


def mean_dice(metrics: dict) -> float:
    """The mean over regions of the mean Dice: what the best checkpoint is chosen by."""
    return float(np.mean([scores["dice"] for scores in metrics["mean"].values()]))


def draw_worst(model: Path, cases: Sequence[TrainingCase], folder: Path, device: str, count: int = 3) -> None:
    """Draws the cases on which a package did worst in its own validation, as FOLDER/CASE.png.

    Args:
        model: folder of the package.
        cases: among which those that its metrics name are looked for.
        folder: of the pictures; made where it does not exist.
        device: as torch names it.
        count: at most so many.
    """
    from segmamba.cases.case import load_case, load_label_map
    from segmamba.evaluation.picture import save_picture
    from segmamba.prediction.segment import segment

    package = load_package(model)
    manifest = package.manifest
    scores = manifest.metrics["cases"]
    worst = sorted(
        (case for case in cases if case.id in scores), key=lambda case: mean_dice({"mean": scores[case.id]})
    )[:count]
    make_folder(folder)
    for entry in worst:
        case = load_case(entry.sources, entry.id, manifest.preprocess.modalities)
        truth = load_label_map(entry.label, entry.renumbering, case)
        answer = segment(
            case,
            package.network,
            manifest.preprocess,
            manifest.inference,
            device=device,
            postprocess_spec=manifest.postprocess,
            scheme=manifest.scheme,
        ).label_map
        dices = ", ".join(f"{region} {score['dice']:.2f}" for region, score in scores[entry.id].items())
        name = re.sub(r"[/\\\x00-\x1f]", "_", entry.id)  # ids of lists that were read before were any text
        save_picture(case, {"truth": truth, "answer": answer}, folder / f"{name}.png", f"{entry.id}: {dices}")
