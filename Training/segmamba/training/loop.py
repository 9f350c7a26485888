"""The training loop: a configuration to a run folder with log, checkpoints and model package.

run/config.json, log.jsonl       what was asked and what happened (segmamba.training.run_folder)
run/last.pt, previous.pt         the newest states, to resume from (segmamba.training.checkpoint)
run/best/                        the package of the best validation so far
run/model/                       the package that the run is for, once it has ended
run/progress.png, overlays/      what to look at (segmamba.evaluation.report)
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from segmamba.errors import InputError, Stopped, is_out_of_memory
from segmamba.evaluation.report import format_table, write_progress
from segmamba.models.package import copy_package
from segmamba.training.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from segmamba.training.config import TrainingConfig, resolved
from segmamba.training.distributed import World, cores, join, leave
from segmamba.training.experiment import Experiment, load_experiment
from segmamba.training.journal import Journal
from segmamba.training.optimize import HeadLoss, average_of, build_optimizer, learning_rate, state_to_come, uses_bf16
from segmamba.training.release import write_package
from segmamba.training.run_folder import alone, changed_settings, read_record, surroundings, write_record
from segmamba.training.samples import StepSampler
from segmamba.training.stop_signals import StopRequests, ignore_stop_signals, stop_signals
from segmamba.training.validation import draw_worst, mean_dice, validate

log = logging.getLogger(__name__)

_MAX_BAD_STEPS = 10  # steps in a row without a finite gradient before the run goes back


def train(
    config: TrainingConfig,
    run: Path,
    *,
    resume: str = "never",
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
    on_line: Callable[[dict], None] | None = None,
) -> Path:
    """Trains a network, as one process of a `torchrun` training or as the only one.

    Args:
        config: what to train, on what, and how.
        run: folder of checkpoints, log and model; made where it is missing.
        resume: "never" refuses a folder that was begun, "auto" goes on where there is a checkpoint, "must" always.
        device: "cpu", "cuda" or "cuda:1"; of a `torchrun` training each process takes its own GPU.
        on_step: called as on_step(step, loss) after every step, in the first process.
        on_line: called with every line of log.jsonl as it is written: for MLflow, Weights & Biases and the like.

    Returns:
        The folder of the model package.

    Raises:
        InputError: for bad data or settings, and for a training that diverges.
        Stopped: after SIGTERM or SIGINT, or once there is a file run/stop; the state was saved.

    Example:
        ``configuration`` is a TOML file like those in Training/configs, and ``folder`` an empty folder.

        >>> from segmamba.training.config import load_config
        >>> model = train(load_config(configuration), folder / "run")
        >>> (model / "model.safetensors").is_file()
        True
    """
    world = join(device)
    try:
        with stop_signals() as caught, alone(run, world, resume):
            return Training(config, run, world, resume, StopRequests(caught, run), on_step, on_line).train()
    finally:
        leave(world)


class Training:
    """The state of a training, and what is done with it.

    The weights after a step depend on the configuration alone: not on how many processes share a batch, nor on how
    often the run was stopped and resumed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run: Path,
        world: World,
        resume: str,
        stop: StopRequests,
        on_step: Callable[[int, float], None] | None = None,
        on_line: Callable[[dict], None] | None = None,
    ):
        self.config = config
        self.run = run
        self.world = world
        self.stop = stop
        if config.batch % (world.size * config.accumulation):
            raise InputError(
                f"batch {config.batch} cannot be shared by {world.size} processes with {config.accumulation} "
                "micro-batches each; make it a multiple of their product"
            )
        resuming = has_checkpoint(run)
        if resuming and resume == "never":
            raise InputError(f"run folder {run} holds a training already; go on with --resume auto, or name another")
        if resume == "must" and not resuming:
            load_checkpoint(run)  # says what is missing
        run.mkdir(parents=True, exist_ok=True)
        self.experiment: Experiment = load_experiment(config, world)
        self.autocast = uses_bf16(config, world.device)
        self.network: nn.Module = cast(Any, self.experiment.network).to(
            world.device, memory_format=torch.channels_last_3d
        )
        self.ema = average_of(self.network, config.optimizer.ema)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.ddp = world.wrap(self.network)
        self.loss_of = HeadLoss(config.loss, self.experiment.inference.nested)
        self.step = 0
        self.skipped = 0
        self.rate_factor = 1.0
        self.best = -1.0
        self.since_best = 0
        self.metrics = {}
        self.record = {"config": resolved(config), **surroundings(world.device), **self.experiment.data_record()}
        self.journal = Journal(run, world, config.steps, on_step, on_line)
        if resuming:
            state, note = load_checkpoint(run)
            self._restore(state)
            self._report(f"resumed after step {self.step}" + (f"; {note}" if note else ""))
            self._record_changes()
        if world.is_first:
            write_record(run, self.record)
        slow = config.precision == "bf16" and not self.autocast
        reason = "; bf16 is slow or missing on this device" if slow else ""
        self._report(f"training in {'bf16' if self.autocast else 'fp32'}{reason}")

    def train(self) -> Path:
        """Trains to the end, or to a stop signal; returns the folder of the model."""
        self.accumulation = self._fit_memory()
        if self.step == 0:
            self._save()
            if self.config.validation.at_start:
                self._validate()
        while self.step < self.config.steps and not self._is_stale():
            try:
                self._advance()
            except _DivergedError as error:
                self._roll_back(error.cases)
        if self.metrics.get("step") != self.step:
            self._validate()
        return self._finish()

    def _advance(self) -> None:
        """Steps until the end, an early stop, or a divergence."""
        bad: list[str] = []
        saved = time.perf_counter()
        self.journal.begin()
        for batch in self._timed(self._loader()):
            waited = batch.pop("waited")
            loss, norm = self._step(batch)
            self.step += 1
            if math.isfinite(norm):
                bad = []
            else:
                self.skipped += 1
                bad += batch["case"]
                log.warning("step %d: the gradient is not finite; the step was skipped", self.step)
                if len(bad) >= _MAX_BAD_STEPS * len(batch["case"]):
                    raise _DivergedError(sorted(set(self.world.gather(bad))))
            self.journal.step(self.step, loss, norm, self.optimizer.param_groups[0]["lr"], waited, self.skipped)
            validating = self.step % self.config.validation.every == 0
            if self.world.any(bool(self.stop)):
                self._save()
                self._report(f"stopped after step {self.step} by a signal")
                raise Stopped(self.step, self.stop.number)
            due = time.perf_counter() - saved > self.config.checkpoint_minutes * 60
            if validating:
                self._validate()
            if validating or self.step == self.config.steps or self.world.any(due):
                self._save()
                saved = time.perf_counter()
                self.journal.go_on()
            if self._is_stale():
                return

    def _step(self, batch: dict) -> tuple[float, float]:
        """One optimizer step: (loss, norm of the gradient). Where the norm is not finite, nothing has changed."""
        rate = learning_rate(self.step + 1, self.config.steps, self.config.optimizer) * self.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss = self._gradient(batch["image"], batch["label"], self.accumulation)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.gradient_clip))
        if math.isfinite(norm):
            self.optimizer.step()
            self.ema.update_parameters(self.network)
        return loss, norm

    def _gradient(self, image: Tensor, label: Tensor, parts: int) -> float:
        """Adds the gradient of the mean loss over the batch, in `parts` micro-batches; returns that loss."""
        total = torch.zeros((), device=self.world.device)
        for number, (x, y) in enumerate(zip(image.chunk(parts), label.chunk(parts)), start=1):
            x, y = (t.to(self.world.device, non_blocking=True) for t in (x, y))
            apart = self.world.size > 1 and number < parts  # gradients are averaged once, with the last part
            with cast(DistributedDataParallel, self.ddp).no_sync() if apart else contextlib.nullcontext():
                with torch.autocast(torch.device(self.world.device).type, torch.bfloat16, enabled=self.autocast):
                    logits = self.ddp(x.contiguous(memory_format=torch.channels_last_3d))
                loss = self.loss_of(logits.float(), y) * (len(x) / len(image))
                loss.backward()
            total += loss.detach()
        return total.item()

    def _fit_memory(self) -> int:
        """Micro-batches per step: doubled from the configuration's until a first batch fits into the GPU."""
        parts, share = self.config.accumulation, self.config.batch // self.world.size
        if torch.device(self.world.device).type == "cpu":
            return parts
        # What the first step will make stays beside the trial: the optimizer keeps its state from then on.
        image = torch.zeros((share, len(self.config.preprocess.modalities), *self.config.patch))
        label = torch.zeros((share, self.experiment.classes, *self.config.patch))
        while True:
            fits, to_come = True, []
            try:
                to_come = state_to_come(self.optimizer)
                with (
                    cast(DistributedDataParallel, self.ddp).no_sync()
                    if self.world.size > 1
                    else contextlib.nullcontext()
                ):
                    self._gradient(image, label, parts)
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
            parts *= 2
            self._report(f"out of GPU memory: {parts} micro-batches of {share // parts} patches, the same batch")

    def _loader(self) -> DataLoader:
        config, world = self.config, self.world
        sampler = StepSampler(self.step, config.steps, config.batch, world.rank, world.size)
        workers = config.workers
        if workers is None:
            workers = 0 if torch.device(world.device).type == "cpu" else max(1, cores() // world.local_size - 1)
        return DataLoader(
            self.experiment.samples,
            batch_sampler=sampler,
            num_workers=workers,
            pin_memory=torch.device(world.device).type == "cuda",
            prefetch_factor=4 if workers else None,
            worker_init_fn=ignore_stop_signals,
        )

    @staticmethod
    def _timed(loader: DataLoader) -> Iterator[dict]:
        """The batches, each with the seconds it was waited for."""
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield {**batch, "waited": time.perf_counter() - start}

    def _validate(self) -> None:
        if not self.experiment.held_out:
            return
        start = time.perf_counter()
        found = validate(
            self.ema.module,
            self.experiment.held_out,
            self.config.preprocess,
            self.experiment.inference,
            self.experiment.postprocess,
            self.experiment.scheme,
            self.world,
        )
        score = mean_dice(found)
        better = score > self.best
        self.best, self.since_best = (score, 0) if better else (self.best, self.since_best + 1)
        self.metrics = {"step": self.step, **found}
        if not self.world.is_first:
            return
        if better:
            self._write_package(self.run / "best", self.metrics)
        seconds = round(time.perf_counter() - start, 1)
        self.journal.write("validation", self.step, **found, seconds=seconds, best=better)
        write_progress(self.run)
        dices = ", ".join(f"{region} {scores['dice']:.3f}" for region, scores in found["mean"].items())
        log.info("step %d: validation Dice %s%s", self.step, dices, " (best)" if better else "")

    def _is_stale(self) -> bool:
        patience = self.config.validation.patience
        return bool(patience) and self.since_best >= patience

    def _roll_back(self, cases: list[str]) -> None:
        """To the last checkpoint with half the learning rate; a second time training ends."""
        if self.rate_factor < 1:
            raise InputError(
                f"training diverged twice: {_MAX_BAD_STEPS} steps in a row without a finite gradient, from the cases "
                f"{', '.join(cases[:10])}; look at their images, or lower optimizer.learning_rate"
            )
        at, skipped = self.step, self.skipped
        state, _ = load_checkpoint(self.run)
        self._restore(state)
        self.rate_factor, self.skipped = 0.5, skipped
        self._report(
            f"rolled back from step {at} to {self.step}, with half the learning rate; cases {', '.join(cases)}"
        )

    def _save(self) -> None:
        if self.world.is_first:
            save_checkpoint(
                self.run,
                step=self.step,
                network=self.network.state_dict(),
                averaged=self.ema.state_dict(),
                optimizer=self.optimizer.state_dict(),
                skipped=self.skipped,
                rate_factor=self.rate_factor,
                best=self.best,
                since_best=self.since_best,
                metrics=self.metrics,
            )
        self.world.wait()

    def _restore(self, state: dict) -> None:
        try:
            groups = state["optimizer"]["param_groups"]
            if set(groups[0]) != set(self.optimizer.param_groups[0]):  # torch would take them without a word
                raise ValueError("the optimizer has other settings")
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"run {self.run} was begun with another network or optimizer: {reason}") from None
        for name in ("step", "skipped", "rate_factor", "best", "since_best", "metrics"):
            setattr(self, name, state[name])

    def _record_changes(self) -> None:
        """Settings and cases that are not those the run was begun with: in its log, and in its record for good."""
        old = read_record(self.run)
        changed = changed_settings(old, self.record)
        earlier = old.get("resumed", [])
        if changed:
            earlier = [*earlier, {"step": self.step, "was": changed}]
            before = ", ".join(f"{name} (before: {value})" for name, value in changed.items())
            self._report(f"resumed with other settings: {before}")
        if earlier:
            self.record["resumed"] = earlier

    def _finish(self) -> Path:
        """Writes what the run is for; the other processes wait."""
        folder = self.run / "model"
        if self.world.is_first:
            best = self.run / "best"
            if self.config.validation.release == "best" and self.experiment.held_out:
                copy_package(best, folder)
            else:
                self._write_package(folder, self.metrics)
            if self.experiment.held_out:
                draw_worst(folder, self.experiment.held_out, self.run / "overlays", self.world.device)
            write_progress(self.run)
            log.info("\n%s", format_table(self.run))
        self.world.wait()
        return folder

    def _write_package(self, folder: Path, metrics: dict) -> None:
        write_package(folder, self.ema.module, self.config, self.experiment, record=self.record, metrics=metrics)

    def _report(self, text: str) -> None:
        self.journal.note(self.step, text)


class _DivergedError(Exception):
    """cases: of the steps without a finite gradient."""

    def __init__(self, cases: list[str]):
        super().__init__(", ".join(cases))
        self.cases = cases
