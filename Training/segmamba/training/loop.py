"""The training loop: a configuration to a run folder with log, checkpoints and model package.

run/config.json, log.jsonl       what was asked and what happened (segmamba.training.run_folder)
run/last.pt, previous.pt         the newest states, to resume from (segmamba.training.checkpoint)
run/best/                        the package of the best validation so far
run/model/                       the package that the run is for, once it has ended
run/progress.png, overlays/      what to look at (segmamba.evaluation.report)
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import torch
from torch.utils.data import DataLoader

from segmamba.errors import InputError, Stopped
from segmamba.evaluation.report import format_table, write_progress
from segmamba.files.atomic import make_folder
from segmamba.models.package import copy_package
from segmamba.models.specs import ModelSpecs
from segmamba.training.checkpoint import is_resumed, load_checkpoint, save_checkpoint
from segmamba.training.config import TrainingConfig, resolved
from segmamba.training.distributed import World, cores, join, leave, standing
from segmamba.training.experiment import Beginning, Experiment, begin, load_experiment, prepare_ahead
from segmamba.training.journal import Journal
from segmamba.training.optimize import learning_rate
from segmamba.training.release import write_package
from segmamba.training.run_folder import alone, changed_settings, read_record, surroundings, write_record
from segmamba.training.samples import StepSampler
from segmamba.training.stepper import Stepper
from segmamba.training.stop_signals import StopRequests, ignore_stop_signals, listening
from segmamba.training.validation import draw_worst, mean_dice, validate

log = logging.getLogger(__name__)

_WARPED_ON_CPU = ("cpu", "mps")  # torch's grid_sample knows no volumes on MPS
_MOST_SCORERS = 8  # processes of a validation, each of which holds a case or two
_MAX_BAD_STEPS = 10  # steps in a row without a finite gradient before the run goes back


def train(
    config: TrainingConfig,
    run: Path,
    *,
    resume: str = "never",
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
    on_line: Callable[[dict], None] | None = None,
    stop: StopRequests | None = None,
) -> Path:
    """Trains a network, as one process of a `torchrun` training or as the only one.

    Args:
        config: what to train, on what, and how.
        run: folder of checkpoints, log and model; made where it is missing.
        resume: "never" refuses a folder that was begun, "auto" goes on where there is a checkpoint, "must" always.
        device: "cpu", "cuda" or "cuda:1"; of a `torchrun` training "cuda", of which each process takes its own.
        on_step: called as on_step(step, loss) after every step, in the first process.
        on_line: called with every line of log.jsonl as it is written: for MLflow, Weights & Biases and the like.
        stop: of a caller who listens already, and has removed run/stop of an earlier start; None: it is done here.

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
    world = standing(device)
    is_resumed(run, resume)
    beginning = begin(config, world)
    with alone(run, world, stop_counts=stop is not None):
        # signals end it as always until it has joined: whoever waits for other processes asks nobody
        prepare_ahead(beginning, world, StopRequests([], run) if stop is None else stop)
        join(world)
        try:
            with listening(run, stop) as asked:
                training = Training(config, run, world, resume, asked, on_step, on_line, beginning)
                del beginning  # which holds all patches: their samples are in the cache now
                return training.train()
        finally:
            leave(world)


class Training:
    """The state of a training, and what is done with it.

    The weights after a step depend on the configuration alone: not on how often the run was stopped and resumed, nor,
    but for networks with dropout, on how many processes share a batch.
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
        beginning: Beginning | None = None,
    ):
        self.config = config
        self.run = run
        self.world = world
        self.stop = stop
        resuming = is_resumed(run, resume)
        make_folder(run)
        self.experiment: Experiment = load_experiment(config, world, beginning, stop)
        self.stepper = Stepper(config, self.experiment, world)
        self.step = 0
        self.skipped = 0
        self.rate_factor = 1.0
        self.best = -1.0
        self.since_best = 0
        self.metrics = {}
        data = {**self.experiment.data_record(), **self.experiment.ancestry_record()}
        self.record = {"config": resolved(config), **surroundings(world.device), **data}
        self.journal = Journal(run, world, config.steps, on_step, on_line)
        if resuming:
            state, note = load_checkpoint(run)
            self._restore(state)
            self._report(f"resumed after step {self.step}" + (f"; {note}" if note else ""))
            self._record_changes()
            world.wait()  # until all have read the record, which the first now replaces
        if world.is_first:
            write_record(run, self.record)
        slow = config.precision == "bf16" and not self.stepper.autocast
        reason = "; bf16 is slow or missing on this device" if slow else ""
        self._report(f"training in {'bf16' if self.stepper.autocast else 'fp32'}{reason}")
        if not self.experiment.held_out and any(source.validate for source in config.sources):
            self._report("nothing is held out: no validation, the last weights are released")
        if seen := self.record.get("held_out_learnt_before"):
            self._report(
                f"{len(seen)} of the {len(self.experiment.held_out)} cases that are validated on were trained on by "
                "the initial model or one before it: their scores say too much"
            )

    def train(self) -> Path:
        """Trains to the end, or to a stop signal; returns the folder of the model."""
        self.stepper.prepare(self._report)
        if self.step == 0:
            self._save()
        if self._owes_validation():
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
        for batch, waited in self._timed(self._loader()):
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
            self.journal.step(self.step, loss, norm, self.stepper.optimizer.param_groups[0]["lr"], waited, self.skipped)
            validating = self.step % self.config.validation.every == 0
            due = time.perf_counter() - saved > self.config.checkpoint_minutes * 60
            stop, due = self.world.any_of(bool(self.stop), due)
            if stop:
                self._save()
                self._end_by_signal()
            if validating and self.experiment.held_out:
                self._save()  # a validation takes long: who is killed in it loses no step, and owes it
                self._validate()
            if validating or self.step == self.config.steps or due:
                self._save()
                saved = time.perf_counter()
                self.journal.go_on()
            if self._is_stale():
                return

    def _step(self, batch: dict) -> tuple[float, float]:
        rate = learning_rate(self.step + 1, self.config.steps, self.config.optimizer) * self.rate_factor
        return self.stepper.step(batch["image"], batch["label"], rate, self.step)

    def _loader(self) -> DataLoader:
        config, world = self.config, self.world
        kind = torch.device(world.device).type
        sampler = StepSampler(self.step, config.steps, config.batch, world.rank, world.size)
        workers = config.workers
        if workers is None:
            workers = 0 if kind == "cpu" else self._helpers()
        return DataLoader(
            self.experiment.samples,
            batch_sampler=sampler,
            num_workers=workers,
            # beside a GPU samples come as they are stored, a quarter of the size, and are made a batch there
            collate_fn=self.experiment.samples.augmentation.make_batch if kind in _WARPED_ON_CPU else list,
            pin_memory=kind == "cuda",
            prefetch_factor=4 if workers else None,
            worker_init_fn=ignore_stop_signals,
        )

    def _timed(self, loader: DataLoader) -> Iterator[tuple[dict, float]]:
        """The batches, each with the seconds it was waited for."""
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            waited = time.perf_counter() - start
            if isinstance(batch, list):
                batch = self.experiment.samples.augmentation.make_batch(batch, self.world.device)
            yield batch, waited

    def _helpers(self) -> int:
        """Processes that this one, beside a GPU, may have work for it."""
        return max(1, cores() // self.world.local_size - 1)

    def _end_by_signal(self) -> NoReturn:
        self._report(f"stopped after step {self.step} by a signal")
        raise Stopped(self.step, self.stop.number)

    def _validate(self) -> None:
        """Of a state that was saved. Where a stop is asked for it is not begun, or given up at its next case."""
        if not self.experiment.held_out:
            return
        if self.world.any(bool(self.stop)):
            self._end_by_signal()
        start, known = time.perf_counter(), self.experiment
        try:
            found = validate(
                self.stepper.ema.module,
                known.held_out,
                ModelSpecs(self.config.preprocess, known.inference, known.postprocess, known.scheme),
                self.world,
                jobs=0 if torch.device(self.world.device).type == "cpu" else min(_MOST_SCORERS, self._helpers()),
                stop=self.stop,
            )
        except Stopped:
            self._end_by_signal()
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

    def _owes_validation(self) -> bool:
        """Whether this step's validation is still to be made: the first one, or one that a stop came before."""
        wanted = self.step % self.config.validation.every == 0 if self.step else self.config.validation.at_start
        return wanted and self.metrics.get("step") != self.step

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
                **self.stepper.state(),
                skipped=self.skipped,
                rate_factor=self.rate_factor,
                best=self.best,
                since_best=self.since_best,
                metrics=self.metrics,
            )
        self.world.wait()

    def _restore(self, state: dict) -> None:
        try:
            self.stepper.restore(state)
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
        if "held_out" in changed:  # scores of other cases are no measure for what comes
            self.best, self.since_best, self.metrics = -1.0, 0, {}
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
        write_package(
            folder, self.stepper.ema.module, self.config, self.experiment, record=self.record, metrics=metrics
        )

    def _report(self, text: str) -> None:
        self.journal.note(self.step, text)


class _DivergedError(Exception):
    """cases: of the steps without a finite gradient."""

    def __init__(self, cases: list[str]):
        super().__init__(", ".join(cases))
        self.cases = cases
