"""What moves the weights: loss, precision, parameter groups, optimizer, learning rate of a step, averaged weights."""

from __future__ import annotations

import math

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segmamba.errors import InputError
from segmamba.networks.mamba import parameters_without_decay
from segmamba.training.config import OptimizerConfig, TrainingConfig


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(network, config.weight_decay, config.decay_all)
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, config.learning_rate)


def parameter_groups(network: nn.Module, weight_decay: float, decay_all: bool = False) -> list[dict]:
    """Weight decay on weights of convolutions and projections; none on norms, biases, A, D and the dt bias."""
    without = set() if decay_all else parameters_without_decay(network)
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if decay_all or (p.ndim > 1 and name not in without)]
    free = [p for name, p in named if not (decay_all or (p.ndim > 1 and name not in without))]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Of step 1..steps: linear warm-up, then polynomial (exponent 0.9) or cosine decay, to 0 after the last step."""
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    done = (step - config.warmup - 1) / max(1, steps - config.warmup)
    shape = (1 - done) ** 0.9 if config.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * shape


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a network's weights; with a decay of 0 the weights themselves."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def build_loss(name: str) -> nn.Module:
    """Of logits and label shares, the mean over samples, so that neither processes nor micro-batches change it."""
    if name == "ce":
        return nn.CrossEntropyLoss()
    return DiceCELoss(softmax=True, include_background=False)


def uses_bf16(config: TrainingConfig, device: str) -> bool:
    """Whether to use bf16 autocast. fp16 is never used: the scan's outputs exceed its range (mamba issue #72)."""
    if config.precision == "fp32":
        return False
    kind = torch.device(device).type
    if kind == "cpu" and config.patch[0] < 48:
        # oneDNN's bf16 weight gradient of a 3x3x3 convolution reads memory that nobody wrote where the depth is 2
        raise InputError(
            f"patch {config.patch} needs a depth of 48 or more for bf16 on the CPU; or set precision = 'fp32'"
        )
    return kind == "cpu" or (kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
