"""A trained network as a model package."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from segmamba.models.package import Manifest, save_package
from segmamba.training.config import TrainingConfig
from segmamba.training.experiment import Experiment


def write_package(
    folder: Path, network: nn.Module, config: TrainingConfig, experiment: Experiment, *, record: dict, metrics: dict
) -> None:
    """Writes the package of a training.

    Args:
        folder: of the package.
        network: with the weights to be released.
        config: of the training.
        experiment: what it worked on.
        record: how the model was made, as plain JSON.
        metrics: how well it did, as plain JSON.
    """
    parent = experiment.parent
    manifest = Manifest(
        id=config.name,
        network=experiment.network_config,
        preprocess=config.preprocess,
        inference=experiment.inference,
        postprocess=experiment.postprocess,
        label_map=experiment.scheme.labels,
        regions=experiment.scheme.regions,
        parent=parent.id if parent else None,
        weights_dtype=config.weights_dtype,
        training=record,
        metrics=metrics,
        incomplete=parent.incomplete if parent and config.augment.modality_dropout else None,
    )
    card = f"# {config.name}\n\nMade by `Training/train.py`; settings, data hashes and metrics: model.json.\n"
    save_package(folder, network, manifest, card)
