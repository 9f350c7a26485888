"""Training cases: preprocessed once, cached by content, sampled by index.

A sample is a function of (seed, index) alone, so a run that is resumed, or spread over workers, sees the same data.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from monai.transforms import Compose
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import Dataset

from segmamba.case import find_case, find_label, load_case, load_label_map
from segmamba.config import SourceConfig
from segmamba.errors import InputError
from segmamba.files import write_aside
from segmamba.labels import LABELS
from segmamba.preprocess import PreprocessSpec, preprocess, preprocess_label

log = logging.getLogger(__name__)

_CACHE_VERSION = 1  # raise it when preprocessing changes what it writes


@dataclass(frozen=True)
class TrainingCase:
    """A labelled case folder, preprocessed. cached: its tensors. digest: sha256 over images, label and settings."""

    id: str
    folder: Path
    convention: str
    cached: Path
    digest: str

    def load(self) -> dict[str, Tensor]:
        """image (C, D, H, W), label (K, D, H, W): the share of each label in each voxel; both float32."""
        return {name: tensor.float() for name, tensor in load_file(self.cached).items()}


def find_training_cases(source: SourceConfig) -> tuple[list[Path], list[Path]]:
    """(training folders, validation folders) of a source, by sorted name. Raises InputError where it has none."""
    root = Path(source.folder)
    if not root.is_dir():
        raise InputError(f"training source {root} is no folder")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise InputError(f"training source {root} has no case folders")
    held_out = [f for i, f in enumerate(folders) if source.folds and i % source.folds == source.fold]
    return [f for f in folders if f not in held_out], held_out


def prepare(folder: Path, convention: str, spec: PreprocessSpec, cache: Path) -> TrainingCase:
    """Preprocesses a case folder into `cache`, or finds it there by content: a corrected label is a new entry.

    Raises InputError where an image or the label is missing or wrong.
    """
    sources = find_case(folder, spec.modalities)
    label = find_label(folder)
    if label is None:
        raise InputError(f"case {folder} has no label map; training needs one, e.g. {folder.name}-seg.nii.gz")
    settings = {"spec": asdict(spec), "convention": convention, "version": _CACHE_VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for modality in spec.modalities:
        if modality not in sources:
            raise InputError(f"case {folder} has no {modality}; it has {', '.join(sorted(sources))}")
        digest.update(f"{modality}{sources[modality].volume}".encode())
        digest.update(sources[modality].path.read_bytes())
    digest.update(label.read_bytes())
    cached = cache / f"{digest.hexdigest()[:32]}.safetensors"
    if not cached.exists():
        log.info("preparing %s", folder.name)
        case = load_case(sources, folder.name, spec.modalities)
        prepared = preprocess(case, spec)
        shares = preprocess_label(load_label_map(label, convention, case), case, prepared, 1 + len(LABELS))
        cache.mkdir(parents=True, exist_ok=True)
        write_aside(cached, save({"image": prepared.tensor.half().contiguous(), "label": shares.half().contiguous()}))
    return TrainingCase(folder.name, folder, convention, cached, digest.hexdigest())


class PatchDataset(Dataset):
    """Augmented patches {"image": (C, *patch), "label": (K, *patch)}; sample i is drawn from (seed, i) alone.

    cases: per source; shares: weight of each source. start: index of the first sample, for a resumed run.
    """

    def __init__(
        self,
        cases: Sequence[Sequence[TrainingCase]],
        shares: Sequence[float],
        transform: Compose,
        seed: int,
        length: int,
        start: int = 0,
    ):
        self.cases = [list(group) for group in cases]
        self.shares = np.asarray(shares, float) / sum(shares)
        self.transform = transform
        self.seed = seed
        self.length = length
        self.start = start

    def __len__(self) -> int:
        return self.length - self.start

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.start + i))
        group = self.cases[rng.choice(len(self.cases), p=self.shares)]
        case = group[rng.integers(len(group))]
        self.transform.set_random_state(seed=int(rng.integers(2**32)))
        [sample] = self.transform(case.load())  # a list: the crop may give several
        return {name: sample[name].as_tensor().contiguous() for name in ("image", "label")}
