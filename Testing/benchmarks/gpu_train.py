"""A model trained on packed cases in the time that is left: as many steps as fit, what comes back in small files.

OUTPUT/model.json                  the manifest of the model, the averaged weights in half precision
OUTPUT/model.safetensors.00, ...   its weights in pieces; `cat model.safetensors.?? > model.safetensors` joins them
Both are written anew from the newest checkpoint every two minutes. The log goes into --results.

The steps follow from the seconds: a first short training shows how long one takes, so that the learning rate reaches
its end in time. SIGTERM saves, as every training does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from measure import progress
from segmamba.errors import InputError, Stopped
from segmamba.files.atomic import write_aside
from segmamba.models.package import MANIFEST, WEIGHTS, Manifest, save_package
from segmamba.networks.choice import NetworkChoice, build
from segmamba.training.checkpoint import LAST, load_checkpoint
from segmamba.training.config import AugmentConfig, OptimizerConfig, SourceConfig, TrainingConfig
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment
from segmamba.training.loop import train
from segmamba.training.optimize import average_of
from segmamba.training.packed import INDEX, read_packed
from segmamba.training.run_folder import CONFIG, LOG

PIECE = 15 << 20  # bytes
EVERY = 120.0  # seconds between two exports
PROBE = 24  # steps of the training that shows how long one takes
USED = 0.9  # of the seconds that are left, by the steps of the training
PATCHES = "patches"  # as gpu_pack.py names the folder of crops
PATCH_SHARE = 0.15  # of the samples
# half of the width of `released`: its weights in half precision come back in few files of 16 MiB
STANDARD = NetworkChoice(features=(32, 64, 128, 256), full_features=32, bottleneck=320)
TOY = NetworkChoice(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Trains on packed cases in the time that is given.")
    parser.add_argument("--cases", type=Path, required=True, help="folders of packed cases (gpu_pack.py)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="run folders and the cache")
    parser.add_argument("--results", type=Path, required=True, help="a JSON file")
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at toy size")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        config = make_config(options.cases, options.work, options.dry)
    except InputError as error:
        raise SystemExit(str(error)) from None
    device = "cpu" if options.dry else "cuda"
    if not options.dry and not torch.cuda.is_available():
        print("there is no GPU; --dry tries everything at toy size")
        return 1
    run = options.work / "run"
    if (run / CONFIG).exists():  # it was stopped: its number of steps stays
        steps = json.loads((run / CONFIG).read_text(encoding="utf-8"))["config"]["steps"]
    else:
        seconds = step_seconds(config, options.work, device, PROBE // 6 if options.dry else PROBE)
        left = options.seconds - (time.monotonic() - start)
        steps = max(10, int(USED * left / seconds))
        progress(f"{seconds:.3f} s a step: {steps} steps")
        if options.dry:
            steps = 6
    config = replace(config, steps=steps)
    exporter = Exporter(config, run, options.output, options.results)
    try:
        train(config, run, resume="auto", device=device, on_step=exporter.after_step)
    except Stopped as stopped:
        exporter.export()
        return 128 + stopped.signal_number
    exporter.export()
    return 0


def make_config(cases: Path, work: Path, dry: bool) -> TrainingConfig:
    """Ours (Training/configs/segmamba.toml), for a short training of a smaller network on coarser voxels."""
    folders = sorted(path.parent for path in cases.glob(f"*/{INDEX}"))
    if not folders:
        raise SystemExit(f"there are no packed cases in {cases}; make them with gpu_pack.py")
    packed = {folder: read_packed(folder) for folder in folders}
    whole = sum(len(one.cases) for folder, one in packed.items() if folder.name != PATCHES)
    sources = []
    for folder, one in packed.items():
        share = PATCH_SHARE / (1 - PATCH_SHARE) * whole if folder.name == PATCHES and whole else len(one.cases)
        sources.append(SourceConfig(packed=str(folder), share=share))
    fastest = fastest_settings(work)
    return TrainingConfig(
        name="standard",
        sources=tuple(sources),
        network=TOY if dry else STANDARD,
        preprocess=packed[folders[0]].preprocess,
        augment=AugmentConfig(modality_dropout=0.1),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup=100, ema=0.995),
        patch=(32, 32, 32) if dry else (96, 128, 96),
        batch=2 if dry else 4,
        steps=PROBE,
        head="regions",
        precision="fp32" if dry else "bf16",
        weights_dtype="float16",
        checkpoint_minutes=EVERY / 60,
        channels_last=fastest.get("format", "channels last") == "channels last",
        cudnn_benchmark=bool(fastest.get("benchmark", False)),
        cache=str(work / "cache"),
    )


def fastest_settings(work: Path) -> dict:
    """What `gpu_steps.py steps` found fastest, if it was run before."""
    try:
        return json.loads((work / "steps.json").read_text(encoding="utf-8"))["best"]
    except (OSError, ValueError, KeyError):
        return {}


def step_seconds(config: TrainingConfig, work: Path, device: str, steps: int) -> float:
    """Of the later half of a short training: the first steps wait for workers and kernels."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        train(replace(config, steps=steps), Path(folder) / "probe", device=device)
        lines = read_log(Path(folder) / "probe")
    seconds = [line["seconds_per_step"] for line in lines if line["kind"] == "step"]
    return median(seconds[len(seconds) // 2 :])


class Exporter:
    """The newest checkpoint as a model in small files, and the log as JSON."""

    def __init__(self, config: TrainingConfig, run: Path, output: Path, results: Path):
        self.config, self.run, self.output, self.results = config, run, output, results
        self.newest, self.due = 0.0, time.monotonic() + EVERY
        self.start = time.monotonic()

    def after_step(self, step: int, loss: float) -> None:
        if time.monotonic() >= self.due and self._is_new():
            self.export()
            self.due = time.monotonic() + EVERY

    def _is_new(self) -> bool:
        last = self.run / LAST
        return last.exists() and last.stat().st_mtime > self.newest

    def export(self) -> None:
        self.newest = (self.run / LAST).stat().st_mtime
        with tempfile.TemporaryDirectory(dir=self.run) as folder:
            write_model(self.config, self.run, Path(folder))
            for old in self.output.glob(f"{WEIGHTS}.??"):
                old.unlink()
            weights = (Path(folder) / WEIGHTS).read_bytes()
            for number, first in enumerate(range(0, len(weights), PIECE)):
                write_aside(self.output / f"{WEIGHTS}.{number:02d}", weights[first : first + PIECE])
            write_aside(self.output / MANIFEST, (Path(folder) / MANIFEST).read_bytes())
        found = {"steps": self.config.steps, "seconds": time.monotonic() - self.start, "log": read_log(self.run)}
        write_aside(self.results, json.dumps(found).encode())


def write_model(config: TrainingConfig, run: Path, folder: Path) -> None:
    """The averaged weights of the newest checkpoint as a model package."""
    experiment = load_experiment(config, World())
    state, _ = load_checkpoint(run)
    average = average_of(build(experiment.network_config), config.optimizer.ema)
    average.load_state_dict(state["averaged"])
    manifest = Manifest(
        id=config.name,
        network=experiment.network_config,
        preprocess=config.preprocess,
        inference=experiment.inference,
        label_map=experiment.scheme.labels,
        regions=experiment.scheme.regions,
        weights_dtype=config.weights_dtype,
        training=json.loads((run / CONFIG).read_text(encoding="utf-8")),
        metrics={"step": state["step"]},
    )
    save_package(folder, average.module, manifest, f"# {config.name}\n\nTrained by gpu_train.py.\n")


def read_log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
