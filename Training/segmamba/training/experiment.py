"""What a configuration stands for, before anything is learnt: its cases, its network, its samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from segmamba.cases.labels import LabelScheme
from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.datasets.workers import map_cases
from segmamba.errors import InputError
from segmamba.models.package import Manifest, find_model, load_package
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.networks.choice import AnyNetworkConfig, build, checkpoint_activations
from segmamba.networks.heads import count_channels, nested_labels, regions_from_labels
from segmamba.networks.segmamba import NetworkConfig
from segmamba.training.augment import build_augmentation
from segmamba.training.carve import Carving
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World, cores
from segmamba.training.packed import Packed, prepare_packed, read_packed
from segmamba.training.patches import arrange, prepare_patches, read_patches
from segmamba.training.samples import PatchDataset, TrainingCase, find_case, prepare

log = logging.getLogger(__name__)

_CASES_A_PROCESS = 4  # of preprocessing, at least
_ENCODERS = ("vit", "encoder", "mamba_encoder")  # what the forms of SegMamba call it


@dataclass(frozen=True)
class Experiment:
    """All that a training works on."""

    groups: list[list[TrainingCase]]
    """Training cases per source."""
    held_out: list[TrainingCase]
    """Validation cases of all sources."""
    scheme: LabelScheme
    """Labels and regions of the data."""
    network_config: AnyNetworkConfig
    """Name and sizes of the network."""
    network: nn.Module
    """With the weights that the training starts from."""
    inference: InferenceSpec
    """As in the configuration, or with the patch as window for networks that take nothing else."""
    samples: PatchDataset
    """Patches of the training cases."""
    parent: Manifest | None
    """Of the initial model; None: fresh weights."""

    @property
    def postprocess(self) -> PostprocessSpec:
        """The parent's limits hold until others are fitted on the new model's out-of-fold predictions."""
        return self.parent.postprocess if self.parent else PostprocessSpec()

    @property
    def classes(self) -> int:
        """Channels of the network's output."""
        return 1 + len(self.scheme.labels)

    def data_record(self) -> dict:
        """What the run worked on: {"cases", "held_out"}, id -> hash of images, label and preprocessing."""
        return {
            "cases": {case.id: case.digest for group in self.groups for case in group},
            "held_out": {case.id: case.digest for case in self.held_out},
        }


def load_experiment(config: TrainingConfig, world: World) -> Experiment:
    """Reads, checks and preprocesses all data, each process its part. Raises InputError."""
    scheme, plan, packed = _plan(config)
    groups, held_out = _prepare(plan, packed, scheme, config, world)
    nested = nested_labels(scheme) if config.head == "regions" else ()
    channels = count_channels(len(scheme.labels), nested)
    network_config = config.network.resolve(
        len(config.preprocess.modalities), channels, cast(tuple[int, int, int], tuple(config.patch))
    )
    network, parent = _network(config, network_config, scheme, nested)
    inference = replace(config.inference, nested=nested)
    if not isinstance(network_config, NetworkConfig):
        inference = replace(inference, window=tuple(config.patch), pad_to_window=True)
    shares = [source.share for source in config.sources if not source.held_out]
    chance = config.augment.carve
    samples = PatchDataset(
        groups,
        shares,
        cast(tuple[int, int, int], tuple(config.patch)),
        build_augmentation(config.augment.set, config.augment.modality_dropout),
        config.foreground,
        config.seed,
        Carving(chance, config.preprocess, groups, shares, config.seed) if chance else None,
    )
    return Experiment(groups, held_out, scheme, network_config, network, inference, samples, parent)


def prepare_ahead(config: TrainingConfig, world: World) -> None:
    """Preprocesses this process's part of the cases that are not in the cache yet, where they are many, side by side.

    Before the processes of a training join: none then waits for another with a GPU in its hands. Raises InputError for
    bad sources; a case that cannot be prepared is left to `load_experiment`.
    """
    _, plan, _ = _plan(config)
    spec, cache = config.preprocess, Path(config.cache)
    every = [
        (replace(dataset, cases=(entry,)), entry)
        for dataset, training, validation in plan.values()
        for entry in (*training, *validation)
    ]
    mine = every[world.rank :: world.size]
    waiting = [
        (dataset, entry) for dataset, entry in mine if not find_case(dataset, entry, spec, cache).cached.exists()
    ]
    jobs = min(cores() // world.local_size, len(waiting) // _CASES_A_PROCESS)
    if jobs < 2:  # a process costs seconds to begin: few cases are prepared as they are loaded
        return
    log.info("preparing %d cases in %d processes", len(waiting), jobs)
    try:
        for _ in map_cases(partial(_prepare_one, spec, cache), waiting, jobs, None):
            pass
    except InputError as error:  # of a case: said again when it is loaded; of memory: then they come one by one
        log.warning("%s", error)


def _prepare_one(spec: PreprocessSpec, cache: Path, item: tuple[Dataset, CaseEntry]) -> None:
    torch.set_num_threads(1)
    prepare(*item, spec, cache)


# A data set, its training and its validation entries; and that by the number of the source
Planned = tuple[Dataset, tuple[CaseEntry, ...], tuple[CaseEntry, ...]]
Plan = dict[int, Planned]


def _plan(config: TrainingConfig) -> tuple[LabelScheme, Plan, dict[int, Packed]]:
    """-> the label scheme, the plan, and {number of the source: packed cases}."""
    plan: Plan = {}
    packed: dict[int, Packed] = {}
    schemes: dict[str, LabelScheme] = {}
    for number, source in enumerate(config.sources):
        if source.patches:
            continue
        if source.packed:
            packed[number] = _read_packed(source.packed, config)
            _take_scheme(schemes, f"packed cases {source.packed}", packed[number].scheme)
            continue
        dataset = read_dataset(source.dataset)
        _take_scheme(schemes, f"data set {dataset.name}", dataset.scheme)
        labelled = tuple(case for case in dataset.cases if case.label)
        if source.held_out:
            training, validation = (), labelled
        elif source.validate:
            training, validation = training_cases(dataset, source.fold), validation_cases(dataset, source.fold)
        else:
            training, validation = labelled, ()
        if not training and not source.held_out:
            raise InputError(f"data set {dataset.name} has no labelled case to train on")
        plan[number] = dataset, training[: source.at_most], validation
    learnt = [case for _, training, _ in plan.values() for case in training]
    if learnt and not any(may_hold_labels(case) for case in learnt):
        raise InputError(
            f"the label maps of all {len(learnt)} training cases are empty, and a model that is trained on them finds "
            "nothing; draw what there is to label, then `segmamba dataset init --update`"
        )
    check_apart(list(plan.values()))
    return next(iter(schemes.values())), plan, packed


def _take_scheme(schemes: dict[str, LabelScheme], name: str, scheme: LabelScheme) -> None:
    """Raises InputError where the labels of a source are not those of the sources before it."""
    for first, known in schemes.items():
        if known != scheme:
            raise InputError(f"{name} has other labels or regions than {first.removeprefix('data set ')}")
    schemes[name] = scheme


def _read_packed(folder: str, config: TrainingConfig) -> Packed:
    found = read_packed(folder)
    if found.preprocess != config.preprocess:
        raise InputError(
            f"packed cases {folder} were preprocessed otherwise than the configuration asks: {found.preprocess}, not "
            f"{config.preprocess}"
        )
    return found


def may_hold_labels(entry: CaseEntry) -> bool:
    """Whether the label map of a case has a voxel of any label, or nothing was measured."""
    measured = entry.statistics.get("labels")
    return measured is None or any(label["voxels"] for label in measured.values())


def check_test_apart(config: TrainingConfig, kept: Sequence[tuple[Dataset, tuple[CaseEntry, ...]]]) -> None:
    """Refuses to train on what is kept for a test.

    Raises InputError where one of those images is trained on, or a packed case or patch bears its name.
    """
    scheme, plan, packed = _plan(config)
    trained = [(dataset, training, ()) for dataset, training, _ in plan.values()]
    check_apart([*trained, *((dataset, (), entries) for dataset, entries in kept)], "tested on")
    tested = [entry for _, entries in kept for entry in entries]
    for number, cases in packed.items():
        ids = [case.id for case in cases.cases]
        check_patients_apart("packed case", config.sources[number].packed, ids, tested, "tested on")
    for source in config.sources:
        if source.patches:
            file = read_patches(source.patches, len(scheme.labels))
            check_patients_apart("patch", str(file.path), file.ids, tested, "tested on")


def check_apart(plan: Iterable[Planned], use: str = "validated on", how: str = "trained on as") -> None:
    """Raises InputError where an image is trained on and validated on, under whatever name and in whatever file.

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
    for dataset, _, validation in plan:
        for entry in validation:
            if both := [trained[image] for image in images(entry) if image in trained]:
                raise InputError(
                    f"case {entry.id} of data set {dataset.name} is {use}, and {how} {both[0]}; "
                    "take it out of one of the two"
                )


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


def _prepare(
    plan: Plan, packed: dict[int, Packed], scheme: LabelScheme, config: TrainingConfig, world: World
) -> tuple[list[list[TrainingCase]], list[TrainingCase]]:
    """-> the training cases of each source that is trained on, and the validation cases of all."""
    spec, cache = config.preprocess, Path(config.cache)
    jobs = [
        (number, kind, partial(prepare, dataset, entry, spec, cache))
        for number, (dataset, training, validation) in plan.items()
        for kind, entries in (("training", training), ("validation", validation))
        for entry in entries
    ]
    validated = [case for _, _, validation in plan.values() for case in validation]
    for number, source in enumerate(config.sources):
        if number in packed:
            ids = [case.id for case in packed[number].cases]
            check_patients_apart("packed case", source.packed, ids, validated)
            indices = range(len(ids))[: source.at_most]
            jobs += [(number, "training", partial(prepare_packed, packed[number], i, cache)) for i in indices]
        if source.patches:
            labels = len(scheme.labels)
            file = read_patches(source.patches, labels)
            check_patients_apart("patch", str(file.path), file.ids, validated)
            longest = max(side * spacing for side, spacing in zip(config.patch, spec.spacing))
            blocks = arrange(file, longest)[: source.at_most]
            jobs += [
                (number, "training", partial(prepare_patches, file, block, spec, labels, cache)) for block in blocks
            ]
    mine = [(number, kind, make()) for number, kind, make in jobs[world.rank :: world.size]]
    done = sorted(world.gather(mine), key=lambda job: (job[0], job[2].id))  # the same order in every process
    learning = sorted({number for number, kind, _ in done if kind == "training"})
    groups = [[case for n, kind, case in done if n == number and kind == "training"] for number in learning]
    held_out = [case for _, kind, case in done if kind == "validation"]
    ids = [case.id for case in held_out]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise InputError(f"the sources hold out several cases of one id: {', '.join(twice[:5])}")
    log.info("%d training cases, %d held out", sum(map(len, groups)), len(held_out))
    return groups, held_out


def _network(
    config: TrainingConfig, network_config: AnyNetworkConfig, scheme: LabelScheme, nested: tuple[int, ...]
) -> tuple[nn.Module, Manifest | None]:
    """-> the network, with fresh weights or those of the initial model, and that model's manifest."""
    torch.manual_seed(config.seed)
    network, parent = build(network_config), None
    if config.initial_model:
        model = load_package(find_model(config.initial_model))
        manifest = model.manifest
        same_head = manifest.inference.nested == nested
        for name, theirs, ours in (
            ("network", manifest.network if same_head else _with_head_of(manifest, network_config), network_config),
            ("preprocessing", manifest.preprocess, config.preprocess),
            ("labels", manifest.scheme.labels, scheme.labels),
        ):
            if theirs != ours:
                where = f"initial_model {config.initial_model}"
                raise InputError(f"{where} has another {name} than the configuration: {theirs}, not {ours}")
        parent = manifest
        if same_head:
            network = model.network.train()
        else:
            _continue_with_regions(network, model.network, nested, f"initial_model {config.initial_model}")
    if config.freeze:
        _freeze(network)
    if config.checkpoint_activations:
        checkpoint_activations(network)
    return network, parent


def _with_head_of(manifest: Manifest, network_config: AnyNetworkConfig) -> AnyNetworkConfig:
    """A model's network, with the output channels of the one that is asked for."""
    return replace(manifest.network, out_channels=network_config.out_channels)


def _continue_with_regions(network: nn.Module, parent: nn.Module, nested: tuple[int, ...], where: str) -> None:
    """The weights of a parent with a "labels" head, the last layer turned into that of a "regions" head."""
    if not nested:
        raise InputError(f"{where} has the head 'regions'; a training cannot go back from it: set head = 'regions'")
    weights = parent.state_dict()
    for name, own in network.state_dict().items():
        if weights[name].shape != own.shape:
            weights[name] = regions_from_labels(weights[name], nested)
    network.load_state_dict(weights)


def _freeze(network: nn.Module) -> None:
    """The encoder's weights learn no more; those of the decoder and of the skips do."""
    parts = [part for name, part in network.named_children() if name in _ENCODERS]
    if not parts:
        raise InputError("freeze = 'encoder' is for SegMamba; leave it out for another network")
    for part in parts:
        part.requires_grad_(False)
