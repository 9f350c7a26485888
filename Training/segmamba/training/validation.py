"""Validation of a network in training: whole held-out volumes, on the grids they were labelled on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from segmamba.cases.labels import LabelScheme
from segmamba.models.package import load_package
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.training.distributed import World
from segmamba.training.samples import TrainingCase


def validate(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    preprocess: PreprocessSpec,
    inference: InferenceSpec,
    postprocess: PostprocessSpec,
    scheme: LabelScheme,
    world: World,
    mirrorings: int = 0,
) -> dict:
    """Dice and HD95 of whole held-out cases, the cases shared among processes.

    Args:
        network: left in the mode in which it came.
        cases: held-out ones.
        preprocess: what the network wants to see.
        inference: how it is run.
        postprocess: what is too small to stay in a label map.
        scheme: the labels and regions.
        world: the processes of the training.
        mirrorings: extra passes with flipped axes.

    Returns:
        {"mean": {region: {"dice", "hd95"}}, "cases": {id: ...}}, the same in every process.
    """
    from nibabel.affines import voxel_sizes  # here: a training that validates nothing reads no images

    from segmamba.cases.case import load_case, load_label_map
    from segmamba.evaluation.metrics import region_scores
    from segmamba.prediction.segment import segment

    training = network.training
    network.eval()
    rows = []
    for entry in cases[world.rank :: world.size]:
        case = load_case(entry.sources, entry.id, preprocess.modalities)
        truth = load_label_map(entry.label, entry.renumbering, case)
        result = segment(
            case,
            network,
            preprocess,
            inference,
            device=world.device,
            mirrorings=mirrorings,
            postprocess_spec=postprocess,
            scheme=scheme,
        )
        scores = region_scores(result.label_map, truth, tuple(voxel_sizes(case.affine)), scheme)
        rows.append((entry.id, scores))
    network.train(training)
    per_case = dict(sorted(world.gather(rows)))
    mean = {
        region: {metric: float(np.mean([scores[region][metric] for scores in per_case.values()])) for metric in first}
        for region, first in next(iter(per_case.values())).items()
    }
    return {"mean": mean, "cases": per_case}


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
    worst = sorted(cases, key=lambda case: mean_dice({"mean": scores[case.id]}))[:count]
    folder.mkdir(exist_ok=True)
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
        save_picture(case, {"truth": truth, "answer": answer}, folder / f"{entry.id}.png", f"{entry.id}: {dices}")
