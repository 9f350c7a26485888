"""One training on many processes, as `torchrun` starts them: who we are, and what all of us agree on.

Without torchrun there is one process, and every function here does nothing but answer for it. Gradients are averaged
by torch's DistributedDataParallel. Backend: nccl for CUDA, gloo otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segmamba.errors import InputError

# a validation or a first preprocessing of one process may take long while the others wait
_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """One process of a training."""

    rank: int = 0
    """Its number among all, from 0."""
    size: int = 1
    """How many there are."""
    device: str = "cpu"
    """The device of this process."""
    local_size: int = 1
    """How many of them run on this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages gradients over all processes."""
        if self.size == 1:
            return network
        ids = [torch.device(self.device).index] if self.device.startswith("cuda") else None
        return DistributedDataParallel(network, device_ids=ids)

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process."""
        return bool(self.largest(float(flag)))

    def any_of(self, *flags: bool) -> list[bool]:
        """Of each flag whether it holds in any process; all in one message."""
        if self.size == 1:
            return list(flags)
        tensor = torch.tensor(flags, dtype=torch.uint8, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [bool(flag) for flag in tensor.tolist()]

    def largest(self, value: float) -> float:
        """The largest value of any process."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.item()

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item() / self.size

    def gather(self, items: list) -> list:
        """The items of all processes, in all processes."""
        if self.size == 1:
            return items
        parts: list = [None] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            dist.barrier()


def standing(device: str = "cpu") -> World:
    """This process's place as torchrun describes it in the environment, before it has joined the others.

    device: "cuda" becomes this process's own GPU. Raises InputError where there is none for it, and for "cuda:1", which
    all processes would take.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=device)
    if device.startswith("cuda:"):
        raise InputError(
            f"device {device!r} has a number, and every process of torchrun takes a GPU of its own: --device cuda"
        )
    if device == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise InputError(
                f"process {local} of this machine has no GPU of its own: there are {there}; "
                "start torchrun with --nproc-per-node of that number or less"
            )
        device = f"cuda:{local}"
    return World(int(os.environ["RANK"]), size, device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def join(world: World) -> None:
    """Meets the other processes of `standing`; waits until all are there."""
    if world.size == 1:
        return
    if world.device.startswith("cuda"):
        torch.cuda.set_device(world.device)
    dist.init_process_group("nccl" if world.device.startswith("cuda") else "gloo", timeout=_TIMEOUT)


def cores() -> int:
    """Cores that this process may use. torch's number of threads does not tell: torchrun sets it to 1."""
    if hasattr(os, "sched_getaffinity"):  # Linux: a job of a cluster often has a part of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def leave(world: World) -> None:
    """Ends what `join` began."""
    if world.size > 1:
        dist.destroy_process_group()
