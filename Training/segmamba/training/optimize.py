"""What moves the weights: loss, precision, parameter groups, optimizer, learning rate of a step, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segmamba.errors import InputError
from segmamba.networks.deep import level_weights
from segmamba.networks.heads import region_shares
from segmamba.networks.mamba import parameters_without_decay
from segmamba.training.config import OptimizerConfig, TrainingConfig
from segmamba.training.muon import MATRICES, Muon, is_matrix

_SMOOTH = 1e-5  # a class that is nowhere, in either, has no loss


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer that the configuration names, over the network's parameters."""
    groups = parameter_groups(network, config.weight_decay, config.decay_all)
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, config.momentum, nesterov=config.momentum > 0)
    if config.name == "muon":
        return Muon(_with_matrices_apart(network, groups), config.learning_rate)
    return torch.optim.AdamW(groups, config.learning_rate)


def _with_matrices_apart(network: nn.Module, groups: list[dict]) -> list[dict]:
    """The groups of `parameter_groups`, those for Muon before them; biases, norms and the scan's own are not for it."""
    decayed, free = groups
    own = parameters_without_decay(network)
    wanted = {id(p) for name, p in network.named_parameters() if name not in own and is_matrix(p)}
    ones = [p for p in decayed["params"] if id(p) in wanted]
    others = [p for p in decayed["params"] if id(p) not in wanted]
    return [{**decayed, "params": ones, MATRICES: True}, {**decayed, "params": others}, free]


def parameter_groups(network: nn.Module, weight_decay: float, decay_all: bool = False) -> list[dict]:
    """What an optimizer is given: parameters with weight decay, and parameters without.

    Args:
        network: of which the parameters that learn are taken.
        weight_decay: of weights of convolutions and projections; norms, biases, A, D and the dt bias have none.
        decay_all: all of them have it.

    Returns:
        Two groups as torch.optim takes them, the decayed one first.
    """
    without = set() if decay_all else parameters_without_decay(network)
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if decay_all or (p.ndim > 1 and name not in without)]
    free = [p for name, p in named if not (decay_all or (p.ndim > 1 and name not in without))]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def state_to_come(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Tensors as large as the state that the optimizer makes in its first step; none where it has its state."""
    to_come = []
    for group in optimizer.param_groups:
        stateless = [p for p in group["params"] if p not in optimizer.state]
        to_come += [torch.empty_like(p) for p in stateless for _ in range(_moments(optimizer, group))]
    return to_come


def _moments(optimizer: torch.optim.Optimizer, group: dict) -> int:
    """How many tensors an optimizer of `build_optimizer` keeps for each parameter of a group."""
    if isinstance(optimizer, torch.optim.SGD):
        return int(group["momentum"] > 0)
    return 1 if group.get(MATRICES) else 2  # Muon's; AdamW's


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of a step: linear warm-up, then polynomial (exponent 0.9) or cosine decay.

    Args:
        step: 1 to `steps`.
        steps: of the training; after the last the rate would be 0.
        config: the highest rate, the warm-up and the shape.

    Returns:
        The rate.
    """
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    done = (step - config.warmup - 1) / max(1, steps - config.warmup)
    shape = (1 - done) ** 0.9 if config.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * shape


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a network's weights; with a decay of 0 the weights themselves."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def update_average(average: AveragedModel, network: nn.Module) -> None:
    """One more step of the network's weights into their average.

    As its `update_parameters`, which copies the number of steps to the device each time, and waits for that.
    """
    if not average.n_averaged:  # on the CPU
        average.update_parameters(network)
        return
    assert average.multi_avg_fn  # as `average_of` makes it
    with torch.no_grad():
        average.multi_avg_fn(list(average.module.parameters()), list(network.parameters()), average.n_averaged)
        for averaged, own in zip(average.module.buffers(), network.buffers()):
            averaged.copy_(own)
    average.n_averaged += 1


def read_numbers(*numbers: Tensor) -> list[float]:
    """Scalars of one device as floats: the one place of a step where the CPU waits for the device."""
    return torch.stack([number.float() for number in numbers]).tolist()


class HeadLoss(nn.Module):
    """Dice plus cross-entropy, or cross-entropy alone, of logits against label shares (B, 1 + labels, D, H, W).

    The mean over samples, so that neither processes nor micro-batches change it. nested: the head (networks.heads).
    Voxels where all shares are 0 are unknown and count nothing: cross-entropy is a sample's mean over the known ones.
    """

    def __init__(self, name: str, nested: tuple[int, ...] = ()):
        super().__init__()
        self.nested = nested
        self.cross_entropy = (nn.BCEWithLogitsLoss if nested else nn.CrossEntropyLoss)(reduction="none")
        self.with_dice = name == "dice_ce"

    def forward(self, logits: Tensor, shares: Tensor) -> Tensor:
        """Compares logits with the truth.

        Args:
            logits: (B, K, D, H, W).
            shares: (B, 1 + labels, D, H, W).

        Returns:
            The loss, a scalar.
        """
        known = (shares.sum(1, keepdim=True) > 0.5).float()
        target = region_shares(shares, self.nested) if self.nested else shares * known
        entropy = self.cross_entropy(logits, target)
        entropy = entropy.mean(1, keepdim=True) if self.nested else entropy[:, None]
        spatial = (1, 2, 3, 4)
        loss = ((entropy * known).sum(spatial) / known.sum(spatial).clamp(min=1)).mean()
        if not self.with_dice:
            return loss
        probabilities = torch.sigmoid(logits) if self.nested else torch.softmax(logits, 1)
        classes = slice(None) if self.nested else slice(1, None)  # a softmax has the background too
        return loss + dice_loss((probabilities * known)[:, classes], target[:, classes])


def level_loss(loss_of: Callable[[Tensor, Tensor], Tensor], outputs: Tensor | list[Tensor], shares: Tensor) -> Tensor:
    """The loss of a network's output, or of its outputs under deep supervision, weighted.

    Args:
        loss_of: of logits and shares on one grid.
        outputs: logits; or a list of them, on grids that are halved from one to the next.
        shares: (B, K, D, H, W), on the finest; of coarser voxels the mean.

    Returns:
        A scalar.
    """
    if isinstance(outputs, Tensor):
        return loss_of(outputs.float(), shares)
    losses = [
        weight * loss_of(logits.float(), F.avg_pool3d(shares, 2**level) if level else shares)
        for level, (weight, logits) in enumerate(zip(level_weights(len(outputs)), outputs))
    ]
    return torch.stack(losses).sum()


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of (B, K, D, H, W), the mean over samples and classes, as MONAI's DiceLoss has it.

    Milletari et al., V-Net, arXiv 1606.04797, with sums in the denominator. Written here because training then needs
    no MONAI, which takes seconds to load and is not on every machine that trains.
    """
    spatial = (2, 3, 4)
    overlap = (probabilities * target).sum(spatial)
    sizes = probabilities.sum(spatial) + target.sum(spatial)
    return (1 - (2 * overlap + _SMOOTH) / (sizes + _SMOOTH)).mean()


def uses_bf16(config: TrainingConfig, device: str) -> bool:
    """Whether to use bf16 autocast: where the configuration has it and the device does it fast.

    fp16 is never used: the scan's outputs exceed its range (mamba issue #72). Raises InputError as `check_patch`.
    """
    check_patch(config, device)
    if config.precision == "fp32":
        return False
    kind = torch.device(device).type
    if kind == "cpu":
        return _cpu_is_fast_in_bf16()
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def check_patch(config: TrainingConfig, device: str) -> None:
    """Raises InputError for a patch that bf16 on a CPU cannot take, whether this CPU is fast in it or not.

    No GPU is asked for anything.
    """
    if config.precision == "bf16" and torch.device(device).type == "cpu" and config.patch[0] < 48:
        # oneDNN's bf16 weight gradient of a 3x3x3 convolution reads memory that nobody wrote where the depth is 2
        raise InputError(
            f"patch {config.patch} needs a depth of 48 or more for bf16 on the CPU; or set precision = 'fp32'"
        )


def _cpu_is_fast_in_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself (AVX512_BF16, which every CPU with AMX_BF16 has too).

    A pass of `quick` on 48^3, forward and backward, in fp32 and in bf16, seconds of one core with AMX, oneDNN held to:
    AMX 0.86 and 0.31; AVX512_BF16 0.84 and 0.82; AVX-512 alone, which emulates it, 0.88 and 1.89; AVX2 1.21 and 36.8.
    The first question is to the processor and knows of no ONEDNN_MAX_CPU_ISA; the second is to oneDNN, which heeds it,
    but says yes from AVX-512 on; so only oneDNN held to AVX-512 on a CPU that could do more is twice as slow for it.
    Nothing is timed: a busy machine could then end a training in another precision than it began it in.
    """
    # in this order: torch for a CPU that is no x86 may lack the second
    return torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
