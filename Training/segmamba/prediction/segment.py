"""One case through the whole engine: preprocess, network, undo, label map. The only place where these meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from segmamba.cases.case import Case
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.prediction.postprocess import to_label_map
from segmamba.prediction.preprocess import preprocess
from segmamba.prediction.windows import predict


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented case, on the case's own grid.

    label_map (X, Y, Z) uint8; probabilities (K, X, Y, Z) float32; uncertainty (X, Y, Z) float32, 0..1.
    seconds: per stage. passes, device, precision, notes: see segmamba.prediction.windows.Prediction.
    """

    label_map: np.ndarray
    probabilities: np.ndarray
    uncertainty: np.ndarray
    seconds: dict[str, float]
    passes: int
    device: str
    precision: str
    notes: tuple[str, ...]


def segment(
    case: Case,
    network: nn.Module,
    preprocess_spec: PreprocessSpec,
    inference_spec: InferenceSpec,
    *,
    absent: Sequence[str] = (),
    device: torch.device | str = "cpu",
    mirrorings: int = 0,
    windows_at_once: int = 1,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Segmentation:
    """progress is called with a stage ("preprocess", "network", "restore") and the fraction of it that is done.

    absent: modalities that the case lacks and the model does without (segmamba.cases.incomplete). windows_at_once: see
    segmamba.prediction.windows.predict. Raises InputError where the case lacks what the model needs, and Cancelled.
    """
    seconds = {}
    tell = progress or (lambda stage, fraction: None)

    tell("preprocess", 0.0)
    start = time.perf_counter()
    prepared = preprocess(case, preprocess_spec, absent)
    seconds["preprocess"] = time.perf_counter() - start

    tell("network", 0.0)
    start = time.perf_counter()
    prediction = predict(
        network,
        prepared.tensor,
        inference_spec,
        device=device,
        mirrorings=mirrorings,
        windows_at_once=windows_at_once,
        progress=lambda fraction: tell("network", fraction),
        cancelled=cancelled,
    )
    seconds["network"] = time.perf_counter() - start

    tell("restore", 0.0)
    start = time.perf_counter()
    probabilities = prepared.undo(prediction.probabilities)
    uncertainty = prepared.undo_scalar(prediction.uncertainty)
    label_map = to_label_map(probabilities)
    seconds["restore"] = time.perf_counter() - start
    tell("restore", 1.0)
    return Segmentation(
        label_map,
        probabilities,
        uncertainty,
        seconds,
        prediction.passes,
        prediction.device,
        prediction.precision,
        prediction.notes,
    )
