"""What a network costs: parameters, FLOPs, seconds and memory of a training step and of a case.

FLOPs are those of a forward pass of one patch, two for a multiplication with an addition, as torch's counter has them
for convolutions and matrix products (norms, activations and sums are left out). What the counter cannot see is ToM,
whose kernels are not torch's; `tom_flops` has its formula.
"""

from __future__ import annotations

import gc
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segmamba.errors import is_out_of_memory
from segmamba.networks.mamba import D_CONV, D_STATE, TriMamba
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World
from segmamba.training.experiment import Experiment, load_experiment
from segmamba.training.optimize import HeadLoss, build_optimizer, uses_bf16

_STEPS = 3  # measured, after one that is not


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a network costs. Memory is the peak, of which a CPU has none."""

    parameters: int
    """How many numbers it learns."""
    flops: int
    """Of the forward pass of one patch, counted as this file says at its top."""
    micro_batches: int
    """Of a step, doubled from the configuration's until it fits the GPU; where none fits, step has nothing."""
    step_seconds: float | None
    """Of one optimizer step on a batch, its data not included."""
    step_mb: float | None
    """Of such a step."""
    case_seconds: float | None
    """Of a held-out case, from its images to its label map."""
    case_mb: float | None
    """Of such a case."""
    device: str
    """Where it was measured."""


def measure_costs(config: TrainingConfig, device: str) -> Costs:
    """Of the configuration's network with fresh weights. Raises InputError as a training would."""
    gc.collect()  # a training that was here before keeps no memory
    experiment = load_experiment(replace(config, initial_model=""), World(device=device))
    network = experiment.network
    parts, step_seconds, step_mb = _step_costs(config, experiment, device)
    network.zero_grad(set_to_none=True)
    case_seconds, case_mb = None, None
    if experiment.held_out:
        case_seconds, case_mb = _measure(_case_runner(config, experiment, device), device, 1)
    return Costs(
        parameters=sum(p.numel() for p in network.parameters()),
        flops=count_flops(network, (1, len(config.preprocess.modalities), *config.patch)),
        micro_batches=parts,
        step_seconds=step_seconds,
        step_mb=step_mb,
        case_seconds=case_seconds,
        case_mb=case_mb,
        device=device_name(device),
    )


def _step_costs(config: TrainingConfig, experiment: Experiment, device: str) -> tuple[int, float | None, float | None]:
    """-> micro-batches, seconds, MB: as few micro-batches as fit into the GPU, as in a training."""
    parts = config.accumulation
    while True:
        try:
            return parts, *_measure(_stepper(config, experiment, device, parts), device, _STEPS)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if parts >= config.batch:
                return parts, None, None
        torch.cuda.empty_cache()
        parts *= 2


def _stepper(config: TrainingConfig, experiment: Experiment, device: str, parts: int) -> Callable[[], None]:
    """One optimizer step on noise, in the precision and memory format of a training; its labels cost the same."""
    network = cast(Any, experiment.network.train()).to(device, memory_format=torch.channels_last_3d)
    optimizer = build_optimizer(network, config.optimizer)
    kind, autocast = torch.device(device).type, uses_bf16(config, device)
    shape = (config.batch // parts, len(config.preprocess.modalities), *config.patch)
    image = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    label = torch.zeros((len(image), experiment.classes, *config.patch), device=device)
    label[:, 0] = 1
    loss_of = HeadLoss(config.loss, experiment.inference.nested)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(parts):
            with torch.autocast(kind, torch.bfloat16, enabled=autocast):
                logits = network(image)
            loss_of(logits.float(), label).backward()
        optimizer.step()

    return step


def _case_runner(config: TrainingConfig, experiment: Experiment, device: str) -> Callable[[], None]:
    from segmamba.cases.case import load_case  # here: without held-out cases no image is read
    from segmamba.prediction.segment import segment

    entry, network = experiment.held_out[0], experiment.network.eval()
    case = load_case(entry.sources, entry.id, config.preprocess.modalities)

    def run() -> None:
        segment(case, network, config.preprocess, experiment.inference, device=device)

    return run


def _measure(work: Callable[[], object], device: str, times: int) -> tuple[float, float | None]:
    """-> median seconds, peak memory in MB (of CUDA alone), after one run that is not counted."""
    on_gpu = torch.device(device).type == "cuda"

    def once() -> float:
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = statistics.median(once() for _ in range(times))
    return seconds, torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else None


def device_name(device: str) -> str:
    """What a device is called."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def count_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """FLOPs of a forward pass of (B, C, D, H, W) zeros.

    Nothing is computed: the network goes to the meta device, where it loses its weights.
    """
    network = network.to("meta").eval()
    unseen: list[int] = []
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, TriMamba):
                setattr(parent, name, _CountedTriMamba(child, unseen))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(shape, device="meta"))
    return counter.get_total_flops() + sum(unseen)


class _CountedTriMamba(nn.Module):
    """In the place of ToM: notes its FLOPs and gives its input back."""

    def __init__(self, tom: TriMamba, flops: list[int]):
        super().__init__()
        self.channels = tom.in_proj.in_features
        self.directions = len(tom.directions)
        self.flops = flops

    def forward(self, tokens_BLC: Tensor, slices: int) -> Tensor:
        batch, length, _ = tokens_BLC.shape
        self.flops.append(batch * tom_flops(length, self.channels, self.directions))
        return tokens_BLC


def tom_flops(length: int, channels: int, directions: int) -> int:
    """Floating-point operations of one ToM layer.

    Of ToM over L tokens of C channels, with d = 2C inner channels, N states, K taps, R the rank of dt:

    projections in and out: L (4 C d + 2 d C); each direction: causal convolution 2 K L d, projections to B, C, dt 2 L d
    (R + 2N) + 2 L R d, and the scan L d (7 N + 4). Its 7 a state: dt A, exp, times B, decay times h plus input (2),
    times C, sum (2 with the product); its 4 a channel: dt u, D u plus y (2), the gate.

    Args:
        length: L, tokens.
        channels: C, of the layer's input.
        directions: scans of the layer.

    Returns:
        Two for each multiplication with an addition.
    """
    inner, rank = 2 * channels, math.ceil(channels / 16)
    scan = inner * (7 * D_STATE + 4)
    direction = 2 * D_CONV * inner + 2 * inner * (rank + 2 * D_STATE) + 2 * rank * inner + scan
    return length * (6 * channels * inner + directions * direction)
