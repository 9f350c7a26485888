"""What `gpu-run` measures, a part at a time, each figure written as soon as it is there.

steps     a training step of `released`: scan back ends x memory formats x cudnn.benchmark
profile   two steps of the fastest of these: the largest kernels, the share of copies and of norms
case      a whole case: windows together, mirrorings; on two windows the difference to the CPU
peers     a window and a training step of other networks, in turn with ours

    python gpu_steps.py steps --results steps.json          # --dry: on the CPU at toy size
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import peers
import torch
from measure import progress
from segmamba.errors import is_out_of_memory
from segmamba.models.specs import InferenceSpec
from segmamba.networks.presets import build_network
from segmamba.networks.scan import OVERRIDE, available_backends
from segmamba.prediction.windows import count_windows, predict
from segmamba.training.config import OptimizerConfig
from segmamba.training.optimize import HeadLoss, build_optimizer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

PEERS = ("SwinUNETR", "SegResNet", "nnU-Net plain")
WINDOWS, MIRRORINGS = (1, 2, 4), (0, 7)
CASE, TWO_WINDOWS = (144, 192, 160), (128, 128, 160)  # voxels: a head, and what the CPU can be asked for too
ROUNDS = 3
LARGEST = 40  # kernels that are listed


@dataclass(frozen=True)
class Size:
    """side: of windows and patches. batch: of a training step. rounds: of what is timed. changes: of the network."""

    device: torch.device
    side: int
    batch: int
    rounds: int
    changes: dict

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return build_network("released", **self.changes)


def real_size() -> Size:
    return Size(torch.device("cuda"), 128, 2, ROUNDS, {})


def toy_size() -> Size:
    narrow = {"features": (4, 4, 8, 8), "full_features": 4, "bottleneck": 8, "depths": (1, 1, 1, 1)}
    return Size(torch.device("cpu"), 32, 2, 1, narrow)


class Record:
    """Rows of figures in a JSON file, which is whole after each of them."""

    def __init__(self, path: Path):
        self.path, self.rows, self.facts = path, [], {}

    def add(self, **row: object) -> None:
        self.rows.append(row)
        progress(str(row))
        self.write()

    def write(self, **facts: object) -> None:
        self.facts |= facts
        aside = self.path.with_name(f".{self.path.name}.part")
        aside.write_text(json.dumps({**self.facts, "rows": self.rows}, indent=1), encoding="utf-8")
        aside.replace(self.path)


# --- parts


def steps(size: Size, record: Record) -> None:
    """Fastest last word: `best` names the settings of the least median."""
    usable = [name for name, reason in available_backends(size.device).items() if not reason and name != "reference"]
    record.write(backends=available_backends(size.device))
    choices = (False, True) if size.device.type == "cuda" else (False,)  # cudnn's
    for backend, form, benchmark in itertools.product(usable, reversed(peers.FORMATS), choices):
        settings = {"backend": backend, "format": form, "benchmark": benchmark}
        with_settings(settings)
        figures = measured(trainer(size.network(), size, form), size.device, size.rounds)
        record.add(**settings, **figures)
        timed = [row for row in record.rows if row["seconds"]]
        if timed:
            best = min(timed, key=lambda row: median(row["seconds"]))
            record.write(best={key: best[key] for key in settings})


def kernels(size: Size, record: Record) -> None:
    settings = best_settings(record.path)
    with_settings(settings)
    step = trainer(size.network(), size, settings["format"])
    step()
    activities = [ProfilerActivity.CUDA] if size.device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *activities]) as found:
        for _ in range(2):
            step()
        synchronize(size.device)
    on_gpu = size.device.type == "cuda"
    events = found.key_averages()

    def spent(event) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6 / 2

    total = sum(map(spent, events))
    copies = sum(spent(event) for event in events if any(word in event.key.lower() for word in ("copy", "memcpy")))
    norms = sum(spent(event) for event in events if "norm" in event.key.lower())
    record.write(settings=settings, step_seconds=total, share_of_copies=copies / total, share_of_norms=norms / total)
    for event in sorted(events, key=spent, reverse=True)[:LARGEST]:
        record.add(kernel=event.key[:120], calls=event.count / 2, seconds=spent(event), share=spent(event) / total)


def case(size: Size, record: Record) -> None:
    settings = best_settings(record.path)
    network, spec = size.network().eval(), InferenceSpec(window=(size.side,) * 3)
    check_against_cpu(network, spec, size, record, settings)
    network.to(size.device)
    shape = scaled(CASE, size)
    image = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    on_gpu = size.device.type == "cuda"
    for mirrorings, together in itertools.product(MIRRORINGS, WINDOWS) if on_gpu else ((0, 1), (1, 1)):
        asked = {"device": size.device, "mirrorings": mirrorings, "sw_batch_size": together}
        figures = measured(lambda asked=asked: predict(network, image, spec, **asked), size.device, rounds=1)
        record.add(shape=shape, windows=count_windows(shape, spec), **{k: asked[k] for k in list(asked)[1:]}, **figures)


def check_against_cpu(network: nn.Module, spec: InferenceSpec, size: Size, record: Record, settings: dict) -> None:
    """The probabilities of two windows on the device, fp32 and bf16, beside those of the CPU in fp32.

    The CPU goes first, with its own scan: that of a GPU cannot be used there, and naming it would be an error.
    """
    os.environ.pop(OVERRIDE, None)
    image = torch.randn(4, *scaled(TWO_WINDOWS, size), generator=torch.Generator().manual_seed(1))
    exact = predict(network.to("cpu"), image, InferenceSpec(window=spec.window, bf16=False)).probabilities
    with_settings(settings)
    for bf16 in (False, True):
        spec = InferenceSpec(window=spec.window, bf16=bf16)
        got = predict(network.to(size.device), image, spec, device=size.device)
        same = (got.probabilities.argmax(0) == exact.argmax(0)).double().mean().item()
        error = (got.probabilities - exact).abs().max().item()
        record.add(against="cpu", precision=got.precision, largest_difference=error, same_label=same)


def compare(size: Size, record: Record) -> None:
    settings = best_settings(record.path)
    built = {"released": size.network()}
    for name in PEERS:
        try:
            built[name] = peers.build(name, max(size.side, 64))
        except ImportError as error:
            record.add(network=name, note=f"not built: {error}")
    for number in range(size.rounds):
        for name, network in built.items():
            form = settings["format"] if name == "released" else "channels last"
            with_settings(settings)
            side = size.side if name == "released" or size.side >= 64 else 64  # the others halve it more often
            window = noise(size, 1, side).contiguous(memory_format=peers.FORMATS[form])
            network.eval().to(size.device, memory_format=peers.FORMATS[form])

            def forward(network=network, window=window):
                with torch.inference_mode(), autocast(size):
                    network(window)

            one_window = measured(forward, size.device, rounds=1)
            step = measured(trainer(network.train(), size, form, side), size.device, rounds=1)
            record.add(network=name, round=number, parameters=peers.parameters(network), window=one_window, step=step)
            network.to("cpu")


# --- how


def trainer(network: nn.Module, size: Size, form: str, side: int | None = None) -> Callable[[], None]:
    """An optimizer step as the training has it: bf16 on a GPU, Dice and cross-entropy, AdamW, clipping."""
    memory_format = peers.FORMATS[form]
    network = network.train().to(size.device, memory_format=memory_format)
    image = noise(size, size.batch, side or size.side).contiguous(memory_format=memory_format)
    label = torch.randint(0, 4, (size.batch, *image.shape[2:]), device=size.device)
    shares = nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    optimizer = build_optimizer(network, OptimizerConfig())
    loss_of = HeadLoss("dice_ce")

    def step() -> None:
        optimizer.zero_grad()
        with autocast(size):
            logits = network(image)
        loss_of(logits.float(), shares).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()

    return step


def measured(work: Callable[[], object], device: torch.device, rounds: int) -> dict:
    """{"seconds": of each round after one to warm up, "peak_mb", "note"}; no seconds where memory does not suffice."""
    try:
        work()
        synchronize(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return {"seconds": [], "peak_mb": None, "note": "out of memory"}
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    return {"seconds": seconds, "peak_mb": peak, "note": ""}


def with_settings(settings: dict) -> None:
    os.environ[OVERRIDE] = settings["backend"]
    torch.backends.cudnn.benchmark = settings["benchmark"]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def best_settings(record: Path) -> dict:
    """Of the part `steps`, which was measured beside this one; else what the engine has by itself."""
    try:
        return json.loads((record.parent / "steps.json").read_text(encoding="utf-8"))["best"]
    except (OSError, ValueError, KeyError):
        return {"backend": "", "format": "channels last", "benchmark": False}


def noise(size: Size, batch: int, side: int) -> Tensor:
    return torch.randn(batch, 4, side, side, side, generator=torch.Generator().manual_seed(0)).to(size.device)


def autocast(size: Size) -> torch.autocast:
    return torch.autocast(size.device.type, torch.bfloat16, enabled=size.device.type == "cuda")


def scaled(shape: Sequence[int], size: Size) -> tuple[int, ...]:
    return tuple(side * size.side // 128 for side in shape)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


PARTS = {"steps": steps, "profile": kernels, "case": case, "peers": compare}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Figures of a GPU.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--results", type=Path, required=True, help="a JSON file")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at toy size")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        print("there is no GPU; --dry tries everything at toy size")
        return 1
    PARTS[options.part](toy_size() if options.dry else real_size(), Record(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
