"""Training samples: cases preprocessed once, cached by content, cut into augmented patches.

A sample is a function of (seed, index) alone, so a run that is resumed, or spread over workers and machines, sees the
same data. A patch is read from the cache by itself: the rest of its case stays on disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.errors import InputError, explain
from segmamba.files.atomic import make_folder, sweep, write_aside
from segmamba.models.specs import PreprocessSpec
from segmamba.training.carve import Carving, Graft, carve, places_of

if TYPE_CHECKING:
    from segmamba.cases.case import Source
    from segmamba.training.augment import Augmentation, Sample

log = logging.getLogger(__name__)

_CACHE_VERSION = 2  # raise it when preprocessing changes what it writes
_SUFFIX = ".safetensors"  # of a prepared case
_PLACES = 5000  # voxels kept of each label, to centre patches on


@dataclass(frozen=True)
class TrainingCase:
    """A labelled case, preprocessed."""

    id: str
    """Names it in records and errors."""
    sources: dict[str, Source]
    """Its images, for a validation on its own grid; {} where there are none."""
    label: Path
    """File of its label map."""
    renumbering: dict[int, int]
    """Value in that file -> label."""
    cached: Path
    """Its tensors."""
    digest: str
    """sha256 over images, label and settings."""


def prepare(dataset: Dataset, entry: CaseEntry, spec: PreprocessSpec, cache: Path) -> TrainingCase:
    """Preprocesses a case into the cache, or finds it there by the content of its files, not by their names.

    Args:
        dataset: that the case is of.
        entry: the case, with a label map.
        spec: what the model wants to see.
        cache: folder of preprocessed cases.

    Returns:
        The case.

    Raises:
        InputError: where a file is missing, wrong, or not the one that the manifest of the data set knows.
    """
    from segmamba.cases.case import load_case, load_label_map  # here: packed cases need no reader of images
    from segmamba.prediction.preprocess import preprocess, preprocess_label

    found = find_case(dataset, entry, spec, cache)
    if not found.cached.exists():
        log.info("preparing %s", entry.id)
        case = load_case(found.sources, entry.id, spec.modalities)
        prepared = preprocess(case, spec)
        label_map = load_label_map(found.label, dataset.renumbering, case)
        shares = preprocess_label(label_map, case, prepared, 1 + len(dataset.labels))
        make_folder(cache)
        write_aside(found.cached, store(prepared.tensor, shares, bytes.fromhex(found.digest)))
    return found


def find_case(dataset: Dataset, entry: CaseEntry, spec: PreprocessSpec, cache: Path) -> TrainingCase:
    """A case by its files, which are checked, and where its tensors belong in the cache.

    Args:
        dataset: that the case is of.
        entry: the case.
        spec: what the model wants to see.
        cache: folder of preprocessed cases.

    Returns:
        The case; its tensors may not be there yet.

    Raises:
        InputError: as `prepare`.
    """
    from segmamba.images.digest import hash_image, size_and_time  # here: as in `prepare`

    if entry.label is None:
        raise InputError(f"case {entry.id} of data set {dataset.name} has no label map; training needs one")
    _check_complete(dataset, entry, spec)
    for file in (*(entry.images[m] for m in spec.modalities), entry.label):
        path = dataset.path(file)
        try:  # of the size and the time that the manifest knows it is unchanged, as for an update of the manifest
            same = file.size > 0 and size_and_time(path) == (file.size, file.modified)
            found = file.sha256 if same else hash_image(path)
        except OSError as error:
            raise InputError(f"case {entry.id}: {path} cannot be read: {error.strerror}") from None
        if found != file.sha256:
            raise InputError(
                f"case {entry.id}: {path} is not the file that the data set was made of; "
                f"run `segmamba dataset init --update {dataset.folder}`, which takes over what was corrected"
            )
    digest = case_digest(dataset, entry, spec)
    sources = {m: dataset.sources(entry)[m] for m in spec.modalities}
    label = dataset.path(entry.label)
    return TrainingCase(entry.id, sources, label, dataset.renumbering, _cached(cache, digest), digest)


def case_digest(dataset: Dataset, entry: CaseEntry, spec: PreprocessSpec) -> str:
    """What a model's record of its training knows a labelled case by.

    Args:
        dataset: that the case is of.
        entry: the case, with a label map.
        spec: what the model wants to see.

    Returns:
        sha256 over its images, label and preprocessing, as its manifest has them.

    Raises:
        InputError: where the data set has not all modalities of the model.
    """
    _check_complete(dataset, entry, spec)
    settings = {"spec": asdict(spec), "labels": dataset.renumbering, "version": _CACHE_VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in (*(entry.images[m] for m in spec.modalities), entry.label):
        assert file is not None  # the case is labelled
        digest.update(f"{file.sha256}{file.volume}".encode())
    return digest.hexdigest()


def _check_complete(dataset: Dataset, entry: CaseEntry, spec: PreprocessSpec) -> None:
    if missing := [m for m in spec.modalities if m not in entry.images]:
        raise InputError(
            f"case {entry.id} of data set {dataset.name} has no {', '.join(missing)}; it has {', '.join(entry.images)}"
        )


def drop_others(cache: Path, datasets: Sequence[Dataset], spec: PreprocessSpec) -> None:
    """Deletes from a cache what it has prepared of other cases: of a patient who was taken back, of older corrections.

    Args:
        cache: folder of preprocessed cases; nobody else may be at work with it.
        datasets: whose labelled cases stay.
        spec: as which they were prepared.
    """
    entries = [(dataset, entry) for dataset in datasets for entry in dataset.cases]
    known = [(d, e) for d, e in entries if e.label is not None and all(m in e.images for m in spec.modalities)]
    _keep(cache, {_cached(cache, case_digest(dataset, entry, spec)) for dataset, entry in known})


def drop_all(cache: Path) -> None:
    """As `drop_others`, of every case; what is needed is prepared again."""
    _keep(cache, set())


def _keep(cache: Path, kept: set[Path]) -> None:
    sweep(cache, unused=True)  # of a writer that was killed
    for file in cache.glob(f"*{_SUFFIX}"):
        if file not in kept:
            log.info("deleting a prepared case that is of none of the cases here")
            try:
                file.unlink()
            except OSError as error:  # another program holds it: the next run tries again
                log.warning("%s, a prepared case, cannot be deleted (%s); delete it", file, explain(error))


def _cached(cache: Path, digest: str) -> Path:
    return cache / f"{digest[:32]}{_SUFFIX}"


class PatchDataset(TorchDataset):
    """Samples for Augmentation.make_batch, drawn from (seed, i): a box of a case as it is stored, and what to do to it.

    {"image": (C, *box) half, "label": (1, *box) uint8 or (K, *box) half, "valid": (1, *box) uint8 where the label is
    known in part only, "labels": K, "patch": its size, "start": its first voxel, counted from that of the box,
    "change": what is done to it, "case": id}. What a patch shows outside its box is outside the volume.
    cases: per source; shares: weight of each source. foreground: chance that a patch is centred on a voxel of a label,
    drawn among those that the case has. carving: which samples are given a tumour of another case; the rest are as
    without it.
    """

    def __init__(
        self,
        cases: Sequence[Sequence[TrainingCase]],
        shares: Sequence[float],
        patch: tuple[int, int, int],
        augmentation: Augmentation,
        foreground: float,
        seed: int,
        carving: Carving | None = None,
    ):
        self.cases = [list(group) for group in cases]
        self.shares = np.asarray(shares, float) / sum(shares)
        self.patch = patch
        self.augmentation = augmentation
        self.foreground = foreground
        self.seed = seed
        self.carving = carving

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        group = self.cases[rng.choice(len(self.cases), p=self.shares)]
        case = group[rng.integers(len(group))]
        with safe_open(case.cached, framework="pt") as stored:
            channels, *grid = stored.get_slice("image").get_shape()
            change = self.augmentation.draw(channels, rng)
            reach = change.warp.reach(self.patch) if change.warp else self.patch
            graft = self.carving.draw(case, stored, index, self._centre) if self.carving else None
            centre = graft.centre if graft else self._centre(stored, grid, rng)
            first = [c - side // 2 for c, side in zip(centre, reach)]
            labels = int(stored.metadata()["labels"])
            if self.carving and graft:
                tensors = _carved(stored, graft, first, reach, self.carving.spacing)
            else:
                box = [slice(max(0, a), a + side) for a, side in zip(first, reach)]
                first = [side.start for side in box]
                names = [name for name in ("image", "label", "valid") if name in stored.keys()]  # noqa: SIM118  no dict
                tensors = {name: stored.get_slice(name)[:, box[0], box[1], box[2]].clone() for name in names}
        start = [c - side // 2 - a for c, side, a in zip(centre, self.patch, first)]
        about = {"labels": labels, "patch": self.patch, "start": start, "change": change, "case": case.id}
        return {**tensors, **about}

    def _centre(self, stored: Any, grid: Sequence[int], rng: np.random.Generator) -> list[int]:
        present = places_of(stored)
        if present and rng.random() < self.foreground:
            places = stored.get_tensor(present[rng.integers(len(present))])
            return places[rng.integers(len(places))].tolist()
        low = [min(side // 2, size // 2) for side, size in zip(self.patch, grid)]
        high = [max(least, size - (side - side // 2)) for least, side, size in zip(low, self.patch, grid)]
        return [int(rng.integers(a, b + 1)) for a, b in zip(low, high)]


class StepSampler(Sampler):
    """The samples of steps `start`..`stop` - 1 that are this process's part of each batch of `batch`, in order."""

    def __init__(self, start: int, stop: int, batch: int, rank: int, world: int):
        self.steps = range(start, stop)
        self.batch = batch
        self.rank = rank
        self.share = batch // world

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = step * self.batch + self.rank * self.share
            yield list(range(first, first + self.share))

    def __len__(self) -> int:
        return len(self.steps)


def store(image: Tensor, shares: Tensor, seed: bytes, valid: Tensor | None = None) -> bytes:
    """A cached case as the bytes of its file.

    Half precision; label as one uint8 map where no voxel is shared, which is an eighth of the size. Places to centre
    patches on are known ones.

    Args:
        image: (C, D, H, W).
        shares: (K, D, H, W) of the labels.
        seed: draws which places are kept.
        valid: (D, H, W), where the labels are known; None: everywhere.

    Returns:
        A safetensors file.
    """
    hard = shares.argmax(0).to(torch.uint8)
    label = hard[None] if bool(((shares == 0) | (shares == 1)).all()) else shares.half()
    tensors = {"image": image.half().contiguous(), "label": label.contiguous()}
    if valid is not None:
        tensors["valid"] = valid[None].to(torch.uint8).contiguous()
    rng = np.random.default_rng(list(seed))
    for value in range(1, len(shares)):
        here = hard == value
        places = torch.nonzero(here if valid is None else here & valid).to(torch.int16)
        if len(places):
            kept = rng.permutation(len(places))[:_PLACES]
            tensors[f"places{value}"] = places[np.sort(kept)].contiguous()
    return save(tensors, {"labels": str(len(shares))})


def _carved(
    stored: Any, graft: Graft, first: Sequence[int], size: Sequence[int], spacing: Sequence[float]
) -> dict[str, Tensor]:
    """Image and label of the box from `first` on, as they are stored, with a donor's tumour carved in."""
    image = _read_box(stored, "image", first, size).float()
    label = label_shares(_read_box(stored, "label", first, size), int(stored.metadata()["labels"]))
    image, label = carve(image, label, *_read_graft(graft, first, size), spacing, graft.draw)
    return {"image": image.half(), "label": label.half()}


def _read_graft(graft: Graft, first: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Image (C, *size) and shares (K, *size) of the donor, as they lie in the box of the host from `first` on."""
    axes = [] if graft.mirrored is None else [1 + graft.mirrored]
    with safe_open(graft.donor, framework="pt") as stored:
        starts = graft.start(first, size)
        image = _read_box(stored, "image", starts, size).float()
        label = label_shares(_read_box(stored, "label", starts, size), int(stored.metadata()["labels"]))
    return image.flip(axes), label.flip(axes)


def _read_box(stored: Any, name: str, starts: Sequence[int], size: Sequence[int]) -> Tensor:
    """(channels, *size) from voxel `starts` on, 0 outside the volume."""
    part = stored.get_slice(name)
    channels, *grid = part.get_shape()
    inside = [slice(max(0, a), max(0, min(g, a + s))) for a, s, g in zip(starts, size, grid)]
    values = part[:, inside[0], inside[1], inside[2]]
    if list(values.shape[1:]) == list(size):
        return values.clone()
    result = torch.zeros((channels, *size), dtype=values.dtype)
    place = tuple(slice(i.start - a, i.stop - a) for i, a in zip(inside, starts))
    result[(slice(None), *place)] = values
    return result


def label_shares(label: Tensor, count: int) -> Tensor:
    """A stored label, (1, D, H, W) uint8 or (K, D, H, W) half -> shares (K, D, H, W) float32."""
    if label.dtype != torch.uint8:
        return label.float()
    return torch.nn.functional.one_hot(label[0].long(), count).movedim(-1, 0).float()
