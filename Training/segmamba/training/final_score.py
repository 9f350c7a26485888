"""A model scored on what its data sets keep for the end: the `test` part of a split by shares, with mirrorings."""

from __future__ import annotations

import json
from pathlib import Path

from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import SPLIT, test_cases
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.files.digest import hash_file
from segmamba.models.package import MANIFEST, load_package, read_manifest
from segmamba.models.specs import ModelSpecs
from segmamba.settings import read_json
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World
from segmamba.training.plan import check_ids, check_test_apart
from segmamba.training.samples import TrainingCase, find_case
from segmamba.training.validation import validate

MIRRORINGS = 7  # as the paper has it
SCORES = "test.json"


def find_test_cases(config: TrainingConfig) -> list[TrainingCase]:
    """Of the sources that are validated on, whose training leaves their test part out.

    Raises InputError where there is none, where another source keeps a test part, of which its training knows nothing,
    where an image of a test part is trained on, where two cases have one id, where labels name sides, and for what a
    training would refuse.
    """
    kept: list[tuple[Dataset, tuple[CaseEntry, ...]]] = []
    for source in config.sources:
        if not source.dataset:
            continue
        dataset = read_dataset(source.dataset)
        entries = test_cases(dataset) if (Path(dataset.folder) / SPLIT).exists() else ()
        if entries and not source.validate:
            use = "validated on" if source.held_out else "trained on"
            raise InputError(
                f"data set {dataset.name} keeps {len(entries)} cases for a test, but all of it is {use}; set "
                "validate = true for that source, and train anew"
            )
        if entries:
            kept.append((dataset, entries))
    if not kept:
        raise InputError(
            "no data set of the configuration keeps cases for a test; `segmamba dataset split DATASET --shares "
            "70/10/20` does, before anything is trained"
        )
    for dataset, _ in kept:
        dataset.scheme.check_mirroring(f"the test has {MIRRORINGS} mirrorings; score with `segmamba evaluate`")
    check_ids([entry.id for _, entries in kept for entry in entries], "keep for a test")
    check_test_apart(config, kept)
    spec, cache = config.preprocess, Path(config.cache)
    return [find_case(dataset, entry, spec, cache) for dataset, entries in kept for entry in entries]


def score_on_test(model: Path, config: TrainingConfig, run: Path, device: str) -> dict:
    """The scores of a model package on the test part of its data sets.

    Written to RUN/test.json, and taken from there where it is of the same model, weights and manifest, and of the same
    cases, images and labels.

    Args:
        model: folder of the package.
        config: of the training, which names the data sets.
        run: folder of the run.
        device: as torch names it.

    Returns:
        {"mean", "cases"} as `validation.validate`.
    """
    cases = find_test_cases(config)
    asked = {
        "weights_sha256": read_manifest(model).weights_sha256,
        "mirrorings": MIRRORINGS,
        "manifest_sha256": hash_file(model / MANIFEST),  # thresholds, window and preprocessing decide too
        "cases_sha256": {case.id: case.digest for case in cases},
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
        ModelSpecs(manifest.preprocess, manifest.inference, manifest.postprocess, manifest.scheme),
        World(device=device),
        mirrorings=MIRRORINGS,
    )
    write_aside(path, (json.dumps({**asked, **scores}, indent=1) + "\n").encode())
    return scores
