"""One case through the whole engine: preprocess, network, undo, label map. All packages of a prediction meet here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from segmamba.cases.case import Case
from segmamba.cases.labels import GLIOMA, LabelScheme
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.prediction.postprocess import postprocess, to_label_map
from segmamba.prediction.preprocess import Prepared, preprocess
from segmamba.prediction.stages import Stages
from segmamba.prediction.windows import Prediction, predict

_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented case, on the case's own grid."""

    label_map: np.ndarray
    """(X, Y, Z) uint8, in the model's labels."""
    seconds: dict[str, float]
    """Stage of prediction.stages -> seconds."""
    prepared: Prepared = field(repr=False)
    """The case on the model's grid."""
    prediction: Prediction = field(repr=False)
    """What was found on that grid. The probabilities of the whole case are made of it when they are asked for: they are
    16 times the label map."""

    @property
    def passes(self) -> int:
        """Forward passes of the network."""
        return self.prediction.passes

    @property
    def device(self) -> str:
        """Where the network ran."""
        return self.prediction.device

    @property
    def precision(self) -> str:
        """What the network computed in: "bf16" or "fp32"."""
        return self.prediction.precision

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be done differently from what was asked."""
        return self.prediction.notes

    def probabilities(self) -> np.ndarray:
        """The probabilities on the case's grid: (K, X, Y, Z) float32, background first."""
        return self.prepared.undo(self.prediction.probabilities)

    def uncertainty(self) -> np.ndarray:
        """How undecided the model is, on the case's grid: (X, Y, Z) float32, 0 to 1."""
        return self.prepared.undo_scalar(self.prediction.uncertainty)


def segment(
    case: Case,
    network: nn.Module,
    preprocess_spec: PreprocessSpec,
    inference_spec: InferenceSpec,
    *,
    absent: Sequence[str] = (),
    device: torch.device | str = "cpu",
    mirrorings: int = 0,
    postprocess_spec: PostprocessSpec | None = None,
    scheme: LabelScheme = GLIOMA,
) -> Segmentation:
    """The labels of one case, on its grid. `predict_case` takes the same steps one by one, each of them watched.

    Args:
        case: images on one grid.
        network: of the model, with its weights.
        preprocess_spec: what the model wants to see.
        inference_spec: how the model wants to be run.
        absent: modalities that are missing and that the model can do without (segmamba.cases.incomplete).
        device: where the network runs.
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.
        postprocess_spec: what is too small to stay in the label map, of regions of `scheme`; None: everything stays.
        scheme: the labels and regions of the model.

    Returns:
        The label map, with what the probabilities of the whole case are made of where they are asked for.

    Raises:
        InputError: for a case without a modality that the model needs, and mirrorings of labels that name sides.
    """
    if mirrorings:
        scheme.check_mirroring("segment without mirrorings")
    stages = Stages()
    with stages.time("preprocess"):
        prepared = preprocess(case, preprocess_spec, absent)
    with stages.time("network"):
        prediction = predict(network, prepared.tensor, inference_spec, device=device, mirrorings=mirrorings)
    with stages.time("restore"):
        label_map = restore(prepared, prediction.probabilities, inference_spec.nested)
        if postprocess_spec:
            label_map, _ = postprocess(label_map, case.affine, postprocess_spec, scheme)
    return Segmentation(label_map, stages.seconds(), prepared, prediction)


def restore(prepared: Prepared, probabilities: torch.Tensor, nested: Sequence[int]) -> np.ndarray:
    """The label map of a case from what the network gave, everything in it however small.

    Args:
        prepared: the case on the model's grid.
        probabilities: (K, D, H, W), there.
        nested: the output head.

    Returns:
        (X, Y, Z) uint8, on the case's grid.
    """
    possible = possible_lesion(probabilities, nested)
    return prepared.undo_labels(probabilities, possible, lambda restored: to_label_map(restored, nested))


def possible_lesion(probabilities: torch.Tensor, nested: Sequence[int]) -> torch.Tensor:
    """Where interpolated probabilities may have a label: (K, D, H, W) -> (D, H, W) bool.

    False where no linear interpolation between such voxels has a label but 0. Between voxels that are background by
    `to_label_map` there is background, for what is interpolated lies between what they have; with a margin for
    rounding. True where a probability is no number, which `to_label_map` refuses.
    """
    if nested:
        certain = probabilities[list(nested)].sum(0) < 0.5 - _ROUNDING
    else:
        certain = probabilities[1:].amax(0) < probabilities[0] - _ROUNDING
    return ~(certain & probabilities.isfinite().all(0))
