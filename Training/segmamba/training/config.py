"""The configuration of a training: a TOML file to frozen dataclasses, the reason under each field."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from segmamba import settings
from segmamba.errors import InputError
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.choice import NetworkChoice
from segmamba.networks.heads import HEADS


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise InputError(text)


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    _check(value in known, f"{name} {value!r} must be one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What to train on."""

    dataset: str = ""
    """A data set's folder or manifest (`segmamba dataset init`)."""
    patches: str = ""
    """Instead of it: a file of patches that come without their case (training.patches), labelled in part or whole."""
    packed: str = ""
    """Instead of it: a folder of cases preprocessed elsewhere (training.packed), with the same preprocessing."""
    share: float = 1.0
    """Weight with which a training sample comes from here."""
    validate: bool = False
    """Leave out of training, and validate on, what the data set's split (`segmamba dataset split`) keeps for that: its
    `fold`, or the validation part of a split by shares, where the log says if nothing is there. Without it every
    labelled case is trained on."""
    fold: int | None = None
    """Number of the fold that is kept for validation, from 0; None: a split by shares."""
    at_most: int | None = None
    """Train on the first so many cases, or blocks of patches, only."""
    held_out: bool = False
    """Train on none of it, validate on all: an anchor set."""

    def __post_init__(self) -> None:
        _check(
            sum(map(bool, (self.dataset, self.patches, self.packed))) == 1,
            f"a source needs one of dataset, patches and packed; it has {self.dataset!r}, {self.patches!r} and "
            f"{self.packed!r}",
        )
        learnt = not (self.validate or self.held_out)
        _check(learnt or not self.patches, f"source {self.patches}: patches are trained on, never validated on")
        _check(learnt or not self.packed, f"source {self.packed}: packed cases are trained on, never validated on")
        _check(not (self.held_out and self.validate), f"source {self.dataset}: validate or held_out, not both")
        name = self.dataset or self.patches or self.packed
        _check(self.share > 0 and math.isfinite(self.share), f"source {name}: share must be above 0")
        _check(self.fold is None or self.validate, f"source {self.dataset}: a fold needs validate = true")
        _check(self.at_most is None or self.at_most > 0, f"source {name}: at_most must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which augmentations are used."""

    set: str = "segmamba"
    """Of chances and ranges (training.augment): "paper" and "released" as published, "segmamba" ours, "none"."""
    modality_dropout: float = 0.0
    """Chance that one modality or more of a sample is missing, which are then 0 everywhere."""
    mirror: bool = True
    """Flip samples along each axis, where the set does; false where labels tell left from right."""
    carve: float = 0.0
    """Chance that a tumour of another training case is carved into a sample, or its mirror image (training.carve)."""

    def __post_init__(self) -> None:
        _choice("augment.set", self.set, ("none", "paper", "released", "segmamba"))
        _check(0 <= self.modality_dropout < 1, f"augment.modality_dropout {self.modality_dropout} must be 0 to below 1")
        _check(0 <= self.carve <= 1, f"augment.carve {self.carve} must be 0 to 1")

    @property
    def mirrors(self) -> bool:
        """Whether something of a sample may be a mirror image."""
        return self.carve > 0 or (self.mirror and self.set != "none")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    name: str = "adamw"
    """"adamw"; "muon", AdamW but for matrices (training.muon); or "sgd" with Nesterov momentum."""
    learning_rate: float = 1e-3
    """The highest, at the end of the warm-up."""
    momentum: float = 0.99
    """Of SGD; the others have their usual ones."""
    weight_decay: float = 1e-4
    """L2 with SGD, decoupled with the others."""
    decay_all: bool = False
    """Weight decay on every parameter, as the published code has it; otherwise not on norms, biases and the scan's own
    (A, D, dt bias), as Mamba's authors mark them."""
    schedule: str = "poly"
    """"poly" (exponent 0.9) or "cosine", after `warmup` steps from learning_rate to 0 just behind the last step."""
    warmup: int = 100
    """Steps in which the learning rate rises, linearly from 0."""
    gradient_clip: float = 12.0
    """The largest norm of the gradient that is not scaled down."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is validated and released; 0: the weights themselves."""

    def __post_init__(self) -> None:
        _choice("optimizer.name", self.name, ("adamw", "muon", "sgd"))
        _choice("optimizer.schedule", self.schedule, ("poly", "cosine"))
        rate = self.learning_rate
        _check(0 < rate < math.inf, f"optimizer.learning_rate {rate} must be above 0")
        _check(self.weight_decay >= 0, f"optimizer.weight_decay {self.weight_decay} must be 0 or more")
        _check(self.gradient_clip > 0, f"optimizer.gradient_clip {self.gradient_clip} must be above 0")
        _check(self.warmup >= 0, f"optimizer.warmup {self.warmup} must be 0 or more")
        for name in ("momentum", "ema"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"optimizer.{name} {value} must be 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Whole held-out volumes, on their own grids."""

    every: int = 500
    """Steps between two validations."""
    at_start: bool = True
    """Before step 1 too, which is the baseline of a fine-tuning and shows a wrong channel order at once."""
    patience: int = 0
    """Validations without a better mean Dice after which training ends; 0: never."""
    release: str = "best"
    """Which weights become the run's model, those of the "best" validation, or the "last", so that held-out cases
    choose nothing."""

    def __post_init__(self) -> None:
        _choice("validation.release", self.release, ("best", "last"))
        _check(self.every >= 1, f"validation.every {self.every} must be 1 or more")
        _check(self.patience >= 0, f"validation.patience {self.patience} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One experiment; see Training/configs/ for examples."""

    name: str
    """Of the experiment, and of the model that it makes."""
    sources: tuple[SourceConfig, ...]
    """What is trained and validated on."""
    network: NetworkChoice = field(default_factory=NetworkChoice)
    """By its name; its channels come from the data."""
    preprocess: PreprocessSpec = field(default_factory=lambda: PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c")))
    """What the network sees."""
    inference: InferenceSpec = field(default_factory=InferenceSpec)
    """How it is validated, and run once it is released."""
    augment: AugmentConfig = AugmentConfig()
    """How samples are varied."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """With its schedule."""
    validation: ValidationConfig = ValidationConfig()
    """When it is validated, and how."""
    initial_model: str = ""
    """A model package to start from; empty: fresh weights."""
    freeze: str = ""
    """"encoder": its weights stay as they are, for fewer than five corrected cases; empty: all learn."""
    seed: int = 1
    """Of fresh weights and of every sample that is drawn."""
    patch: tuple[int, int, int] = (128, 128, 128)
    """(D, H, W) of a sample, in voxels of the preprocessed case."""
    batch: int = 2
    """Patches of one step, over all processes and micro-batches: neither changes what is learnt."""
    accumulation: int = 1
    """Micro-batches that a process's share of the batch is cut into."""
    steps: int = 250_000
    """Of the optimizer, in all."""
    loss: str = "dice_ce"
    """"dice_ce" or "ce"."""
    deep_supervision: bool = False
    """Learn by outputs on halved grids of the decoder too (networks.deep); the model is released without them."""
    head: str = "labels"
    """What the network is asked: "labels", softmax of labels, or "regions", sigmoid of nested regions."""
    foreground: float = 0.75
    """Share of patches centred on a labelled voxel, of a label drawn among those present."""
    precision: str = "bf16"
    """"bf16": autocast, where device and network do it well; or "fp32". Parameters are float32 always."""
    checkpoint_activations: bool = False
    """Less memory for one more forward pass."""
    checkpoint_minutes: float = 10.0
    """Between checkpoints, besides one at every validation."""
    channels_last: bool = True
    """Memory format of activations; which is faster on a GPU, gpu_steps.py measures (Training/README.md)."""
    cudnn_benchmark: bool = False
    """cuDNN tries its algorithms at the first step and keeps the fastest."""
    compile: bool = False
    """torch.compile; where that fails the training goes on without, and says why."""
    workers: int | None = None
    """Processes that prepare patches; None: beside a GPU all cores but one a GPU."""
    weights_dtype: str = "float32"
    """Of the released weights; "float16" halves the file."""
    cache: str = "runs/cache"
    """Folder of preprocessed cases, keyed by content."""

    def __post_init__(self) -> None:
        _choice("freeze", self.freeze, ("", "encoder"))
        _choice("loss", self.loss, ("ce", "dice_ce"))
        _choice("head", self.head, HEADS)
        _check(not self.inference.nested, "inference.nested follows from head and the labels; set head = 'regions'")
        _choice("weights_dtype", self.weights_dtype, ("float16", "float32"))
        _choice("precision", self.precision, ("bf16", "fp32"))
        if not self.network.takes_bf16:  # whatever was asked, of training and of the model
            object.__setattr__(self, "precision", "fp32")
            object.__setattr__(self, "inference", dataclasses.replace(self.inference, bf16=False))
        _check(len(self.patch) == 3 and min(self.patch) >= 1, f"patch {self.patch} must be three sides of 1 or more")
        self.network.resolve(
            len(self.preprocess.modalities), 2, cast(tuple[int, int, int], tuple(self.patch))
        )  # says what patches it takes
        _check(bool(self.name.strip()), f"name {self.name!r} must not be empty")
        _check(self.seed >= 0, f"seed {self.seed} must be 0 or more")
        for name in ("batch", "steps", "accumulation"):
            _check(getattr(self, name) >= 1, f"{name} {getattr(self, name)} must be 1 or more")
        _check(0 <= self.foreground <= 1, f"foreground {self.foreground} must be 0 to 1")
        _check(self.checkpoint_minutes > 0, f"checkpoint_minutes {self.checkpoint_minutes} must be above 0")
        _check(self.workers is None or self.workers >= 0, f"workers {self.workers} must be 0 or more")
        learning = [source for source in self.sources if not source.held_out]
        _check(bool(learning), "a training needs at least one [[sources]] entry, and one that is not held out")
        sets = [source for source in self.sources if source.dataset or source.packed]
        _check(bool(sets), "a training needs a data set beside its patches, which says what the labels mean")


def load_config(path: Path | str, overrides: list[str] | None = None) -> TrainingConfig:
    """Reads a TOML file, applies `key.sub=value` overrides, and checks everything.

    `base = "other.toml"` takes over the settings of another file that this one does not give itself; a list, such as
    sources, is taken whole. Relative folders count from the folder of the file they stand in; those of an override
    from the working directory. Raises InputError.
    """
    values = load_values(path)
    for text in overrides or []:
        settings.override(TrainingConfig, values, text)
    return settings.build(TrainingConfig, values, str(path))


def load_values(path: Path | str) -> dict:
    """The settings of a TOML file over those of its base, folders resolved, not checked. Raises InputError."""
    return _read(Path(path), ())


def _read(path: Path, below: tuple[Path, ...]) -> dict:
    """The values of a file over those of its bases, folders resolved."""
    if not path.exists():
        raise InputError(f"configuration {path} does not exist")
    values = settings.read_toml(path, "configuration")
    place = path.resolve()
    if place in below:
        raise InputError(f"configuration {path} is its own base, by way of {below[-1]}")
    sources = values.get("sources")
    tables = [values, *(s for s in (sources if isinstance(sources, list) else []) if isinstance(s, dict))]
    for table, key in itertools.product(tables, ("dataset", "patches", "packed", "initial_model", "cache", "base")):
        if table.get(key) and isinstance(table[key], str):  # anything else is refused later, by its type
            table[key] = str(place.parent / table[key])
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"configuration {path}: base {base!r} must be the name of a file")
    return settings.merge(TrainingConfig, _read(Path(base), (*below, place)), values)


def resolved(config: TrainingConfig) -> dict:
    """The configuration as plain JSON, for run/config.json and manifests: names instead of this machine's folders."""
    values = settings.plain(config)
    for source in values["sources"]:
        source.update({key: Path(source[key]).name for key in ("dataset", "patches", "packed")})
    values.update(cache="", initial_model=Path(config.initial_model).name)
    values["network"] = {key: value for key, value in values["network"].items() if value is not None}
    return without_empty(values)


_SWITCHES = ("deep_supervision", "keep_right")  # that not every version has, or had


def without_empty(values: dict) -> dict:
    """A resolved configuration without keys that say nothing: records of other versions have none."""
    augment, sources = values.get("augment"), values.get("sources")
    if isinstance(augment, dict):
        usual = {"carve": 0, "mirror": True}
        kept = {key: value for key, value in augment.items() if key not in usual or value != usual[key]}
        values = {**values, "augment": kept}
    values = {key: value for key, value in values.items() if not (key in _SWITCHES and value is False)}
    if not isinstance(sources, list | tuple) or not all(isinstance(source, dict) for source in sources):
        return values
    return {**values, "sources": [{key: value for key, value in s.items() if value != ""} for s in sources]}
