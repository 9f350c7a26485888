"""The training loop: a configuration to a run folder with log, checkpoint and model package.

run/config.json      what was asked, resolved, with versions and data hashes
run/log.jsonl        one line a logged step or validation
run/checkpoint.pt    the newest state, to resume from
run/model/           the package made of the averaged weights
"""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from dataclasses import asdict
from pathlib import Path

import monai
import numpy as np
import torch
from monai.losses import DiceCELoss
from nibabel.affines import voxel_sizes
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from segmamba import __version__
from segmamba.augment import training_transform
from segmamba.case import find_case, find_label, load_case, load_label_map
from segmamba.checkpoint import load_checkpoint, save_checkpoint
from segmamba.config import TrainingConfig
from segmamba.errors import InputError
from segmamba.files import write_aside
from segmamba.metrics import region_scores
from segmamba.network import SegMamba
from segmamba.network.mamba import parameters_without_decay
from segmamba.package import Manifest, load_package, save_package
from segmamba.samples import PatchDataset, TrainingCase, find_training_cases, prepare
from segmamba.segment import segment

log = logging.getLogger(__name__)

_LOG_EVERY = 25
_MAX_BAD_STEPS = 10  # non-finite losses in a row before the run gives up


def train(config: TrainingConfig, run: Path, *, resume: bool = False, device: str = "cpu") -> Path:
    """Trains; returns the folder of the model package. Raises InputError for bad data, settings, or divergence."""
    if config.precision == "bf16" and torch.device(device).type == "cpu" and config.patch[0] < 48:
        # oneDNN's bf16 weight gradient of a 3x3x3 convolution reads memory that nobody wrote where the depth is 2
        raise InputError(
            f"patch {config.patch} needs a depth of 48 or more for bf16 on the CPU; or set precision = 'fp32'"
        )
    run.mkdir(parents=True, exist_ok=True)
    groups, held_out = _prepare_cases(config)
    start, network, averaged, optimizer = _prepare_network(config, run, resume, device)
    record = _record(config, groups, held_out)
    write_aside(run / "config.json", json.dumps(record, indent=2).encode())
    loss_of = DiceCELoss(softmax=True, batch=True, include_background=False)
    dataset = PatchDataset(
        groups,
        [source.share for source in config.sources],
        training_transform(config.patch, network.config.out_channels, config.foreground),
        config.seed,
        config.steps * config.batch,
        start * config.batch,
    )
    workers = min(8, (torch.get_num_threads() - 1)) if device != "cpu" else 0
    loader = DataLoader(dataset, batch_size=config.batch, num_workers=workers, pin_memory=device != "cpu")
    losses, bad, began = [], 0, time.perf_counter()
    for step, batch in enumerate(loader, start + 1):
        loss = _step(network, batch, loss_of, optimizer, config, step, device)
        if math.isfinite(loss):
            averaged.update_parameters(network)
            losses.append(loss)
            bad = 0
        else:
            bad += 1
            log.warning("step %d: loss is not finite; the step was skipped", step)
            if bad == _MAX_BAD_STEPS:
                raise InputError(f"training diverged: {bad} steps in a row without a finite loss; lower learning_rate")
        if step % _LOG_EVERY == 0 and losses:
            rate = (step - start) / (time.perf_counter() - began)
            _log(
                run,
                step=step,
                loss=float(np.mean(losses)),
                learning_rate=optimizer.param_groups[0]["lr"],
                rate=rate,
            )
            log.info(
                "step %d/%d loss %.3f, %.0f min left",
                step,
                config.steps,
                np.mean(losses),
                (config.steps - step) / rate / 60,
            )
            losses = []
        if step % config.checkpoint_every == 0 or step == config.steps:
            _save(run, step, network, averaged, optimizer)
        if held_out and step % config.validate_every == 0 and step != config.steps:
            _validate(averaged.module, held_out, config, run, step, device)
    metrics = _validate(averaged.module, held_out, config, run, config.steps, device) if held_out else {}
    return _publish(run, averaged.module, config, record, metrics)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Of step 1..steps: linear warm-up, then polynomial decay with exponent 0.9 to 0 at the end."""
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    return config.learning_rate * (1 - (step - config.warmup - 1) / max(1, config.steps - config.warmup)) ** 0.9


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on weights of convolutions and projections; none on norms, biases, A, D and the dt bias."""
    without = parameters_without_decay(network)
    decayed = [p for name, p in network.named_parameters() if p.ndim > 1 and name not in without]
    free = [p for name, p in network.named_parameters() if p.ndim <= 1 or name in without]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _step(network, batch, loss_of, optimizer, config: TrainingConfig, step: int, device: str) -> float:
    """One optimizer step; returns the loss, after which nothing has changed if it is not finite."""
    image, label = (batch[name].to(device, non_blocking=True) for name in ("image", "label"))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    optimizer.zero_grad()
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits = network(image.contiguous(memory_format=torch.channels_last_3d))
    loss: Tensor = loss_of(logits.float(), label)
    if not torch.isfinite(loss):
        return math.nan
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
    if not torch.isfinite(norm):
        return math.nan
    optimizer.step()
    return loss.item()


def _prepare_cases(config: TrainingConfig) -> tuple[list[list[TrainingCase]], list[TrainingCase]]:
    groups, held_out = [], []
    for source in config.sources:
        training, validation = find_training_cases(source)
        groups.append([prepare(f, source.convention, config.preprocess, Path(config.cache)) for f in training])
        held_out += [prepare(f, source.convention, config.preprocess, Path(config.cache)) for f in validation]
    if not all(groups):
        raise InputError("a source has no case to train on: all of them are held out; use at least 2 folds")
    log.info("%d training cases, %d held out", sum(map(len, groups)), len(held_out))
    return groups, held_out


def _prepare_network(config: TrainingConfig, run: Path, resume: bool, device: str):
    """-> first step done, network, averaged network, optimizer."""
    torch.manual_seed(config.seed)
    network = SegMamba(config.network.resolve())
    if config.initial_model:
        model = load_package(config.initial_model)
        if model.manifest.network != network.config or model.manifest.preprocess != config.preprocess:
            raise InputError(
                f"initial_model {config.initial_model} has another network or preprocessing than the configuration"
            )
        network = model.network.train()
    network = network.to(device, memory_format=torch.channels_last_3d)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    optimizer = torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=config.learning_rate)
    step = 0
    if resume:
        state = load_checkpoint(run / "checkpoint.pt")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        log.info("resumed after step %d", step)
    return step, network, averaged, optimizer


def _validate(network, cases: list[TrainingCase], config: TrainingConfig, run: Path, step: int, device: str) -> dict:
    """Whole volumes on the cases' own grids, without mirroring: {"mean": region -> dice and hd95, "cases": ...}."""
    network.eval()
    per_case = {}
    for entry in cases:
        case = load_case(find_case(entry.folder, config.preprocess.modalities), entry.id, config.preprocess.modalities)
        truth = load_label_map(find_label(entry.folder), entry.convention, case)
        result = segment(case, network, config.preprocess, config.inference, device=device)
        per_case[entry.id] = region_scores(result.label_map, truth, tuple(voxel_sizes(case.affine)))
    network.train()
    mean = {
        region: {m: float(np.mean([scores[region][m] for scores in per_case.values()])) for m in ("dice", "hd95")}
        for region in next(iter(per_case.values()))
    }
    _log(run, step=step, validation=mean, cases=per_case)
    log.info("step %d validation %s", step, {region: round(scores["dice"], 3) for region, scores in mean.items()})
    return {"mean": mean, "cases": per_case}


def _save(run: Path, step: int, network, averaged, optimizer) -> None:
    save_checkpoint(
        run / "checkpoint.pt",
        step=step,
        network=network.state_dict(),
        averaged=averaged.state_dict(),
        optimizer=optimizer.state_dict(),
    )


def _publish(run: Path, network: SegMamba, config: TrainingConfig, record: dict, metrics: dict) -> Path:
    manifest = Manifest(
        id=config.name,
        network=network.config,
        preprocess=config.preprocess,
        inference=config.inference,
        weights_dtype="float16",
        training=record,
        metrics=metrics,
    )
    card = f"# {config.name}\n\nMade by `Training/train.py`; settings, data hashes and metrics are in model.json.\n"
    save_package(run / "model", network, manifest, card)
    return run / "model"


def _record(config: TrainingConfig, groups, held_out) -> dict:
    settings = asdict(config)
    for source in settings["sources"]:
        source["folder"] = Path(source["folder"]).name  # a manifest travels; the paths of this machine do not
    settings.update(cache="", initial_model=Path(config.initial_model).name)
    return {
        "config": settings,
        "versions": {
            "segmamba": __version__,
            "torch": torch.__version__,
            "monai": monai.__version__,
            "python": platform.python_version(),
        },
        "cases": {case.id: case.digest for group in groups for case in group},
        "held_out": {case.id: case.digest for case in held_out},
    }


def _log(run: Path, **values) -> None:
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**values, "time": round(time.time(), 1)}) + "\n")
