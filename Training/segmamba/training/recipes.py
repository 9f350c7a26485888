"""Two ways from corrected cases to a candidate: fine-tuning the model in use, and training anew on everything.

Both are an ordinary configuration (training.config) with its sources and its beginning filled in: the rest stands in
Training/configs/finetune.toml and retrain.toml and can be replaced with --set.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from segmamba import settings
from segmamba.datasets.manifest import Dataset, read_dataset
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.errors import InputError
from segmamba.models.package import Manifest, read_manifest
from segmamba.networks.choice import NetworkChoice
from segmamba.networks.presets import PRESETS
from segmamba.networks.segmamba import NetworkConfig
from segmamba.training.config import SourceConfig, TrainingConfig, load_values
from segmamba.training.packed import read_packed

log = logging.getLogger(__name__)

_STEPS, _STEPS_A_CASE = 50, 50  # a fine-tuning of few cases ends sooner: it would learn them by heart
_NEW = 0.8  # of the patches are from corrected cases: half of the way back to the model in use is against forgetting
_FEW = 5  # corrected cases below which `freeze = "encoder"` is worth a try


def finetune(
    corrections: Path | str,
    model: Path,
    *,
    config: Path | None = None,
    replay: Sequence[str] | None = None,
    anchor: str | None = None,
    overrides: Sequence[str] = (),
) -> TrainingConfig:
    """The configuration of a fine-tuning of `model`.

    Four of five patches are from corrected cases, the rest from `replay`; validated on what intake keeps for it and on
    the anchor set. Network, preprocessing, window and patch are the model's own.

    Args:
        corrections: the folder of an intake.
        model: the folder of its package.
        config: a configuration for the rest; None: Training/configs/finetune.toml.
        replay: data sets that the model has learnt before; None: those of the configuration; none at all: only
            corrected cases, which forgets.
        anchor: a data set that is validated on and never trained on.
        overrides: "KEY=VALUE", as of --set.

    Returns:
        The configuration, as `training.loop.train` takes it.

    Raises:
        InputError: for a folder without an accepted case, and bad settings.
    """
    dataset, count = _corrected(corrections)
    values = load_values(config or config_file("finetune.toml"))
    manifest = read_manifest(model)
    old = values.get("sources", []) if replay is None else [{"dataset": name} for name in replay]
    known = [source for source in old if replay is not None or _is_there(source)]
    if not known:
        log.warning("nothing to replay: the model may forget what it knew; name its data with --replay")
    new_share = _NEW if known else 1.0
    values["sources"] = [
        {"dataset": dataset.folder, "share": new_share, "validate": True},
        *({**source, "share": (1 - _NEW) / len(known), "validate": False, "fold": None} for source in known),
        *_anchor(anchor),
    ]
    values["initial_model"] = str(model)
    values["steps"] = min(values.get("steps", 400), _STEPS + _STEPS_A_CASE * count)
    values.setdefault("optimizer", {})
    values["optimizer"]["warmup"] = min(values["optimizer"].get("warmup", 100), values["steps"] // 10)
    values.update(_like(manifest))
    learnt = manifest.training.get("config", {}).get("augment", {})
    kept = {"modality_dropout": learnt.get("modality_dropout", 0.0)}  # what it does without, it keeps so
    if learnt.get("mirror") is False:  # nor do its labels take mirror images now
        kept["mirror"] = False
    values["augment"] = {**values.get("augment", {}), **kept}
    if count < _FEW:
        log.info("%d corrected case(s): consider --set freeze=encoder", count)
    return _build(values, overrides, "fine-tuning")


def retrain(
    corrections: Path | str,
    *,
    config: Path | None = None,
    replay: Sequence[str] | None = None,
    anchor: str | None = None,
    overrides: Sequence[str] = (),
) -> TrainingConfig:
    """The configuration of a training from fresh weights on everything.

    The data sets and packed cases of the configuration (or `replay`) and the corrected cases, each case as often as any
    other; crops have the share that the configuration gives them beside its cases.

    Args:
        corrections: the folder of an intake.
        config: a configuration for the rest; None: Training/configs/retrain.toml.
        replay: data sets that are learnt too; None: those of the configuration.
        anchor: a data set that is validated on and never trained on.
        overrides: "KEY=VALUE", as of --set.

    Returns:
        The configuration, as `training.loop.train` takes it.

    Raises:
        InputError: for a folder without an accepted case, and bad settings.
    """
    dataset, count = _corrected(corrections)
    values = load_values(config or config_file("retrain.toml"))
    old = values.get("sources", []) if replay is None else [{"dataset": name} for name in replay]
    known, crops = [], []
    asked, total = 0.0, float(count)
    for source in old:
        given = settings.build(SourceConfig, source, "sources")
        if given.patches:
            crops.append(source)
            continue
        cases = _count_cases(given)
        share = float(max(1, min(cases, given.at_most or cases)))
        known.append({**source, "share": share})
        asked, total = asked + given.share, total + share
    for source in crops:  # a crop is no case: they keep their part of the samples
        known.append({**source, "share": source.get("share", 1.0) * total / (asked or 1.0)})
    values["sources"] = [
        {"dataset": dataset.folder, "share": float(count), "validate": True},
        *known,
        *_anchor(anchor),
    ]
    values["initial_model"] = ""
    return _build(values, overrides, "retraining")


def config_file(name: str) -> Path:
    """A configuration that comes with the project. Raises InputError where the package stands without them."""
    path = Path(__file__).resolve().parents[2] / "configs" / name
    if not path.is_file():
        raise InputError(f"{path} is not there; name a configuration: `segmamba train CONFIG.toml ...`")
    return path


def _corrected(corrections: Path | str) -> tuple[Dataset, int]:
    dataset = read_dataset(corrections, "intake")
    count = len(training_cases(dataset))
    if not count:
        raise InputError(f"{corrections} has no accepted case to train on; run `segmamba intake {corrections}`")
    log.info("%d corrected cases to train on, %d to validate on", count, len(validation_cases(dataset)))
    return dataset, count


def _count_cases(source: SourceConfig) -> int:
    """How many cases a data set or packed cases have to train on. Raises InputError."""
    if source.packed:
        return len(read_packed(source.packed).cases)
    dataset = read_dataset(source.dataset)
    return len(training_cases(dataset, source.fold) if source.validate else [c for c in dataset.cases if c.label])


def _is_there(source: dict) -> bool:
    try:
        if source.get("patches"):
            if not Path(source["patches"]).is_file():
                raise InputError(f"file of patches {source['patches']} does not exist")
        elif source.get("packed"):
            read_packed(source["packed"])
        else:
            read_dataset(source["dataset"])
    except (InputError, KeyError) as error:
        log.warning("not replayed: %s", error)
        return False
    return True


def _anchor(anchor: str | None) -> list[dict]:
    return [] if anchor is None else [{"dataset": anchor, "held_out": True}]


def _like(manifest: Manifest) -> dict:
    """What of a configuration a model decides itself."""
    asked = manifest.training.get("config", {})
    patch = asked.get("patch") or list(manifest.inference.window)
    return {
        "network": settings.plain(_choice(manifest, cast(tuple[int, int, int], tuple(patch)))),
        "preprocess": settings.plain(manifest.preprocess),
        "head": "regions" if manifest.inference.nested else "labels",
        "inference": {**settings.plain(manifest.inference), "nested": ()},
        "patch": list(patch),
        "precision": asked.get("precision", "bf16"),  # bf16 on a CPU does not take every patch
        "weights_dtype": manifest.weights_dtype,
    }


def _choice(manifest: Manifest, patch: tuple[int, int, int]) -> NetworkChoice:
    """The configuration's word for a model's network."""
    network = manifest.network
    if not isinstance(network, NetworkConfig):
        return NetworkChoice(name=network.name, width=network.width or None)
    for preset in PRESETS:
        choice = NetworkChoice(preset=preset)
        if choice.resolve(network.in_channels, network.out_channels, patch) == network:
            return choice
    sizes = {key: value for key, value in network.to_dict().items() if key not in ("in_channels", "out_channels")}
    return NetworkChoice(**sizes)  # of no preset: all its settings, each by its name


def _build(values: dict, overrides: Sequence[str], what: str) -> TrainingConfig:
    for text in overrides:
        settings.override(TrainingConfig, values, text)
    return settings.build(TrainingConfig, values, what)
