"""Training cases packed for another machine: preprocessed, cropped, 8 bits a voxel, compressed without further loss.

A packed source is a folder, written by `write_packed` and named by `packed = "FOLDER"` in a configuration:
    packed.json       schema, preprocess, labels, regions; of each case its id, file, sha256 and digest
    0000.safetensors  a case: `slices`, WebP files one after another, and where each ends
A case is a stack of 8-bit volumes, four of which make a WebP picture a slice: lossless WebP predicts one channel from
another, and is a quarter smaller than LZMA or PNG. Image: whole steps of a channel, 0 stays 0, so that a voxel moves by
half a step at most (0.03 to 0.05 of a deviation). Labels: shares in 255ths. Training from it reads no medical images.
Nothing validates on packed cases: their own grids are not there.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from torch import Tensor

from segmamba import settings
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.files.atomic import check_regular, make_folder, write_aside
from segmamba.limits import VOXELS
from segmamba.models.specs import PreprocessSpec
from segmamba.training.samples import TrainingCase, label_shares, store

INDEX = "packed.json"
SCHEMA = 1
_LEAST_STEP = 0.05  # of a z-score: below the noise of any scanner
_CHANNELS = 4  # of a picture

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackedCase:
    """A case in a folder of packed cases."""

    id: str
    """Of the case."""
    file: str
    """Its name in the folder."""
    sha256: str
    """Of that file."""
    digest: str
    """Of the case that was packed, by which a model's record of its training knows it."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What packed.json says."""

    preprocess: PreprocessSpec
    """That the cases went through."""
    labels: dict[str, int]
    """Name -> value, 1 to n."""
    regions: dict[str, tuple[str, ...]]
    """Name -> names of its labels."""
    cases: tuple[PackedCase, ...]
    """In the order of their files."""
    schema: int = SCHEMA
    """Of packed.json; another one is refused."""
    folder: str = ""
    """Where it stands; not part of the file."""

    @property
    def scheme(self) -> LabelScheme:
        """The labels and regions of every case."""
        return LabelScheme(labels=self.labels, regions=self.regions)


def write_packed(
    folder: Path, spec: PreprocessSpec, scheme: LabelScheme, cases: Sequence[TrainingCase], most: int | None = None
) -> Packed:
    """Packs cases that are in the cache, in order, until the next would make the folder too large.

    Args:
        folder: of the packed cases; made where it does not exist.
        spec: preprocessing that they went through.
        scheme: their labels and regions.
        cases: preprocessed.
        most: bytes of all cases together, inclusive; None: as many as they are.

    Returns:
        What packed.json says.
    """
    make_folder(folder)
    entries: list[PackedCase] = []
    size = 0
    for case in cases:
        content = _encode(case.cached)
        if most is not None and size + len(content) > most:
            break
        name = f"{len(entries):04d}.safetensors"
        write_aside(folder / name, content)
        size += len(content)
        entries.append(
            PackedCase(id=case.id, file=name, sha256=hashlib.sha256(content).hexdigest(), digest=case.digest)
        )
    packed = Packed(preprocess=spec, labels=scheme.labels, regions=scheme.regions, cases=tuple(entries))
    values = asdict(packed)
    del values["folder"]
    write_aside(folder / INDEX, (json.dumps(values, indent=1) + "\n").encode())
    log.info("%d of %d cases packed, %.1f MB", len(entries), len(cases), size / 1e6)
    return packed


def read_packed(folder: Path | str) -> Packed:
    """Reads packed.json; the cases are not opened. Raises InputError."""
    path = Path(folder) / INDEX
    values = settings.read_json(path, "packed cases", optional=True)
    if values is None:
        raise InputError(f"there are no packed cases {path}")
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or "folder" in values:
        raise InputError(f"packed cases {path}: expected schema {SCHEMA}")
    packed = settings.build(Packed, {**values, "folder": str(folder)}, f"packed cases {path}")
    packed.scheme  # noqa: B018  checks labels and regions
    if strange := [case.file for case in packed.cases if Path(case.file).name != case.file]:
        raise InputError(f"packed cases {path}: {strange[0]!r} is not the name of a file in this folder")
    if not packed.cases:
        raise InputError(f"packed cases {path} names no case")
    return packed


def check_files(packed: Packed, most: int | None, cache: Path) -> None:
    """Refuses a folder that was copied in part only, before its first case is unpacked.

    Args:
        packed: the folder.
        most: so many of its cases, the first ones, are wanted; None: all.
        cache: folder of preprocessed cases; what is there need not be in the folder of packed cases any more.

    Raises:
        InputError: where a file is missing.
    """
    for entry in packed.cases[:most]:
        path, cached = _place(packed, entry, cache)
        if not cached.exists():
            check_regular(path)


def _place(packed: Packed, entry: PackedCase, cache: Path) -> tuple[Path, Path]:
    """-> the file of a packed case, and where it belongs in the cache."""
    return Path(packed.folder) / entry.file, cache / f"{entry.sha256[:32]}.safetensors"


def prepare_packed(packed: Packed, index: int, cache: Path) -> TrainingCase:
    """Unpacks a case into the cache, or finds it there.

    Args:
        packed: the folder that it is in.
        index: of the case in `packed.cases`.
        cache: folder of preprocessed cases.

    Returns:
        The case.

    Raises:
        InputError: where its file cannot be read or is not the packed one.
    """
    entry = packed.cases[index]
    path, cached = _place(packed, entry, cache)
    if not cached.exists():
        try:
            check_regular(path)
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"packed case {path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise InputError(f"packed case {path} is not the one that {INDEX} names; copy the folder anew")
        image, shares, valid = _decode(content, path, 1 + len(packed.labels))
        make_folder(cache)
        write_aside(cached, store(image, shares, bytes.fromhex(entry.digest), valid))
    return TrainingCase(entry.id, {}, path, {}, cached, entry.digest)


def _encode(cached: Path) -> bytes:
    """A case of the cache (training.samples.store) as the content of its packed file."""
    with safe_open(cached, framework="pt") as stored:
        image = stored.get_tensor("image").float()
        shares = label_shares(stored.get_tensor("label"), int(stored.metadata()["labels"]))
        valid = stored.get_tensor("valid") if "valid" in stored.keys() else None  # noqa: SIM118  safe_open is no dict
    largest = image.abs().amax((1, 2, 3))
    steps = (largest / 127).clamp(min=_LEAST_STEP)
    whole = (image / steps[:, None, None, None]).round().to(torch.int8)
    volumes = [whole.view(torch.uint8), (shares[1:] * 255 + 1e-3).floor().to(torch.uint8)]
    volumes += [] if valid is None else [valid.to(torch.uint8)]
    stack = torch.cat(volumes).numpy()
    pictures = [
        _picture(stack[first : first + _CHANNELS, z])
        for first in range(0, len(stack), _CHANNELS)
        for z in range(stack.shape[1])
    ]
    tensors = {
        "slices": np.frombuffer(b"".join(pictures), np.uint8),
        "ends": np.cumsum([len(picture) for picture in pictures]),
        "steps": steps.numpy(),
        "shape": np.array(stack.shape),
    }
    return save(tensors)


def _picture(channels: np.ndarray) -> bytes:
    """(up to 4, H, W) uint8 -> a lossless WebP file of four channels."""
    from PIL import Image  # here: only packing and unpacking need it

    full = np.zeros((*channels.shape[1:], _CHANNELS), np.uint8)
    full[..., : len(channels)] = np.moveaxis(channels ^ 0x80, 0, -1)  # around 128: what is predicted does not wrap
    file = io.BytesIO()
    Image.fromarray(full).save(file, "WEBP", lossless=True, exact=True, quality=60, method=4)
    return file.getvalue()


def _decode(content: bytes, path: Path, labels: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """-> image (C, D, H, W), shares (K, D, H, W), valid (D, H, W) or None."""
    from PIL import Image

    try:
        tensors = load(content)
        count, *grid = map(int, tensors["shape"])
        ends = tensors["ends"].tolist()
        slices = tensors["slices"].tobytes()
        channels = len(tensors["steps"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"packed case {path} cannot be read: {error}") from None
    groups = -(-count // _CHANNELS)
    partly = count - channels - (labels - 1)
    if len(grid) != 3 or np.prod(grid) > VOXELS or len(ends) != groups * grid[0] or partly not in (0, 1):
        raise InputError(f"packed case {path}: {count} volumes of {grid} do not fit its labels and slices")
    stack = np.empty((groups * _CHANNELS, *grid), np.uint8)
    for number, (start, end) in enumerate(zip([0, *ends], ends)):
        group, z = divmod(number, grid[0])
        try:
            picture = Image.open(io.BytesIO(slices[start:end]), formats=["WEBP"])
            size = picture.size
            values = np.asarray(picture.convert("RGBA")) if size == (grid[2], grid[1]) else None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow says it
            raise InputError(f"packed case {path}: slice {z} cannot be read: {error}") from None
        if values is None:
            raise InputError(f"packed case {path}: slice {z} is of {size}, expected {(grid[2], grid[1])}")
        stack[group * _CHANNELS : (group + 1) * _CHANNELS, z] = np.moveaxis(values, -1, 0) ^ 0x80
    steps = torch.from_numpy(tensors["steps"])
    image = torch.from_numpy(stack[:channels].view(np.int8)).float() * steps[:, None, None, None]
    named = torch.from_numpy(stack[channels : channels + labels - 1]).float() / 255
    shares = torch.cat([1 - named.sum(0, keepdim=True).clamp(max=1), named])
    return image, shares, torch.from_numpy(stack[count - 1]).bool() if partly else None
