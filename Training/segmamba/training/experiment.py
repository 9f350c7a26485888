"""What a configuration stands for, before anything is learnt: its cases, its network, its samples."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from segmamba.cases.labels import LabelScheme
from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.datasets.workers import map_cases
from segmamba.errors import InputError, Stopped
from segmamba.models.package import Manifest, find_model, load_package
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.networks.choice import AnyNetworkConfig, build, checkpoint_activations
from segmamba.networks.heads import count_channels, nested_labels, regions_from_labels
from segmamba.networks.segmamba import NetworkConfig
from segmamba.training.augment import build_augmentation
from segmamba.training.carve import Carving, check_background
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World, cores
from segmamba.training.optimize import check_patch
from segmamba.training.packed import prepare_packed
from segmamba.training.patches import prepare_patches
from segmamba.training.plan import Plan, arrange_patches, make_plan
from segmamba.training.samples import PatchDataset, TrainingCase, find_case, prepare
from segmamba.training.stop_signals import StopRequests

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

    def ancestry_record(self) -> dict:
        """What the initial model, and those before it, were trained on; empty for fresh weights.

        {"learnt_before": hashes as of `data_record`, "held_out_learnt_before": ids of the held-out cases among them},
        each where there are any.
        """
        earlier = self.parent.training if self.parent else {}
        cases, before = earlier.get("cases"), earlier.get("learnt_before")
        learnt = {*(cases.values() if isinstance(cases, dict) else ()), *(before if isinstance(before, list) else ())}
        seen = [case.id for case in self.held_out if case.digest in learnt]
        found = {"learnt_before": sorted(learnt), "held_out_learnt_before": seen}
        return {name: entries for name, entries in found.items() if entries}


@dataclass(frozen=True, eq=False)
class Beginning:
    """What is known of a training before its cases are prepared, and was found fit for it."""

    config: TrainingConfig
    """Of the training."""
    plan: Plan
    """Its sources."""
    network_config: AnyNetworkConfig
    """Name and sizes of the network."""
    network: nn.Module
    """With the weights that the training starts from."""
    parent: Manifest | None
    """Of the initial model; None: fresh weights."""
    nested: tuple[int, ...]
    """The head (networks.heads)."""


def begin(config: TrainingConfig, world: World) -> Beginning:
    """Everything that can be refused of a training is refused here, where it costs seconds.

    Cases are prepared next, which may take hours. Raises InputError for bad sources, an initial model that does not
    fit, and settings that this device, so many processes or the labels of the data do not take.
    """
    if config.batch % (world.size * config.accumulation):
        raise InputError(
            f"batch {config.batch} cannot be shared by {world.size} processes with {config.accumulation} "
            "micro-batches each; make it a multiple of their product"
        )
    check_patch(config, world.device)
    if config.augment.carve:
        check_background(config.preprocess)
    plan = make_plan(config)
    if config.augment.mirrors:
        plan.scheme.check_mirroring("set augment.mirror = false and augment.carve = 0")
    nested = nested_labels(plan.scheme) if config.head == "regions" else ()
    channels = count_channels(len(plan.scheme.labels), nested)
    network_config = config.network.resolve(
        len(config.preprocess.modalities), channels, cast(tuple[int, int, int], tuple(config.patch))
    )
    network, parent = _network(config, network_config, plan.scheme, nested)
    return Beginning(config, plan, network_config, network, parent, nested)


def load_experiment(
    config: TrainingConfig, world: World, beginning: Beginning | None = None, stop: StopRequests | None = None
) -> Experiment:
    """Prepares all cases that are not in the cache, each process its part.

    Args:
        config: of the training.
        world: its processes.
        beginning: what `begin` gave; None: it is called here.
        stop: asks for an end between two cases; None: nobody does.

    Returns:
        All that the training works on.

    Raises:
        InputError: as `begin`, and for a case that cannot be prepared.
        Stopped: where an end was asked for, in any of the processes.
    """
    found = beginning or begin(config, world)
    groups, held_out = _prepare(found.plan, config, world, stop)
    inference = replace(config.inference, nested=found.nested)
    if not isinstance(found.network_config, NetworkConfig):
        inference = replace(inference, window=tuple(config.patch), pad_to_window=True)
    shares = [source.share for source in config.sources if not source.held_out]
    chance = config.augment.carve
    samples = PatchDataset(
        groups,
        shares,
        cast(tuple[int, int, int], tuple(config.patch)),
        build_augmentation(config.augment.set, config.augment.modality_dropout, config.augment.mirror),
        config.foreground,
        config.seed,
        Carving(chance, config.preprocess, groups, shares, config.seed) if chance else None,
    )
    scheme, network = found.plan.scheme, found.network
    return Experiment(groups, held_out, scheme, found.network_config, network, inference, samples, found.parent)


def prepare_ahead(beginning: Beginning, world: World, stop: StopRequests | None = None) -> None:
    """Preprocesses this process's part of the cases that are not in the cache yet, where they are many, side by side.

    Before the processes of a training join: none then waits for another with a GPU in its hands.

    Args:
        beginning: what `begin` gave.
        world: the processes of the training.
        stop: once it asks for an end, the rest is left to `load_experiment`, where the processes end together.

    Raises:
        InputError: for files that are missing or changed; a case that cannot be prepared is left to `load_experiment`.
    """
    spec, cache = beginning.config.preprocess, Path(beginning.config.cache)
    every = [
        (replace(dataset, cases=(entry,)), entry)
        for dataset, training, validation in beginning.plan.datasets.values()
        for entry in (*training, *validation)
    ]
    mine = every[world.rank :: world.size]
    waiting = [
        (dataset, entry)
        for dataset, entry in mine
        if not stop and not find_case(dataset, entry, spec, cache).cached.exists()
    ]
    jobs = min(cores() // world.local_size, len(waiting) // _CASES_A_PROCESS)
    if jobs < 2:  # a process costs seconds to begin: few cases are prepared as they are loaded
        return
    log.info("preparing %d cases in %d processes", len(waiting), jobs)
    try:
        for _ in map_cases(partial(_prepare_one, spec, cache), waiting, jobs, None):
            if stop:
                return
    except KeyboardInterrupt:  # of a helper: a terminal tells every process
        if not stop:
            raise
    except InputError as error:  # of a case: said again when it is loaded; of memory: then they come one by one
        if not stop:  # with which a helper may have ended
            log.warning("%s", error)


def _prepare_one(spec: PreprocessSpec, cache: Path, item: tuple[Dataset, CaseEntry]) -> None:
    torch.set_num_threads(1)
    prepare(*item, spec, cache)


def _prepare(
    plan: Plan, config: TrainingConfig, world: World, stop: StopRequests | None
) -> tuple[list[list[TrainingCase]], list[TrainingCase]]:
    """-> the training cases of each source that is trained on, and the validation cases of all."""
    spec, cache, labels = config.preprocess, Path(config.cache), len(plan.scheme.labels)
    jobs: list[tuple[int, str, Callable[[], TrainingCase]]] = [
        (number, kind, partial(prepare, dataset, entry, spec, cache))
        for number, (dataset, training, validation) in plan.datasets.items()
        for kind, entries in (("training", training), ("validation", validation))
        for entry in entries
    ]
    for number, packed in plan.packed.items():
        indices = range(len(packed.cases))[: config.sources[number].at_most]
        jobs += [(number, "training", partial(prepare_packed, packed, i, cache)) for i in indices]
    for number, blocks in arrange_patches(plan, config).items():
        file = plan.patches[number]
        jobs += [(number, "training", partial(prepare_patches, file, block, spec, labels, cache)) for block in blocks]
    mine = [(number, kind, make()) for number, kind, make in jobs[world.rank :: world.size] if not stop]
    if stop is not None and world.any(bool(stop)):
        raise Stopped(None, stop.number)
    # the same order in every process, and whatever their number
    done = sorted(world.gather(mine), key=lambda job: (job[0], job[2].id, job[2].digest))
    learning = sorted({number for number, kind, _ in done if kind == "training"})
    groups = [[case for n, kind, case in done if n == number and kind == "training"] for number in learning]
    held_out = [case for _, kind, case in done if kind == "validation"]
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
        limited = {region for limits in asdict(manifest.postprocess).values() for region in limits}
        if unknown := sorted(limited - set(scheme.regions)):
            names, known = ", ".join(unknown), ", ".join(scheme.regions)
            raise InputError(f"initial_model {config.initial_model} has limits for {names}; the data have {known}")
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
