"""What is to be segmented in which images: modalities, labels, regions, as data. The default is brain tumours.

A task file, TOML or JSON, describes another one:

    modalities = ["ct"]          # as the files end: CASE/ct.nii.gz, CASE/x_ct.nii.gz
    [labels]                     # name = value in the label files, or a list of values
    lesion = 1
    [regions]                    # what is scored: name = list of labels; without it, each label by itself
    lesion = ["lesion"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segmamba import settings
from segmamba.cases.labels import CONVENTIONS, GLIOMA, SCHEMES, LabelScheme, cohort_of, find_convention
from segmamba.errors import InputError
from segmamba.images.modalities import MODALITIES


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a data set is made for: its modalities, labels and regions."""

    modalities: tuple[str, ...] = MODALITIES
    """That every case has, in the order of channels."""
    scheme: LabelScheme = GLIOMA
    """Labels (name -> 1 to n) and regions."""
    label_values: dict[str, str] | None = None
    """Value in the label files -> name of the label; None: brain tumours in a convention to be found."""

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise InputError(f"modalities {', '.join(self.modalities) or 'none'}: expected at least one, each once")


@dataclass(frozen=True, kw_only=True)
class _TaskFile:
    modalities: tuple[str, ...] = MODALITIES
    labels: dict[str, tuple[int, ...]]
    regions: dict[str, tuple[str, ...]] | None = None


def read_task(path: Path) -> Task:
    """A task file, TOML or JSON. Raises InputError for what it does not say or says wrongly."""
    read = settings.read_json if path.suffix.lower() == ".json" else settings.read_toml
    values = read(path, "task file")
    if isinstance(values, dict) and isinstance(values.get("labels"), dict):
        labels = {name: v if isinstance(v, list) else [v] for name, v in values["labels"].items()}
        values = {**values, "labels": labels}
    described = settings.build(_TaskFile, values, f"task file {path}")
    try:
        return custom_task(described.modalities, described.labels, described.regions)
    except InputError as error:
        raise InputError(f"task file {path}: {error}") from None


def custom_task(
    modalities: Iterable[str],
    labels: Mapping[str, Iterable[int]],
    regions: Mapping[str, Iterable[str]] | None = None,
) -> Task:
    """A task of labels of one's own.

    Args:
        modalities: that every case has, in the order of channels.
        labels: name -> values in the label files, above 0; several values become one label.
        regions: name -> names of its labels; None or empty: each label is a region.

    Returns:
        The task, its labels numbered from 1 in the order given.

    Raises:
        InputError: for a value that is below 1 or stands for two labels, a label without one, or a region of unknown
            labels.
    """
    values: dict[str, str] = {}
    for name, numbers in labels.items():
        for number in numbers:
            if number < 1:
                raise InputError(f"label {name} has the value {number}: expected whole numbers above 0")
            if str(number) in values:
                raise InputError(f"value {number} is both {values[str(number)]} and {name}; expected one label a value")
            values[str(number)] = name
    if empty := [name for name in labels if name not in values.values()]:
        raise InputError(f"label {', '.join(empty)} has no value in the label files")
    regions = {name: (name,) for name in labels} if not regions else {r: tuple(names) for r, names in regions.items()}
    scheme = LabelScheme(labels={name: i for i, name in enumerate(labels, start=1)}, regions=regions)
    return Task(modalities=tuple(modalities), scheme=scheme, label_values=values)


def glioma_values(convention: str) -> dict[str, str]:
    """A convention of segmamba.cases.labels -> value in the label files -> name of the label."""
    if convention not in CONVENTIONS:
        raise InputError(f"unknown label convention {convention!r}; known are {', '.join(CONVENTIONS)}")
    names = {value: name for name, value in GLIOMA.labels.items()}
    return {str(value): names[label] for value, label in CONVENTIONS[convention].items()}


def suggest_labels(known: Mapping[str, str], unknown: Iterable[int]) -> str:
    """How to make a data set with values that are labels of a convention, beyond those of tumours; "" for others.

    Args:
        known: value in the label files -> name of the label.
        unknown: values that were found besides.

    Returns:
        The end of a sentence, with the options of `segmamba dataset init` last.
    """
    for convention, scheme in SCHEMES.items():
        if known == glioma_values(convention) and set(unknown) <= set(scheme.labels.values()):
            options = [f"--label {name}={value}" for name, value in scheme.labels.items()]
            options += [f"--region {name}={'+'.join(labels)}" for name, labels in scheme.regions.items()]
            return f"; for all labels of {convention} make it anew, instead of --labels {' '.join(options)}"
    return ""


def settle_convention(seen: Mapping[int, list[str]], final: bool) -> str | None:
    """Label values -> the ids of cases that hold them, of brain tumours in a convention nobody stated -> its name.

    None while `final` is not set and the rest of the cases may still settle it. Raises InputError once they cannot.
    """
    values = set(seen)
    if not final and values <= {1, 2, 4}:
        return None
    names = [case for ids in seen.values() for case in ids]
    cohorts = {cohort_of(name) for name in names}
    try:
        return find_convention(values, names[0] if len(cohorts) == 1 else "")
    except InputError as error:
        where = "; ".join(f"{v} in {len(ids)} case(s), e.g. {ids[0]}" for v, ids in sorted(seen.items()))
        known = ", ".join(CONVENTIONS)
        raise InputError(
            f"{error} (seen so far: {where}). Say which with --labels {known.replace(', ', '|')}, "
            "or describe other labels in a --task file"
        ) from None
