"""`make gpu-bench`: what this machine's GPU does, all in one run and interleaved, so that ratios hold elsewhere.

1. a window of 128^3: batch 1 and 2, fp32 (TF32 convolutions, as torch does by default) and bf16 autocast
2. a whole case of 8 windows, 8 mirrorings, through segmamba.prediction.windows.predict
3. a training step: batch 2, fp32 and bf16, Dice + cross-entropy, AdamW

`released` with each scan back end that can be used here, beside other networks. Windows are run in both memory
formats; a case and a training step in the one that the engine uses for `released`, and in the faster one for the
others. Writes results/gpu-bench-NAME.json after each part; needs a GPU and skips without one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

import peers
import torch
from measure import describe, print_table, progress, ratio, slug, write_results
from segmamba.errors import Cancelled, is_out_of_memory
from segmamba.models.specs import InferenceSpec
from segmamba.networks.scan import OVERRIDE, available_backends
from segmamba.prediction.windows import count_windows, predict
from segmamba.training.optimize import HeadLoss
from torch import nn

PEERS = ("SwinUNETR", "SegResNet", "UNETR", "MedNeXt-M")
AUTOCAST = {"fp32": False, "bf16": True}
BATCHES = (1, 2)
MIRRORINGS = 7  # extra passes
PREDICT_FORMAT, TRAINING_FORMAT = "plain", "channels last"  # of the engine


@dataclass
class Subject:
    """A network, and for `released` the back end of its scan. It waits on the CPU for its turn."""

    name: str
    backend: str | None
    network: nn.Module
    rows: list[dict] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.backend} scan" if self.backend else self.name

    def faster_format(self) -> str:
        """By the windows of batch 1 in bf16."""
        rows = [
            row for row in self.rows if row["part"] == "window" and row["batch"] == 1 and row["precision"] == "bf16"
        ]
        rows = [row for row in rows if row["seconds"]]
        return min(rows, key=_time)["format"] if rows else "plain"

    def row(self, part: str, **settings) -> dict:
        """The measurements of these settings so far."""
        for row in self.rows:
            if row["part"] == part and all(row[key] == value for key, value in settings.items()):
                return row
        self.rows.append({"part": part, **settings, "seconds": [], "allocated_mb": [], "reserved_mb": [], "note": ""})
        return self.rows[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmarks on the GPU.")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of everything; medians are shown")
    parser.add_argument("--size", type=int, default=128, help="side of the windows, a multiple of 32, 64 or more")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: skipped")
        return
    facts = describe()
    facts["gpu"] = torch.cuda.get_device_name()
    facts["gpu_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
    print(f"{facts['gpu']}, {facts['gpu_memory_gb']} GB, commit {facts['commit']}")
    run(torch.device("cuda"), options.size, options.rounds, facts)


def run(device: torch.device, size: int, rounds: int, facts: dict) -> None:
    """Every part for every subject; prints and writes after each part."""
    facts["scan_backends"] = available_backends(device)
    subjects = make_subjects(device, size)
    for part, measure in (("window", windows), ("case", cases), ("training", training)):
        for number in range(rounds):
            for subject in subjects:
                progress(f"{part}: round {number + 1} of {rounds}, {subject.title}")
                if subject.backend:
                    os.environ[OVERRIDE] = subject.backend
                measure(subject, device, size)
                subject.network.to("cpu")
                os.environ.pop(OVERRIDE, None)
        show(part, subjects, size)
        facts["subjects"] = [
            {
                "network": subject.name,
                "scan": subject.backend,
                "parameters": peers.parameters(subject.network),
                "rows": subject.rows,
            }
            for subject in subjects
        ]
        write_results(f"gpu-bench-{slug(facts['gpu'])}", {**facts, "size": size, "rounds": rounds})


def make_subjects(device: torch.device, size: int) -> list[Subject]:
    usable = [name for name, reason in available_backends(device).items() if not reason and name != "reference"]
    subjects = [Subject("released", backend, peers.build("released", size)) for backend in usable]
    return subjects + [Subject(name, None, peers.build(name, size)) for name in PEERS]


def windows(subject: Subject, device: torch.device, size: int) -> None:
    network = subject.network.eval()
    for form, memory_format in peers.FORMATS.items():
        network.to(device, memory_format=memory_format)
        for batch in BATCHES:
            image = torch.randn(batch, 4, size, size, size, device=device).contiguous(memory_format=memory_format)
            for precision, autocast in AUTOCAST.items():

                def forward(image=image, autocast=autocast):
                    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                        network(image)

                row = subject.row("window", batch=batch, precision=precision, format=form)
                record(row, forward)


def cases(subject: Subject, device: torch.device, size: int) -> None:
    """A head cropped to the brain, as large as real ones: 8 windows. It starts and ends in main memory."""
    form = PREDICT_FORMAT if subject.name == "released" else subject.faster_format()
    network = subject.network.eval().to(device, memory_format=peers.FORMATS[form])
    image = torch.randn(4, size * 9 // 8, size * 3 // 2, size * 5 // 4)
    spec = InferenceSpec(window=(size,) * 3)
    passes = count_windows(image.shape[1:], spec) * (1 + MIRRORINGS)
    row = subject.row("case", shape=tuple(image.shape), passes=passes, format=form)

    def segment():
        prediction = predict(network, image, spec, device=device, mirrorings=MIRRORINGS, cancelled=left_gpu)
        row["note"] = "; ".join((prediction.precision, *prediction.notes))

    def left_gpu() -> bool:
        return next(network.parameters()).device.type != device.type

    record(row, segment, warm_up=not row["seconds"])


def training(subject: Subject, device: torch.device, size: int) -> None:
    """Steps of a copy, so that the weights stay what they were."""
    form = TRAINING_FORMAT if subject.name == "released" else subject.faster_format()
    memory_format = peers.FORMATS[form]
    network = peers.build(subject.name, size).to(device, memory_format=memory_format).train()
    image = torch.randn(2, 4, size, size, size, device=device).contiguous(memory_format=memory_format)
    label = torch.randint(0, 4, (2, size, size, size), device=device)
    shares = nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    loss_of = HeadLoss("dice_ce")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    for precision, autocast in AUTOCAST.items():

        def step(autocast=autocast):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                logits = network(image)
            loss_of(logits.float(), shares).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()

        record(subject.row("training", batch=2, precision=precision, format=form), step)


def record(row: dict, function: Callable[[], None], warm_up: bool = True) -> None:
    """Runs `function`, to warm up and then measured, and adds seconds and peak memory to the row.

    allocated: tensors and workspaces; reserved: what torch took from the card for them; both with the weights.
    Where the memory does not suffice, the row says so and is not tried again.
    """
    if row["note"] == "out of memory":
        return
    torch.cuda.empty_cache()
    try:
        if warm_up:
            function()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    except (RuntimeError, Cancelled) as error:
        if not (isinstance(error, Cancelled) or is_out_of_memory(error)):
            raise
        row["note"] = "out of memory"
        return
    row["seconds"].append(seconds)
    row["allocated_mb"].append(torch.cuda.max_memory_allocated() / 1e6)
    row["reserved_mb"].append(torch.cuda.max_memory_reserved() / 1e6)


def show(part: str, subjects: list[Subject], size: int) -> None:
    """A table for each setting: of several memory formats the fastest; ratios to the first that ran."""
    settings = {_setting(row): None for subject in subjects for row in subject.rows if row["part"] == part}
    for setting in settings:
        cells, base = [], None
        for subject in subjects:
            rows = [row for row in subject.rows if row["part"] == part and _setting(row) == setting]
            row = min(rows, key=_time)
            base = base or row["seconds"]
            cells.append(
                [
                    f"{subject.title} ({row['format']})",
                    f"{_time(row):.3f}" if row["seconds"] else "",
                    ratio(row["seconds"], base),
                    _gigabytes(row["allocated_mb"]),
                    _gigabytes(row["reserved_mb"]),
                    row["note"],
                ]
            )
        header = ["network", "seconds", "ratio", "allocated GB", "reserved GB", "note"]
        print_table(f"{part}, {size}^3, {setting}", header, cells)


def _setting(row: dict) -> str:
    return f"batch {row['batch']}, {row['precision']}" if "batch" in row else f"{row['passes']} passes"


def _time(row: dict) -> float:
    return median(row["seconds"]) if row["seconds"] else float("inf")


def _gigabytes(megabytes: Iterable[float]) -> str:
    return f"{max(megabytes) / 1000:.2f}" if megabytes else ""


if __name__ == "__main__":
    main()
