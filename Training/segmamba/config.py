"""The configuration of a training: a TOML file to frozen dataclasses, the reason under each field."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from segmamba import settings
from segmamba.errors import InputError
from segmamba.inference import InferenceSpec
from segmamba.labels import CONVENTIONS
from segmamba.network import STRIDE, NetworkConfig, preset_config
from segmamba.preprocess import PreprocessSpec


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One folder of cases. Relative folders count from the folder of the configuration file.

    convention: of its label maps (segmamba.labels). share: weight with which a training sample comes from here.
    folds: where set, every folds-th case by sorted id, beginning with `fold`, is kept for validation.
    """

    folder: str
    convention: str
    share: float = 1.0
    folds: int = 0
    fold: int = 0

    def __post_init__(self):
        if self.convention not in CONVENTIONS:
            raise InputError(
                f"source {self.folder}: unknown convention {self.convention!r}; known are {', '.join(CONVENTIONS)}"
            )
        if self.folds and not 0 <= self.fold < self.folds:
            raise InputError(f"source {self.folder}: fold {self.fold} must be 0..{self.folds - 1}")
        if self.share <= 0:
            raise InputError(f"source {self.folder}: share {self.share} must be above 0")


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """A preset, with single settings replaced where they are given."""

    preset: str = "released"
    in_channels: int | None = None
    out_channels: int | None = None

    def __post_init__(self):
        self.resolve()

    def resolve(self) -> NetworkConfig:
        given = {k: v for k, v in dataclasses.asdict(self).items() if k != "preset" and v is not None}
        return preset_config(self.preset, **given)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One experiment; see Training/configs/ for examples."""

    name: str
    sources: tuple[SourceConfig, ...]
    network: NetworkChoice = NetworkChoice()
    preprocess: PreprocessSpec = field(default_factory=lambda: PreprocessSpec(modalities=("t2w", "t2f", "t1n", "t1c")))
    inference: InferenceSpec = field(default_factory=InferenceSpec)
    initial_model: str = ""  # a model package to start from; empty: fresh weights
    seed: int = 1
    patch: tuple[int, int, int] = (128, 128, 128)
    batch: int = 2
    steps: int = 250_000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 100  # steps of linear warm-up; then polynomial decay, exponent 0.9
    gradient_clip: float = 12.0
    ema: float = 0.999  # decay of the averaged weights, which are what is validated and released
    precision: str = "bf16"  # bf16 autocast, or fp32
    foreground: float = 0.75  # share of patches centred on a tumour voxel, of a label drawn among those present
    validate_every: int = 500
    checkpoint_every: int = 250
    cache: str = "runs/cache"  # preprocessed cases, keyed by content

    def __post_init__(self):
        if self.precision not in ("bf16", "fp32"):
            raise InputError(f"precision {self.precision!r} must be 'bf16' or 'fp32'")
        sides = self.patch
        if len(sides) != 3 or any(side < 1 or side % STRIDE for side in sides) or max(sides) == STRIDE:
            raise InputError(
                f"patch {sides} must be three multiples of {STRIDE}, at least one of them {2 * STRIDE} or more"
            )
        for name in ("batch", "steps", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be 1 or more")
        if not self.sources:
            raise InputError("a training needs at least one [[sources]] entry")


def load_config(path: Path | str, overrides: list[str] | None = None) -> TrainingConfig:
    """Reads a TOML file, applies `key.sub=value` overrides, and checks everything.

    Relative folders and files in it are resolved against the file's own folder. Raises InputError.
    """
    path = Path(path)
    try:
        values = settings.parse_toml(path.read_text(encoding="utf-8"), f"configuration {path}")
    except FileNotFoundError:
        raise InputError(f"configuration {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"configuration {path} cannot be read: {error}") from None
    for text in overrides or []:
        settings.override(values, text)
    base = path.parent.resolve()
    sources = values.get("sources")
    tables = [values, *(s for s in (sources if isinstance(sources, list) else []) if isinstance(s, dict))]
    for table, key in itertools.product(tables, ("folder", "initial_model", "cache")):
        if table.get(key) and isinstance(table[key], str):  # anything else is refused below, by its type
            table[key] = str(base / table[key])
    return settings.build(TrainingConfig, values, str(path))
