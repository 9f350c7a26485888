"""Inference: a prepared tensor and a network to mean probabilities and an uncertainty map.

Sliding windows (prediction.tiling), test-time augmentation by mirroring and by scale, probabilities averaged over all.
A volume that fits into the window is run in one piece. Knows nothing of files or labels.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmamba.errors import Cancelled, InputError, is_out_of_memory
from segmamba.models.specs import InferenceSpec
from segmamba.networks.heads import label_probabilities
from segmamba.networks.segmamba import STRIDE
from segmamba.prediction import memory
from segmamba.prediction.tiling import Place, mean_of_windows, window_places

T = TypeVar("T")

log = logging.getLogger(__name__)

# Number of extra mirrorings -> the axes flipped (0 D, 1 H, 2 W) in each pass, the plain one first.
MIRRORINGS = {
    0: [()],
    1: [(), (2,)],
    3: [(), (2,), (1,), (1, 2)],
    7: [axes for n in range(4) for axes in itertools.combinations(range(3), n)],
}


SW_BATCH_SIZE = 2  # windows that a GPU takes together: one alone does not fill it where the grid is coarse
_NEAR = 0.15  # the most that a coarser grid's voxels are changed by, an axis: on held-out cases it costs nothing
_UNSURE = 0.35  # of the entropy of four classes: what two equally likely ones give is 0.5


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one tensor, on the tensor's grid and on the CPU."""

    probabilities: Tensor
    """(K, D, H, W) float32, background first; they sum to 1."""
    uncertainty: Tensor
    """(D, H, W) float32, entropy of the mean probabilities over its largest possible value, 0 certain to 1
    undecided."""
    passes: int
    """Forward passes of the network, windows x mirrorings, of all scales."""
    device: str
    """Where they ran."""
    precision: str
    """"bf16" or "fp32"."""
    notes: tuple[str, ...]
    """What was done for want of memory, in plain sentences; empty where nothing was."""

    @property
    def unsure(self) -> float:
        """How much a correction may teach the model: the share of possible tumour that it is unsure of, 0 to 1.

        Tissue counts where tumour is likelier than background, or the uncertainty is 0.35 or more.
        """
        doubtful = self.uncertainty >= _UNSURE
        either = doubtful | (self.probabilities[0] < 0.5)
        return float(doubtful.sum() / either.sum().clamp(min=1))


@torch.inference_mode()
def predict(
    network: nn.Module,
    tensor: Tensor,
    spec: InferenceSpec,
    *,
    device: torch.device | str = "cpu",
    mirrorings: int = 0,
    sw_batch_size: int = SW_BATCH_SIZE,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Prediction:
    """The mean probabilities of a network over windows, mirrorings and scales, and how undecided they are.

    Short of GPU memory, windows go one by one; still short, results are accumulated on the CPU; still short, the
    network runs on the CPU; each is said in the notes.

    Args:
        network: (B, C, D, H, W) -> logits (B, K, D, H, W).
        tensor: (C, D, H, W) float32, any size.
        spec: the window, its overlap, the precision, the output head and the scales.
        device: where the network runs, where there is memory enough.
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.
        sw_batch_size: the most windows that go through the network together on a GPU; on the CPU it is one.
        progress: called with the fraction done, 0 to 1, after each window.
        cancelled: asked before each layer of the network.

    Returns:
        Probabilities and uncertainty on the grid of `tensor`.

    Raises:
        InputError: for an unknown number of mirrorings.
        Cancelled: where `cancelled` said so.
    """
    if mirrorings not in MIRRORINGS:
        raise InputError(f"{mirrorings} mirrorings; expected one of {', '.join(map(str, MIRRORINGS))}")

    def run(attempt: _Attempt) -> Prediction:
        # torch documents memory_format, and its types know it not beside a device
        cast(Any, network).to(attempt.run_on, memory_format=_memory_format(attempt.run_on))
        with memory.kept() if attempt.run_on.type == "cpu" else contextlib.nullcontext():
            return _predict(network, tensor, spec, attempt=attempt, flips=MIRRORINGS[mirrorings], progress=progress)

    attempts = _attempts(torch.device(device), sw_batch_size)
    with _asked_before_each_layer(network, cancelled):
        prediction, notes = _first_that_fits(attempts, run)
    return replace(prediction, notes=notes)


def count_windows(shape: tuple[int, ...], spec: InferenceSpec) -> int:
    """Windows that a volume of `shape` (D, H, W) takes, those of coarser voxels too."""
    return sum(len(_places(scaled, spec)) for scaled in _scales(shape, spec))


@contextlib.contextmanager
def _asked_before_each_layer(network: nn.Module, cancelled: Callable[[], bool] | None) -> Iterator[None]:
    """Raises Cancelled between two layers: on a CPU a whole window can take a minute."""

    def ask(module: nn.Module, inputs: Any) -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("segmentation was cancelled")

    hooks = [module.register_forward_pre_hook(ask) for module in network.modules()] if cancelled else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Attempt:
    """One way to run the network, which may need more memory than there is."""

    run_on: torch.device
    """Where the network runs."""
    accumulate_on: torch.device
    """Where the probabilities of the windows are summed."""
    sw_batch_size: int = 1
    """Windows that go through the network together."""
    note: str = ""
    """What users are told where it comes to this."""


def _attempts(device: torch.device, sw_batch_size: int = 1) -> list[_Attempt]:
    """The ways to run on `device`, in the order in which they are tried."""
    cpu = torch.device("cpu")
    if device.type == "cpu":
        return [_Attempt(cpu, cpu)]
    attempts = [
        _Attempt(device, device),
        _Attempt(device, cpu, note="GPU memory ran short: results were accumulated in main memory"),
        _Attempt(cpu, cpu, note="GPU memory ran short: the network ran on the CPU"),
    ]
    if sw_batch_size > 1:
        attempts[0] = replace(attempts[0], note="GPU memory ran short: windows went through the network one by one")
        attempts.insert(0, _Attempt(device, device, sw_batch_size))
    return attempts


def _first_that_fits(attempts: list[_Attempt], run: Callable[[_Attempt], T]) -> tuple[T, tuple[str, ...]]:
    """What `run` gives in the first attempt that finds enough memory, and the notes of the attempts up to it."""
    notes: list[str] = []
    for attempt in attempts:
        if attempt.note:
            log.warning(attempt.note)
            notes.append(attempt.note)
        try:
            return run(attempt), tuple(notes)
        except RuntimeError as error:
            if not is_out_of_memory(error) or attempt == attempts[-1]:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # out here, where the failed attempt's tensors are gone
    raise AssertionError("no attempts")


def _predict(
    network: nn.Module,
    tensor: Tensor,
    spec: InferenceSpec,
    *,
    attempt: _Attempt,
    flips: Sequence[tuple[int, ...]],
    progress: Callable[[float], None] | None,
) -> Prediction:
    """The prediction for (C, D, H, W) by a network that is on `attempt.run_on`; flips: a value of MIRRORINGS."""
    run_on = attempt.run_on
    shape = tuple(tensor.shape[1:])
    bf16 = spec.bf16 and _bf16_is_fast(run_on)
    total = len(flips) * count_windows(shape, spec)
    done = 0

    def run(windows: Tensor) -> Tensor:
        nonlocal done
        with torch.autocast(run_on.type, torch.bfloat16, enabled=bf16):
            logits = network(windows.contiguous(memory_format=_memory_format(run_on)))
        done += len(windows)
        if progress:
            progress(min(1.0, done / total))
        return label_probabilities(logits, spec.nested)

    def mean_of_flips(image: Tensor) -> Tensor:
        side = tuple(image.shape[1:])
        goal = _padded(side, spec)
        padded = F.pad(image, [n for own, wanted in zip(reversed(side), reversed(goal)) for n in (0, wanted - own)])
        mean: Tensor | None = None
        for axes in flips:
            dims = [axis + 1 for axis in axes]
            flipped = padded.flip(dims) if dims else padded
            result = mean_of_windows(
                flipped,
                _places(side, spec),
                run,
                sw_batch_size=attempt.sw_batch_size,
                run_on=run_on,
                accumulate_on=attempt.accumulate_on,
            )
            result = result.flip(dims) if dims else result
            mean = result if mean is None else mean.add_(result)
        assert mean is not None  # there is a plain pass
        return (mean[(slice(None), *(slice(n) for n in side))] / len(flips)).float()

    image = tensor.to(attempt.accumulate_on)
    mean, *others = (_resized(mean_of_flips(_resized(image, scaled)), shape) for scaled in _scales(shape, spec))
    if others:
        mean = _keep_innermost(mean, torch.stack([mean, *others]).mean(0), spec.nested)
    mean = mean.cpu()
    return Prediction(mean, _entropy(mean), done, str(run_on), "bf16" if bf16 else "fp32", ())


def _keep_innermost(own: Tensor, mean: Tensor, nested: Sequence[int]) -> Tensor:
    """Probabilities (K, D, H, W): of the innermost region as in `own`, of those around it as in `mean`.

    On coarser voxels more of a core is found and fewer specks; thin rims of enhancing tumour are lost. A region is
    at least as likely as what lies in it.
    """
    if len(nested) < 2:
        return mean
    result, inside, region = torch.empty_like(mean), own[nested[-1]], mean[nested[-1]]
    result[nested[-1]] = inside
    for label in reversed(nested[:-1]):
        region = region + mean[label]
        whole = torch.maximum(region, inside)
        result[label] = whole - inside
        inside = whole
    result[0] = (1 - inside).clamp_(min=0)
    return result


def _scales(shape: tuple[int, ...], spec: InferenceSpec) -> list[tuple[int, ...]]:
    """The grids that an image is seen on: its own, and those of coarser voxels."""
    return [shape, *(tuple(_coarser(side, times) for side in shape) for times in spec.coarser)]


def _coarser(side: int, times: float) -> int:
    """Voxels along an axis of `side`, each about `times` as large: as many as the network takes as they are, if near.

    Filled up with zeros to what it takes, a coarser grid of a head has twice the voxels.
    """
    fitting = STRIDE * max(1, round(side / times / STRIDE))
    return fitting if abs(fitting * times / side - 1) <= _NEAR else max(1, round(side / times))


def _resized(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(C, D, H, W) on a grid of `shape` over the same box, by linear interpolation."""
    if tuple(volume.shape[1:]) == shape:
        return volume
    return F.interpolate(volume[None].float(), size=shape, mode="trilinear", align_corners=False)[0]


def _places(shape: tuple[int, ...], spec: InferenceSpec) -> list[Place]:
    return window_places(_padded(shape, spec), _window(shape, spec), spec.overlap)


def _padded(shape: tuple[int, ...], spec: InferenceSpec) -> tuple[int, ...]:
    if spec.pad_to_window:
        return tuple(max(side, wanted) for side, wanted in zip(shape, spec.window))
    sides = [math.ceil(side / STRIDE) * STRIDE for side in shape]
    if max(sides) < 2 * STRIDE:
        sides[0] = 2 * STRIDE
    return tuple(sides)


def _window(shape: tuple[int, ...], spec: InferenceSpec) -> tuple[int, ...]:
    return tuple(min(side, limit) for side, limit in zip(_padded(shape, spec), spec.window))


def _memory_format(device: torch.device) -> torch.memory_format:
    """Channels last is what the CPU's convolutions and norms are fastest in (segmamba.networks.norm)."""
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def _bf16_is_fast(device: torch.device) -> bool:
    """CUDA since Ampere. On CPUs autocast gains little for these convolutions and is not used for inference."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy = -torch.special.xlogy(probabilities, probabilities).sum(0) / math.log(len(probabilities))
    return entropy.clamp_(0, 1)  # a sum that is 1 but for rounding can leave it
