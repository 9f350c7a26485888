"""A step of a training on its device: passes, loss, gradient, optimizer, averaged weights; and how it fits there."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from segmamba.errors import InputError, is_out_of_memory
from segmamba.networks.deep import DeepSupervision
from segmamba.training.config import TrainingConfig
from segmamba.training.distributed import World
from segmamba.training.experiment import Experiment
from segmamba.training.optimize import (
    HeadLoss,
    average_of,
    build_optimizer,
    level_loss,
    read_numbers,
    state_to_come,
    update_average,
    uses_bf16,
)


class Stepper:
    """The network of a training on its device, and all that moves its weights."""

    def __init__(self, config: TrainingConfig, experiment: Experiment, world: World):
        self.config = config
        self.experiment = experiment
        self.world = world
        self.autocast = uses_bf16(config, world.device)
        self.memory_format = torch.channels_last_3d if config.channels_last else torch.contiguous_format
        # torch documents memory_format, and its types know it not beside a device
        self.network: nn.Module = cast(Any, experiment.network).to(world.device, memory_format=self.memory_format)
        self.ema = average_of(self.network, config.optimizer.ema)
        self.learner = self.network  # with further outputs where it learns by more than its own
        if config.deep_supervision:
            torch.manual_seed(config.seed)
            heads = DeepSupervision(self.network, experiment.network_config.out_channels)
            self.learner = heads.to(world.device)
        self.optimizer = build_optimizer(self.learner, config.optimizer)
        self.ddp: Callable[[Tensor], Any] = world.wrap(self.learner)
        self.loss_of = HeadLoss(config.loss, experiment.inference.nested)
        self.parts = config.accumulation

    def prepare(self, report: Callable[[str], None]) -> None:
        """Before the first step: cuDNN's choice, compilation, micro-batches that fit. Raises InputError."""
        torch.backends.cudnn.benchmark = self.config.cudnn_benchmark
        if self.config.compile:
            self._compile(report)
        self.parts = self._fit_memory(report)

    def step(self, image: Tensor, label: Tensor, rate: float, number: int) -> tuple[float, float]:
        """Makes one optimizer step, in which the device is waited for once.

        Args:
            image: (B, C, *patch).
            label: (B, K, *patch).
            rate: of learning.
            number: of the step, which says what the network draws in it.

        Returns:
            The loss and the norm of the gradient; where that is not finite, nothing has changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        torch.manual_seed(_seed(self.config.seed, number, self.world.rank))
        loss = self._gradient(image, label, self.parts)
        norm = nn.utils.clip_grad_norm_(self.learner.parameters(), self.config.optimizer.gradient_clip)
        found, size = read_numbers(loss, norm)
        if math.isfinite(size):
            self.optimizer.step()
            update_average(self.ema, self.network)
        return found, size

    def state(self) -> dict[str, dict]:
        """What a checkpoint holds of it."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "heads": self._heads(),
        }

    def restore(self, state: dict) -> None:
        """The state of a checkpoint; settings, such as weight decay, stay those of the configuration.

        Raises RuntimeError, ValueError or KeyError where it is another network's.
        """
        groups = state["optimizer"]["param_groups"]
        if set(groups[0]) != set(self.optimizer.param_groups[0]):  # torch would take them without a word
            raise ValueError("the optimizer has other settings")
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["averaged"])
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, settings in zip(self.optimizer.param_groups, own):
            group.update(settings)  # torch has taken over those of the checkpoint
        if isinstance(self.learner, DeepSupervision):
            self.learner.heads.load_state_dict(state["heads"])

    def _heads(self) -> dict:
        return self.learner.heads.state_dict() if isinstance(self.learner, DeepSupervision) else {}

    def _gradient(self, image: Tensor, label: Tensor, parts: int) -> Tensor:
        """Adds the gradient of the mean loss over the batch, in `parts` micro-batches; returns that loss, a scalar."""
        total = torch.zeros((), device=self.world.device)
        pieces = list(zip(image.chunk(parts), label.chunk(parts)))  # 3, not 4, of a batch of 3 or 6
        for number, (x, y) in enumerate(pieces, start=1):
            x, y = (t.to(self.world.device, non_blocking=True) for t in (x, y))
            apart = self.world.size > 1 and number < len(pieces)  # gradients are averaged once, with the last part
            with cast(Any, self.ddp).no_sync() if apart else contextlib.nullcontext():
                with self._precision():
                    outputs = self.ddp(x.contiguous(memory_format=self.memory_format))
                loss = level_loss(self.loss_of, outputs, y) * (len(x) / len(image))
                loss.backward()
            total += loss.detach()
        return total

    def _precision(self) -> contextlib.AbstractContextManager:
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.world.device).type, torch.bfloat16)

    def _try(self, count: int, parts: int) -> None:
        """A step's passes on `count` empty patches, whose gradient is not used: of this process alone."""
        image = torch.zeros(
            (count, len(self.config.preprocess.modalities), *self.config.patch), device=self.world.device
        )
        label = image.new_zeros((count, self.experiment.classes, *self.config.patch))
        with cast(Any, self.ddp).no_sync() if self.world.size > 1 else contextlib.nullcontext():
            self._gradient(image, label, parts)

    def _compile(self, report: Callable[[str], None]) -> None:
        """Lets torch compile the network, tried by a patch; where that fails it stays as it is and the log says why."""
        plain = self.ddp
        try:
            self.ddp = cast(Any, torch.compile(cast(nn.Module, plain)))
            self._try(1, 1)
        except Exception as error:  # a compiler that is missing, or that knows less than it must, fails in many ways
            self.ddp = plain
            reason = str(error).strip().partition("\n")[0]
            report(f"the network is not compiled: {type(error).__name__}: {reason}")
        else:
            report("the network is compiled")
        self.optimizer.zero_grad()

    def _fit_memory(self, report: Callable[[str], None]) -> int:
        """Micro-batches per step: those of the configuration, halved until a first batch fits into the GPU."""
        parts, share = self.config.accumulation, self.config.batch // self.world.size
        if torch.device(self.world.device).type == "cpu":
            return parts
        while True:
            fits, to_come = True, []
            try:
                # What the first step will make stays beside the trial: the optimizer keeps its state from then on.
                to_come = state_to_come(self.optimizer)
                self._try(share, parts)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
            del to_come
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            if not self.world.any(not fits):
                return parts
            if parts >= share:
                raise InputError(
                    f"a single patch of {self.config.patch} does not fit into the memory of {self.world.device}; "
                    "set checkpoint_activations = true, or a smaller patch"
                )
            patches = -(-share // (2 * parts))
            parts = -(-share // patches)
            report(f"out of GPU memory: {parts} micro-batches of {patches} patches, the same batch")


def _seed(*numbers: int) -> int:
    """Of torch's generators, which some networks draw from (dropout): another one for every sequence of numbers."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1
