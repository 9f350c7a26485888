"""Training patches that come without their case: crops around lesions, already normalised, labelled in part.

A file of patches is an .npz with
    image       (N, C, X, Y, Z)  normalised as the model's preprocessing does it (z-scores over the brain), 0 outside
                                 the brain; integers where `step` is given, which they are multiplied by
    label       (N, X, Y, Z)     0 and the labels of the data sets that are trained on beside it
    valid       (N, X, Y, Z)     where the label is known; the loss counts nothing elsewhere
    spacing_mm  (3,)             of X, Y, Z
    axes        "LPS", ...       where X, Y, Z lead, in nibabel's letters
    modalities  (C,)             of the channels, by the names of the configuration
    ids         (N,)             of the patches
    step        ()               optional
Nothing validates on patches: a part of a brain has no false findings elsewhere.
Patches that are smaller than what the network is trained on are laid side by side in blocks: alone, a crop of 60 mm
would fill a tenth of a training patch of 128 mm, and the rest of the step would be spent on nothing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.files.digest import hash_file
from segmamba.images.resample import Axis, to_model
from segmamba.limits import VOXELS
from segmamba.models.specs import PreprocessSpec
from segmamba.training.samples import TrainingCase, store

_KEYS = ("ids", "image", "label", "valid", "spacing_mm", "axes", "modalities")
_VERSION = 2  # raise it when what is written to the cache changes
_KNOWN = 0.999  # share of a voxel of the model that must be valid
_TURNS = 4  # times that each patch is laid beside others
_REACH = 1.5  # a training patch is centred anywhere in a block, and should not reach far beyond it


@dataclass(frozen=True, eq=False)
class PatchFile:
    """The arrays of a file of patches, checked."""

    path: Path
    """Of the file."""
    ids: tuple[str, ...]
    """Of each patch."""
    images: np.ndarray
    """(N, C, X, Y, Z) float16."""
    labels: np.ndarray
    """(N, X, Y, Z) uint8."""
    valid: np.ndarray
    """(N, X, Y, Z) bool, where the labels are known."""
    spacing: tuple[float, float, float]
    """mm along X, Y, Z."""
    axes: str
    """Axis codes of X, Y, Z, such as "RAS"."""
    modalities: tuple[str, ...]
    """Of the channels, in order."""
    sha256: str
    """Of the file."""


def read_patches(path: Path | str, labels: int) -> PatchFile:
    """Reads a file of patches. labels: the largest label that may occur. Raises InputError, naming what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file of patches {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [key for key in _KEYS if key not in stored]
            if missing:
                raise InputError(f"file of patches {path} has no {', '.join(missing)}; expected {', '.join(_KEYS)}")
            arrays = {key: stored[key] for key in (*_KEYS, *(["step"] if "step" in stored else []))}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"file of patches {path} cannot be read as .npz: {error}") from None
    return _checked(path, arrays, labels)


def _checked(path: Path, arrays: dict[str, np.ndarray], labels: int) -> PatchFile:

    def check(holds: bool, text: str) -> None:
        if not holds:
            raise InputError(f"file of patches {path}: {text}")

    arrays = {"step": np.ones((), np.float32), **arrays}
    for key in ("image", "label", "valid", "spacing_mm", "step"):
        check(arrays[key].dtype.kind in "biuf", f"{key} of {arrays[key].dtype}; expected numbers")
    check(arrays["step"].ndim == 0, f"step of shape {arrays['step'].shape}; expected one number")
    image, label, valid = arrays["image"], arrays["label"], arrays["valid"]
    modalities = tuple(map(str, np.atleast_1d(arrays["modalities"])))
    ids = tuple(map(str, np.atleast_1d(arrays["ids"])))
    axes = str(arrays["axes"])
    spacing = np.atleast_1d(arrays["spacing_mm"]).astype(float)
    found = {"image": image.shape, "label": label.shape, "valid": valid.shape}

    check(image.ndim == 5 and min(image.shape) > 0, f"image of shape {image.shape}; expected (N, C, X, Y, Z)")
    same = {(len(image), *image.shape[2:])} == {label.shape, valid.shape}
    check(same, f"shapes {found}; label and valid must be those of image without C")
    check(image[0, 0].size <= VOXELS, f"patches of {image.shape[2:]} voxels are too large")
    check(len(modalities) == image.shape[1], f"{image.shape[1]} channels, but the modalities {', '.join(modalities)}")
    check(len(ids) == len(image) and len(set(ids)) == len(ids), f"{len(image)} patches need as many different ids")
    pairs = [set("LR"), set("PA"), set("SI")]
    lead = [next((n for n, pair in enumerate(pairs) if letter in pair), None) for letter in axes]
    check(sorted(lead, key=str) == [0, 1, 2], f"axes {axes!r}; expected three letters such as LPS")
    check(spacing.shape == (3,) and bool((spacing > 0).all() and np.isfinite(spacing).all()), f"spacing_mm {spacing}")
    check(label.dtype.kind in "iu" and int(label.max()) <= labels and int(label.min()) >= 0, _wrong(label, labels))
    check(set(np.unique(valid).tolist()) <= {0, 1}, "valid must be 0 or 1 everywhere")
    images = (image * np.float32(arrays["step"])).astype(np.float16)
    check(bool(np.isfinite(images).all()), "image holds values that are not finite")
    return PatchFile(
        path=path,
        ids=ids,
        images=images,
        labels=label.astype(np.uint8),
        valid=valid.astype(bool),
        spacing=tuple(spacing.tolist()),
        axes=axes,
        modalities=modalities,
        sha256=hash_file(path),
    )


def _wrong(label: np.ndarray, labels: int) -> str:
    return f"label of {label.dtype} from {label.min()} to {label.max()}; expected whole numbers from 0 to {labels}"


def check_modalities(file: PatchFile, spec: PreprocessSpec) -> None:
    """Raises InputError where a file of patches has not every modality that the model wants to see."""
    if missing := [m for m in spec.modalities if m not in file.modalities]:
        raise InputError(
            f"file of patches {file.path} has no {', '.join(missing)}; it has {', '.join(file.modalities)}"
        )


def arrange(file: PatchFile, training_patch_mm: float) -> list[np.ndarray]:
    """Which patches lie side by side: blocks of numbers of patches, (A, B, C) along the axes of the file.

    training_patch_mm: longest side of what the network is trained on; a block is longer by half. Each patch comes in up
    to _TURNS blocks, in other company each time, and in one at least; one that is as long, or of too few to fill a
    block, is its own block.
    """
    sides = np.asarray(file.labels.shape[1:]) * file.spacing
    shape = np.ceil(_REACH * training_patch_mm / sides).astype(int) if (sides < training_patch_mm).all() else (1, 1, 1)
    count, many = len(file.ids), int(np.prod(shape))
    if many == 1 or count < many:
        return [np.full((1, 1, 1), number) for number in range(count)]
    return [block.reshape(shape) for block in _draw_blocks(count, many)]


def _draw_blocks(count: int, many: int) -> np.ndarray:
    """_TURNS permutations of all numbers behind one another, cut into blocks of different ones; a last rest is left.

    What a turn leaves over begins a block that the next one fills: were it dropped, a patch could be in no block.
    """
    rng = np.random.default_rng(0)  # the blocks of a file are the same in every training, and cached once
    order = np.empty(0, int)
    for _ in range(_TURNS):
        turn = rng.permutation(count)
        over = order[len(order) - len(order) % many :]
        filling = turn[~np.isin(turn, over)][: many - len(over)]
        order = np.concatenate([order, filling, turn[~np.isin(turn, filling)]])
    return order[: len(order) - len(order) % many].reshape(-1, many)


def name_block(file: PatchFile, block: np.ndarray, spec: PreprocessSpec, labels: int) -> tuple[str, str]:
    """What a block of patches is called.

    Args:
        file: that holds the patches.
        block: their indices, as of `prepare_patches`.
        spec: of the preprocessing.
        labels: how many the model has.

    Returns:
        Its id as a case, and the digest of all that it is made from.
    """
    layout = block.tolist()
    settings = {"spec": asdict(spec), "labels": labels, "block": layout, "file": file.sha256, "version": _VERSION}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return file.ids[block.flat[0]] if block.size == 1 else f"block-{digest[:12]}", digest


def prepare_patches(file: PatchFile, block: np.ndarray, spec: PreprocessSpec, labels: int, cache: Path) -> TrainingCase:
    """Brings the patches of a block onto the model's grid, into the cache, or finds them there.

    Args:
        file: that holds them.
        block: their numbers, as `arrange` lays them side by side.
        spec: what the model wants to see.
        labels: how many there are, without background.
        cache: folder of preprocessed cases.

    Returns:
        The block, as a case.

    Raises:
        InputError: where the file has not the modalities of the model, or the block is valid nowhere.
    """
    check_modalities(file, spec)
    name, digest = name_block(file, block, spec, labels)
    cached = cache / f"{digest[:32]}.safetensors"
    if not cached.exists():
        from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

        turn = ornt_transform(axcodes2ornt(file.axes), axcodes2ornt(spec.orientation))
        spacing = np.asarray(file.spacing)[np.argsort(turn[:, 0])]

        def turned(patches: np.ndarray, faces: bool = True) -> torch.Tensor:
            chosen = patches[block]
            volume = _side_by_side(chosen if faces else _without_faces(chosen))
            return torch.from_numpy(np.array(apply_orientation(volume, turn), dtype=np.float32, order="C"))

        label = turned(file.labels)
        axes = tuple(Axis.over(0, n, own, wanted) for n, own, wanted in zip(label.shape, spacing, spec.spacing))
        channels = [file.images[:, file.modalities.index(m)] for m in spec.modalities]
        image = torch.stack([to_model(turned(channel), axes) for channel in channels])
        shares = torch.stack([to_model((label == value).float(), axes) for value in range(1 + labels)])
        known = to_model(turned(file.valid, faces=block.size == 1), axes) >= _KNOWN
        if not known.any():
            raise InputError(f"file of patches {file.path}: patch {name} is valid nowhere; leave it out")
        make_folder(cache)
        write_aside(cached, store(image, shares, bytes.fromhex(digest), known))
    return TrainingCase(name, {}, file.path, {}, cached, digest)


def _side_by_side(patches: np.ndarray) -> np.ndarray:
    """(A, B, C, X, Y, Z) -> (A X, B Y, C Z)."""
    a, b, c, x, y, z = patches.shape
    return patches.transpose(0, 3, 1, 4, 2, 5).reshape(a * x, b * y, c * z)


def _without_faces(valid: np.ndarray) -> np.ndarray:
    """(..., X, Y, Z) without the outermost voxels of each patch: resampling mixes them with their neighbours'."""
    inner = np.zeros_like(valid)
    inside = (..., *3 * (slice(1, -1),))
    inner[inside] = valid[inside]
    return inner
