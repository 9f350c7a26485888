"""What two models answer on the same cases, scored. A score is kept by what it depends on, and asked for only once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from segmamba.cases.case import Case, load_case, load_label_map
from segmamba.cases.labels import to_regions
from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.errors import InputError
from segmamba.evaluation.metrics import SMALLEST_LESION, dice, lesion_wise
from segmamba.files.atomic import make_folder, write_aside
from segmamba.images.digest import hash_image
from segmamba.models.package import Model
from segmamba.prediction.segment import Segmentation, segment
from segmamba.settings import build, plain, read_json

_VERSION = 4  # raise it when a score is made in another way

Scores = dict[str, dict[str, float]]  # {"dice": {region: score}, "lesion_dice": .., "false_positives": ..}


@dataclass(frozen=True)
class Scored:
    """How a model does on one case."""

    scores: Scores
    """As evaluation.compare takes them."""
    finite: bool
    """No probability was nan or infinite."""
    seconds: float
    """Of the network."""
    truth_mm3: dict[str, float]
    """Region -> its true volume."""


Pair = tuple[Mapping[str, Scored], Mapping[str, Scored]]  # champion, candidate: the same cases


def table(scored: Mapping[str, Scored], metric: str) -> np.ndarray:
    """One metric as an array (cases, regions), cases by id."""
    return np.array([list(scored[case].scores[metric].values()) for case in sorted(scored)], float)


def present_dice(scored: Mapping[str, Scored], spots: Mapping[str, float]) -> np.ndarray:
    """Dice as an array (cases, regions), nan where the region is truly absent or smaller than what counts as a spot.

    There one voxel decides between 0 and 1; what is found too much is counted as a false spot instead.
    """
    truly = [[scored[case].truth_mm3[region] >= spots[region] for region in spots] for case in sorted(scored)]
    return np.where(truly, table(scored, "dice"), np.nan)


def kept_mm3(models: tuple[Model, ...]) -> dict[str, float]:
    """Region -> the smallest spot that counts as a false one, the same for all `models`, in mm3.

    What one of them would leave out of its answers is too small to be held against another; nor are spots of a size of
    which true lesions are not scored.
    """
    specs = [model.manifest.postprocess for model in models]
    return {
        region: max(SMALLEST_LESION, *(spec.min_component_mm3.get(region, 0.0) for spec in specs))
        for region in models[0].manifest.regions
    }


def score_cases(
    model: Model,
    dataset: Dataset,
    entries: tuple[CaseEntry, ...],
    *,
    spots: Mapping[str, float],
    device: str,
    mirrorings: int,
    cache: Path,
    progress: Callable[[str], None],
) -> dict[str, Scored]:
    """How a model does on labelled cases: its answers as users get them, with what the manifest leaves out.

    Args:
        model: whose answers are scored.
        dataset: that the cases belong to.
        entries: the cases.
        spots: as of `kept_mm3`.
        device: where the network runs.
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.
        cache: folder of scores; what is there is not computed again.
        progress: told of each case before the model is asked.

    Returns:
        Id of a case -> its scores.

    Raises:
        InputError: where a file is not that of the manifest.
    """
    found = {}
    for entry in entries:
        path = cache / f"{_key(model, dataset, entry, spots, device, mirrorings)}.json"
        if known := _read(path):
            found[entry.id] = known
            continue
        progress(f"{model.manifest.id}: {entry.id}")
        found[entry.id] = _score(model, dataset, entry, spots, device, mirrorings)
        make_folder(cache)
        write_aside(path, json.dumps(asdict(found[entry.id])).encode())
    return found


def count_unknown(
    model: Model,
    dataset: Dataset | None,
    entries: tuple[CaseEntry, ...],
    *,
    spots: Mapping[str, float],
    device: str,
    mirrorings: int,
    cache: Path,
) -> int:
    """Of how many cases `score_cases`, given the same, would ask the model.

    Args:
        model: as of `score_cases`.
        dataset: as of `score_cases`; None where there is none.
        entries: as of `score_cases`.
        spots: as of `score_cases`.
        device: as of `score_cases`.
        mirrorings: as of `score_cases`.
        cache: as of `score_cases`.

    Returns:
        Their number.
    """
    if dataset is None:
        return 0
    keys = (_key(model, dataset, entry, spots, device, mirrorings) for entry in entries)
    return sum(_read(cache / f"{key}.json") is None for key in keys)


def _read(path: Path) -> Scored | None:
    try:
        return build(Scored, read_json(path), str(path))
    except InputError:
        return None


def answer(
    model: Model, dataset: Dataset, entry: CaseEntry, device: str, mirrorings: int
) -> tuple[Case, np.ndarray, Segmentation]:
    """A model's answer to a labelled case.

    Args:
        model: that is asked.
        dataset: that the case is of.
        entry: the case.
        device: as torch names it.
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.

    Returns:
        The case, the truth (X, Y, Z) in the data set's labels, and the segmentation.

    Raises:
        InputError: where a file is not the one that the data set was made of.
    """
    assert entry.label is not None  # the case is labelled
    for file in (*(entry.images[m] for m in model.manifest.preprocess.modalities), entry.label):
        path = dataset.path(file)
        if not path.exists() or hash_image(path) != file.sha256:
            raise InputError(
                f"{path} is not the file that data set {dataset.name} was made of; restore it from a backup"
            )
    sources = {m: dataset.sources(entry)[m] for m in model.manifest.preprocess.modalities}
    case = load_case(sources, entry.id, model.manifest.preprocess.modalities)
    truth = load_label_map(dataset.path(entry.label), dataset.renumbering, case)
    manifest = model.manifest
    result = segment(
        case,
        model.network,
        manifest.preprocess,
        manifest.inference,
        device=device,
        mirrorings=mirrorings,
        postprocess_spec=manifest.postprocess,
        scheme=manifest.scheme,
    )
    return case, truth, result


def _score(
    model: Model, dataset: Dataset, entry: CaseEntry, spots: Mapping[str, float], device: str, mirrorings: int
) -> Scored:
    case, truth, result = answer(model, dataset, entry, device, mirrorings)
    spacing = [float(size) for size in voxel_sizes(case.affine)]
    scheme, voxel = model.manifest.scheme, float(np.prod(spacing))
    ours, true = to_regions(result.label_map, scheme), to_regions(truth, scheme)
    lesions = {region: lesion_wise(ours[region], true[region], spacing) for region in scheme.regions}
    scores = {
        "dice": {region: dice(ours[region], true[region]) for region in scheme.regions},
        "lesion_dice": {region: float(lesions[region]["dice"]) for region in lesions},
        "false_positives": {
            region: _false_spots(ours[region], true[region], spacing, spots[region] / voxel) for region in lesions
        },
    }
    volumes = {region: float(np.count_nonzero(mask) * voxel) for region, mask in true.items()}
    return Scored(scores, bool(result.prediction.probabilities.isfinite().all()), result.seconds["network"], volumes)


def _false_spots(mask: np.ndarray, truth: np.ndarray, spacing: list[float], voxels: float) -> float:
    """Components of a mask that touch no lesion of the truth and have so many voxels or more."""
    components, count = ndimage.label(mask, np.ones((3, 3, 3)))
    large = np.bincount(components.ravel(), minlength=count + 1) >= voxels * (1 - 1e-9)
    large[0] = False
    return float(lesion_wise(large[components], truth, spacing)["false_positives"])


def _key(
    model: Model, dataset: Dataset, entry: CaseEntry, spots: Mapping[str, float], device: str, mirrorings: int
) -> str:
    manifest = model.manifest
    files = [(entry.images[m].sha256, entry.images[m].volume) for m in manifest.preprocess.modalities]
    parts = [
        *(_VERSION, manifest.weights_sha256, plain(manifest.network)),
        *(plain(manifest.preprocess), plain(manifest.inference), asdict(manifest.postprocess), dict(spots)),
        *(files, entry.label and entry.label.sha256, dataset.renumbering, manifest.regions, device, mirrorings),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
