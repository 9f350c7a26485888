"""A model package: a folder with model.safetensors, model.json (the manifest) and MODEL_CARD.md.

The manifest says everything that the weights cannot: network, preprocessing, inference, label map, parent, training,
metrics. The weights are checked against its sha256. Nothing from the folder is evaluated or imported.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from segmamba import limits, settings
from segmamba.cases.incomplete import Incomplete
from segmamba.cases.labels import GLIOMA, LabelScheme
from segmamba.errors import InputError, explain
from segmamba.files.atomic import check_regular, make_folder, write_aside
from segmamba.models.published import load_strictly
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.networks.choice import AnyNetworkConfig, build
from segmamba.networks.heads import count_channels

WEIGHTS = "model.safetensors"
MANIFEST = "model.json"
CARD = "MODEL_CARD.md"
SCHEMA = 1
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What model.json says: everything that weights cannot."""

    id: str
    """Name of this very model."""
    network: AnyNetworkConfig
    """Name and sizes; decides the shapes of the weights."""
    preprocess: PreprocessSpec
    """What the network wants to see."""
    inference: InferenceSpec
    """How it wants to be run."""
    label_map: dict[str, int] = field(default_factory=lambda: dict(GLIOMA.labels))
    """Name -> value of its output channel."""
    regions: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(GLIOMA.regions))
    """Name -> its labels."""
    schema: int = SCHEMA
    """Of model.json; another one is refused."""
    parent: str | None = None
    """Id of the model that it was fine-tuned from; None: it began with fresh weights."""
    weights_sha256: str = ""
    """Of model.safetensors, in hexadecimal."""
    weights_dtype: str = "float32"
    """Of model.safetensors: "float32" or "float16"."""
    training: dict = field(default_factory=dict)
    """How it was made, as plain JSON."""
    metrics: dict = field(default_factory=dict)
    """How it did on cases that it had not seen, as plain JSON."""
    incomplete: Incomplete | None = None
    """Which modalities it does without; None: it needs them all."""
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)
    """What is too small to be shown."""
    licence: str = "Apache-2.0"
    """Of the weights, by its SPDX name."""

    @property
    def scheme(self) -> LabelScheme:
        """The labels and regions that the model knows."""
        return LabelScheme(labels=self.label_map, regions=self.regions)


@dataclass(frozen=True)
class Model:
    """A network ready to run, with what must be known to run it."""

    network: nn.Module
    """In float32, with its weights."""
    manifest: Manifest
    """What model.json says."""
    folder: Path
    """Where it was read from."""


def load_package(folder: Path | str) -> Model:
    """Reads and checks a package; the network is in float32, in evaluation mode, on the CPU.

    Raises InputError where a file or a tensor is missing or broken, or the weights are not those of the manifest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if (folder / WEIGHTS).exists():
        check_regular(folder / WEIGHTS)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(
            f"model {folder}: {WEIGHTS} cannot be read ({error.strerror}); fetch the model again"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.weights_sha256:
        raise InputError(
            f"model {folder}: {WEIGHTS} has sha256 {digest[:12]}..., the manifest says "
            f"{manifest.weights_sha256[:12]}...; the file is damaged or belongs to another model: fetch the model again"
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError(f"model {folder}: {WEIGHTS} is not a safetensors file ({error})") from None
    network = build(manifest.network)
    load_strictly(network, {name: t.float() for name, t in tensors.items()}, str(folder))
    return Model(network.eval(), manifest, folder)


def read_manifest(folder: Path | str) -> Manifest:
    """Reads and checks the manifest of a package.

    Raises InputError where model.json is missing, is no JSON, or says what this version does not know.
    """
    path = Path(folder) / MANIFEST
    if not _is_there(path):
        raise InputError(f"{folder} is not a model folder: it has no {MANIFEST}")
    return _build(settings.read_json(path), path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise InputError(explain(error)) from None


def _build(values: object, path: Path) -> Manifest:
    """A manifest of what its file, `path`, holds. Raises InputError."""
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(f"{path} has schema {found}; this version reads {SCHEMA}: update the one that is older")
    manifest = settings.build(Manifest, values, str(path))
    _check(manifest, path)
    return manifest


def _check(manifest: Manifest, path: Path) -> None:
    """Raises InputError, which names `path`, where what a manifest says does not fit together."""
    try:
        count = len(manifest.scheme.labels)
    except InputError as error:
        raise InputError(f"{path}: label_map: {error}") from None
    nested = manifest.inference.nested
    if nested and len(nested) != count:
        raise InputError(f"{path}: inference.nested {nested} does not name each of the {count} labels")
    if manifest.network.out_channels != count_channels(count, nested):
        raise InputError(
            f"{path}: the network has {manifest.network.out_channels} output channels; label_map "
            f"{manifest.label_map} with {'the nested regions ' + str(nested) if nested else 'background'} needs "
            f"{count_channels(count, nested)}"
        )
    if manifest.inference.overlap > limits.OVERLAP or math.prod(manifest.inference.window) > limits.WINDOW_VOXELS:
        raise InputError(
            f"{path}: window {manifest.inference.window} with an overlap of {manifest.inference.overlap}; expected at "
            f"most {limits.WINDOW_VOXELS} voxels and {limits.OVERLAP}"
        )
    if len(manifest.preprocess.modalities) != manifest.network.in_channels:
        raise InputError(
            f"{path}: {len(manifest.preprocess.modalities)} modalities for "
            f"{manifest.network.in_channels} input channels"
        )
    try:
        manifest.postprocess.check(manifest.scheme)
    except InputError as error:
        raise InputError(f"{path}: postprocess.{error}") from None


def save_package(folder: Path | str, network: nn.Module, manifest: Manifest, card: str) -> Manifest:
    """Writes a package: three files, each aside and renamed, the manifest last.

    Args:
        folder: of the package.
        network: with its weights, which are stored as manifest.weights_dtype ("float32" or "float16", in which A, D and
            dt fit as well).
        manifest: everything that weights cannot say; the hash of the weights is filled in.
        card: the model card, in Markdown.

    Returns:
        The manifest as it was written.

    Raises:
        InputError: for what could not be read again; nothing is written then.
    """
    folder = Path(folder)
    if manifest.weights_dtype not in _DTYPES:
        raise InputError(f"weights_dtype {manifest.weights_dtype!r} must be one of {', '.join(_DTYPES)}")
    if manifest.network != network.config:
        raise InputError(f"the manifest of {manifest.id} describes another network than the one given")
    dtype = _DTYPES[manifest.weights_dtype]
    tensors = {name: t.detach().cpu().to(dtype).contiguous() for name, t in network.state_dict().items()}
    if bad := sorted(name for name, t in tensors.items() if not torch.isfinite(t).all()):
        raise InputError(f"weights of {manifest.id} are not finite as {manifest.weights_dtype}: {', '.join(bad[:5])}")
    data = save(tensors)
    text = _to_json(replace(manifest, weights_sha256=hashlib.sha256(data).hexdigest()))
    written = _build(settings.parse_json(text, str(folder / MANIFEST)), folder / MANIFEST)
    try:
        card_data = card.encode()
    except UnicodeEncodeError:
        raise InputError(f"the card of {manifest.id} is not valid Unicode") from None
    make_folder(folder)
    write_aside(folder / WEIGHTS, data)
    write_aside(folder / CARD, card_data)
    write_aside(folder / MANIFEST, text.encode())
    return written


def _to_json(manifest: Manifest) -> str:
    try:
        return json.dumps(settings.plain(manifest), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:  # of what is in `training` and `metrics`
        raise InputError(f"the manifest of {manifest.id} cannot be written as JSON: {error}") from None


def copy_package(source: Path, target: Path) -> None:
    """A package, checked, to another folder; its three files are written aside and renamed, the manifest last.

    Raises InputError as `load_package`, and where there is no card; nothing is written then.
    """
    load_package(source)
    names = (WEIGHTS, CARD, MANIFEST)
    for name in names:
        check_regular(source / name)
    data = [(source / name).read_bytes() for name in names]
    make_folder(target)
    for name, content in zip(names, data):
        write_aside(target / name, content)


def find_model(name_or_folder: str) -> Path:
    """The folder of a model: a path as given, or the name of one in Resources/models beside this package.

    Raises InputError that lists the names there are, or says why the path cannot be looked at.
    """
    given = Path(name_or_folder)
    if _is_there(given / MANIFEST):
        return given
    shipped = shipped_models()
    if name_or_folder in shipped:
        return shipped[name_or_folder]
    raise InputError(
        f"there is no model {name_or_folder!r}: neither a folder with {MANIFEST} nor one of "
        f"{', '.join(shipped) or 'none'}"
    )


def shipped_models() -> dict[str, Path]:
    """Name -> folder of the models that come with the project."""
    root = Path(__file__).resolve().parents[3] / "Resources" / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{MANIFEST}"))}
