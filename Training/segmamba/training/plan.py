"""What a training learns from and is judged on: its sources, read and checked before a single case is prepared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmamba.cases.labels import LabelScheme, cohort_of
from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.errors import InputError
from segmamba.training.config import SourceConfig, TrainingConfig
from segmamba.training.packed import Packed, check_files, read_packed
from segmamba.training.patches import PatchFile, arrange, check_modalities, read_patches

# A data set, its training and its validation entries
Planned = tuple[Dataset, tuple[CaseEntry, ...], tuple[CaseEntry, ...]]


@dataclass(frozen=True, eq=False)
class Plan:
    """The sources of a configuration, each by its number there."""

    scheme: LabelScheme
    """Labels and regions of them all."""
    datasets: dict[int, Planned]
    """Data sets, with what of each is trained on and validated on."""
    packed: dict[int, Packed]
    """Folders of packed cases."""
    patches: dict[int, PatchFile]
    """Files of patches, with their arrays."""

    @property
    def validated(self) -> list[CaseEntry]:
        """What is validated on, of all data sets."""
        return [case for _, _, validation in self.datasets.values() for case in validation]


def make_plan(config: TrainingConfig) -> Plan:
    """Reads the sources of a configuration; of data sets and packed cases no image.

    Raises InputError where one is missing, damaged or not what the configuration asks for, where their labels differ,
    and where what is validated on is trained on too.
    """
    datasets: dict[int, Planned] = {}
    packed: dict[int, Packed] = {}
    schemes: dict[str, LabelScheme] = {}
    for number, source in enumerate(config.sources):
        if source.packed:
            packed[number] = _read_packed(source, config)
            _take_scheme(schemes, f"packed cases {source.packed}", packed[number].scheme)
        elif source.dataset:
            dataset, training, validation = _select(source)
            _take_scheme(schemes, f"data set {dataset.name}", dataset.scheme)
            datasets[number] = dataset, training, validation
    scheme = next(iter(schemes.values()))  # a configuration has one source at least that is no file of patches
    plan = Plan(scheme, datasets, packed, _read_patches(config, len(scheme.labels)))
    learnt = [case for _, training, _ in datasets.values() for case in training]
    if learnt and not any(may_hold_labels(case) for case in learnt):
        raise InputError(
            f"the label maps of all {len(learnt)} training cases are empty, and a model that is trained on them finds "
            "nothing; draw what there is to label, then `segmamba dataset init --update`"
        )
    check_apart(list(datasets.values()))
    _check_names_apart(plan, plan.validated, "validated on")
    check_ids([case.id for case in plan.validated], "hold out")
    return plan


def _select(source: SourceConfig) -> Planned:
    """A data set, and what of it is trained on and validated on."""
    dataset = read_dataset(source.dataset)
    labelled = tuple(case for case in dataset.cases if case.label)
    if source.held_out:
        training, validation = (), labelled
    elif source.validate:
        training, validation = training_cases(dataset, source.fold), validation_cases(dataset, source.fold)
    else:
        training, validation = labelled, ()
    if not (validation if source.held_out else training):
        use = "validate on" if source.held_out else "train on"
        raise InputError(f"data set {dataset.name} has no labelled case to {use}")
    return dataset, training[: source.at_most], validation


def _take_scheme(schemes: dict[str, LabelScheme], name: str, scheme: LabelScheme) -> None:
    """Raises InputError where the labels of a source are not those of the sources before it."""
    for first, known in schemes.items():
        if known != scheme:
            raise InputError(f"{name} has other labels or regions than {first.removeprefix('data set ')}")
    schemes[name] = scheme


def _read_packed(source: SourceConfig, config: TrainingConfig) -> Packed:
    found = read_packed(source.packed)
    if found.preprocess != config.preprocess:
        raise InputError(
            f"packed cases {source.packed} were preprocessed otherwise than the configuration asks: "
            f"{found.preprocess}, not {config.preprocess}"
        )
    check_files(found, source.at_most, Path(config.cache))
    return found


def _read_patches(config: TrainingConfig, labels: int) -> dict[int, PatchFile]:
    files = {}
    for number, source in enumerate(config.sources):
        if source.patches:
            files[number] = read_patches(source.patches, labels)
            check_modalities(files[number], config.preprocess)
    return files


def arrange_patches(plan: Plan, config: TrainingConfig) -> dict[int, list[np.ndarray]]:
    """The blocks (training.patches.arrange) of each source of patches that are trained on."""
    longest = max(side * spacing for side, spacing in zip(config.patch, config.preprocess.spacing))
    return {number: arrange(file, longest)[: config.sources[number].at_most] for number, file in plan.patches.items()}


def may_hold_labels(entry: CaseEntry) -> bool:
    """Whether the label map of a case has a voxel of any label, or nothing was measured."""
    measured = entry.statistics.get("labels")
    return measured is None or any(label["voxels"] for label in measured.values())


def check_test_apart(config: TrainingConfig, kept: Sequence[tuple[Dataset, tuple[CaseEntry, ...]]]) -> None:
    """Refuses to train on what is kept for a test.

    Raises InputError where one of those images is trained on, or a packed case or patch bears its name.
    """
    plan = make_plan(config)
    trained = [(dataset, training, ()) for dataset, training, _ in plan.datasets.values()]
    check_apart([*trained, *((dataset, (), entries) for dataset, entries in kept)], "tested on")
    _check_names_apart(plan, [entry for _, entries in kept for entry in entries], "tested on")


def check_apart(plan: Sequence[Planned], use: str = "validated on", how: str = "trained on as") -> None:
    """Raises InputError where an image is trained on and validated on, under whatever name and in whatever file.

    And where a patient is, as far as names tell: those of public cohorts mean the same patient in every data set.

    Args:
        plan: data sets, each with the cases that are trained on and those that are validated on.
        use: what the error says of the latter.
        how: what it says of the former.
    """

    def images(entry: CaseEntry) -> set:
        measured = entry.statistics.get("images", {})
        files = {(file.sha256, file.volume) for file in entry.images.values()}
        return files | {facts["content"] for facts in measured.values() if "content" in facts}

    trained = {image: entry.id for _, training, _ in plan for entry in training for image in images(entry)}
    patients = {entry.subject: entry.id for _, training, _ in plan for entry in training if cohort_of(entry.id)}
    for dataset, _, validation in plan:
        for entry in validation:
            if cohort_of(entry.id) and entry.subject in patients:
                raise InputError(
                    f"case {entry.id} of data set {dataset.name} is {use}, and its patient {how} "
                    f"{patients[entry.subject]}; take the patient out of one of the two"
                )
            if both := [trained[image] for image in images(entry) if image in trained]:
                raise InputError(
                    f"case {entry.id} of data set {dataset.name} is {use}, and {how} {both[0]}; "
                    "take it out of one of the two"
                )


def _check_names_apart(plan: Plan, held_out: list[CaseEntry], use: str) -> None:
    """Of packed cases and patches, whose files are not those of a data set, names are all there is to compare."""
    for packed in plan.packed.values():
        check_patients_apart("packed case", packed.folder, [case.id for case in packed.cases], held_out, use)
    for file in plan.patches.values():
        check_patients_apart("patch", str(file.path), file.ids, held_out, use)


def check_patients_apart(
    kind: str, where: str, ids: Sequence[str], held_out: list[CaseEntry], use: str = "validated on"
) -> None:
    """Raises InputError where a patient's images are on both sides, as far as names tell.

    Args:
        kind: of what is trained on, as the error calls it.
        where: its file or folder.
        ids: of what is trained on. One that is the id of a held-out case or of its subject, or begins with it, is its.
        held_out: cases.
        use: what these are for.
    """
    for entry in held_out:
        for name in (entry.id, entry.subject):
            if found := [i for i in ids if i == name or i.startswith(f"{name}_") or i.startswith(f"{name}-")]:
                raise InputError(
                    f"{kind} {found[0]} of {where} is named as case {entry.id}, which is {use}; take it out of there"
                )


def check_ids(ids: Sequence[str], what: str) -> None:
    """Refuses two cases of one name, of which a table of scores would keep one.

    Args:
        ids: of the cases that are scored together.
        what: the sources do with them, for the error.

    Raises:
        InputError: where an id occurs twice.
    """
    if twice := sorted(i for i, count in Counter(ids).items() if count > 1):
        raise InputError(f"the sources {what} several cases of one id: {', '.join(twice[:5])}; rename one in its set")
