"""A model scored on what its data sets keep for the end: the `test` part of a split by shares, with mirrorings."""

from __future__ import annotations

import json
from pathlib import Path

from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.split import SPLIT, test_cases
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.models.package import load_package, read_manifest
from segmamba.settings import read_json
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World
from segmamba.training.samples import TrainingCase
from segmamba.training.validation import validate

MIRRORINGS = 7  # as the paper has it
SCORES = "test.json"


def find_test_cases(config: TrainingConfig) -> list[TrainingCase]:
    """Of all sources of the configuration. Raises InputError where there is none."""
    found = []
    for source in config.sources:
        if not source.dataset:
            continue
        dataset = read_dataset(source.dataset)
        if (Path(dataset.folder) / SPLIT).exists():
            for entry in test_cases(dataset):
                if entry.label is None:  # nothing to score by
                    continue
                images = {m: dataset.sources(entry)[m] for m in config.preprocess.modalities}
                assert entry.label is not None  # as `test_cases` gives them
                label = dataset.path(entry.label)
                found.append(TrainingCase(entry.id, images, label, dataset.renumbering, Path(), entry.label.sha256))
    if not found:
        raise InputError(
            "no data set of the configuration keeps cases for a test; `segmamba dataset split DATASET --shares "
            "70/10/20` does, before anything is trained"
        )
    return found


def score_on_test(model: Path, config: TrainingConfig, run: Path, device: str) -> dict:
    """{"mean", "cases"} as `validation.validate`, of a model package on the test part of its data sets.

    Written to RUN/test.json, and taken from there where it is of the same weights and cases.
    """
    cases = find_test_cases(config)
    asked = {
        "weights_sha256": read_manifest(model).weights_sha256,
        "mirrorings": MIRRORINGS,
        "labels_sha256": {case.id: case.digest for case in cases},
    }
    path = run / SCORES
    found = read_json(path, optional=True)
    if isinstance(found, dict) and all(found.get(key) == value for key, value in asked.items()):
        return {key: found[key] for key in ("mean", "cases")}
    package = load_package(model)
    manifest = package.manifest
    scores = validate(
        package.network,
        cases,
        manifest.preprocess,
        manifest.inference,
        manifest.postprocess,
        manifest.scheme,
        World(device=device),
        mirrorings=MIRRORINGS,
    )
    write_aside(path, (json.dumps({**asked, **scores}, indent=1) + "\n").encode())
    return scores
