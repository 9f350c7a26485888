"""The stages of an improvement, each of which leaves something whole behind by which a later start knows it is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmamba.datasets.manifest import Dataset, read_dataset
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.errors import InputError, Stopped
from segmamba.learning.gate import Comparison, Criteria, compare_models, run_gate, score_cache
from segmamba.learning.provenance import shipped_cases
from segmamba.learning.registry import change, in_use, state
from segmamba.learning.registry.state import MODELS, hash_of
from segmamba.learning.site.data import copy_shipped, freeze
from segmamba.learning.site.layout import CANDIDATE, DATA, Site
from segmamba.learning.site.plan import Plan, write_plan
from segmamba.learning.site.share import SHARES, choose_share
from segmamba.learning.site.status import StatusWriter
from segmamba.learning.site.withdrawn import drop_pictures, refuse_withdrawn
from segmamba.learning.site.words import verdict_text
from segmamba.learning.submissions.intake import Intake, ingest
from segmamba.models.package import MANIFEST, find_model, load_package
from segmamba.training import recipes
from segmamba.training.config import TrainingConfig
from segmamba.training.loop import train
from segmamba.training.samples import drop_all, drop_others
from segmamba.training.stop_signals import StopRequests

_REPLAYED = 250  # old cases at most: more would be prepared than are seen


class Stages:
    """The stages of a run, each of which leaves something whole behind.

    model: the first one of a site that has none. device: as of `improve`.
    """

    def __init__(
        self,
        site: Site,
        folder: Path,
        plan: Plan,
        status_writer: StatusWriter,
        stop: StopRequests,
        model: str,
        device: Callable[[], str],
    ):
        self.site = site
        self.folder = folder
        self.plan = plan
        self.status_writer = status_writer
        self.stop = stop
        self.model, self.device = model, device()

    def run(self) -> None:
        """Runs the stages that are not done yet, in order."""
        drop_pictures(self.site)
        self._ingest()
        try:
            initial = self._initial()
            self._old_data()
            self._train(initial)
            self._choose(initial)
            self._add()
            self._judge()
        except InputError:
            self._own()  # a case that was withdrawn meanwhile is said to be that, not to be missing
            raise

    def _done(self, **changes: Any) -> None:
        self.plan = replace(self.plan, **changes)
        write_plan(self.folder, self.plan)

    def _heed(self) -> None:
        if self.stop:
            raise Stopped(self.status_writer.status.step, self.stop.number)

    def _own(self) -> Dataset:
        """The corrections as this run sees them, all of which are there. Raises InputError where one was withdrawn."""
        found = read_dataset(self.folder / DATA)
        refuse_withdrawn(self.site, self.folder.name, found, self.plan.way)
        return found

    def _ingest(self) -> None:
        """Examines what is new; then the data of this run stand."""
        if (self.folder / DATA / "dataset.json").is_file():
            return
        self.status_writer.begin("preparing", "examining corrected cases")

        def progress(name: str) -> None:
            self._heed()
            self.status_writer.begin("preparing", f"examining corrected case {name}")

        result = ingest(self.site.corrections, progress=progress)
        if not result.names("train"):
            drop_all(self.site.cache)
            raise InputError(_nothing(result))
        freeze(self.site.corrections, self.folder / DATA)

    def _initial(self) -> Path:
        """The model in use when the run began; `model` where the site had none."""
        if self.plan.initial is None:
            if state.read_registry(self.site.models).champion is None:
                change.start(self.site.models, find_model(self.model))
            self._done(initial=in_use.champion(self.site.models).name)
        assert self.plan.initial is not None
        return in_use.find_package(self.site.models, self.plan.initial)

    def _old_data(self) -> None:
        self.status_writer.begin("preparing", "looking for old cases to replay and to judge by")
        for place in (self.site.replay, self.site.anchor):
            self._heed()
            copy_shipped(place)

    def _train(self, initial: Path) -> None:
        model = self.folder / "model"
        if self.plan.trained and hash_of(model / MANIFEST) == self.plan.trained:
            return
        cases = self._own()
        config = self._config(initial)
        learnt, kept = len(training_cases(cases)), len(validation_cases(cases))
        text = f"training {config.steps} steps on {learnt} corrected cases and old ones, {kept} kept for judging"
        if not kept:
            text += " (nothing can show that the model is better: send cases of three patients or more)"
        self.status_writer.begin("training", text, steps=config.steps)
        self._heed()

        def on_step(step: int, loss: float) -> None:
            self.status_writer.go_on(
                step, config.steps, f"training: step {step} of {config.steps}", step=step, loss=loss
            )

        drop_others(self.site.cache, [read_dataset(s.dataset) for s in config.sources], config.preprocess)
        train(config, self.folder, resume="auto", device=self.device, on_step=on_step, stop=self.stop)
        load_package(model)
        self._done(trained=hash_of(model / MANIFEST))

    def _config(self, initial: Path) -> TrainingConfig:
        given = {"replay": [str(self.site.replay)], "anchor": str(self.site.anchor)}
        corrections = self.folder / DATA
        if self.plan.way == "retrain":
            config = recipes.retrain(corrections, **given)
        else:
            config = recipes.finetune(corrections, initial, **given)
        steps = self.plan.steps or config.steps
        sources = config.sources
        if self.plan.way == "finetune":
            sources = tuple(
                replace(s, at_most=_REPLAYED) if s.dataset == str(self.site.replay) else s for s in config.sources
            )
        return replace(
            config,
            name=self.folder.name,
            steps=steps,
            sources=sources,
            cache=str(self.site.cache),
            optimizer=replace(config.optimizer, warmup=min(config.optimizer.warmup, steps // 10)),
            validation=replace(config.validation, every=steps, at_start=False),  # the gate scores the model as it was
        )

    def _choose(self, initial: Path) -> None:
        """A fine-tuning's candidate: how far from the model that it began with."""
        folder = self.folder / CANDIDATE
        done = self.plan.candidate or (self.plan.chosen and hash_of(folder / MANIFEST) == self.plan.chosen)
        if self.plan.way != "finetune" or done:
            return
        own = self._own()
        text = "choosing how far to go from the model in use"
        self.status_writer.begin("judging", text, step=self.status_writer.status.steps)
        ask, to_come = self._asking(text), len(SHARES)
        anchor = read_dataset(self.site.anchor)
        cases = sum(case.label is not None for case in anchor.cases) + len(validation_cases(own))

        def judge(package: Path) -> Comparison:
            nonlocal to_come
            to_come -= 1
            return compare_models(
                package,
                initial,
                self.site.anchor,
                self.folder / DATA,
                criteria=Criteria(),
                device=self.device,
                cache=score_cache(self.site.models / MODELS),
                progress=lambda what, left: ask(what, left + to_come * cases),
            )

        trials = self.folder / "shares"
        choose_share(self.folder / "model", initial, folder, judge, trials)
        self._done(chosen=hash_of(folder / MANIFEST))
        shutil.rmtree(trials, ignore_errors=True)

    def _add(self) -> None:
        if self.plan.candidate is None:
            package = self.folder / (CANDIDATE if self.plan.chosen else "model")
            self._done(candidate=change.add(self.site.models, package))
        step = self.status_writer.status.steps
        self.status_writer.begin("judging", "comparing with the model in use", candidate=self.plan.candidate, step=step)

    def _asking(self, text: str) -> Callable[[str, int], None]:
        """What is called before a model is asked about a case of the gate, with the number of questions left."""
        asked = 0

        def progress(what: str, left: int) -> None:
            nonlocal asked
            self._heed()
            self.status_writer.go_on(asked, asked + left, f"{text}: {what}")
            asked += 1

        return progress

    def _judge(self) -> None:
        """The gate, against the model that is in use now."""
        assert self.plan.candidate is not None  # it is trained by now
        self._own()
        candidate = in_use.find_package(self.site.models, self.plan.candidate)
        report = run_gate(
            candidate,
            in_use.champion(self.site.models).folder,
            self.site.anchor,
            self.folder / DATA,
            device=self.device,
            progress=self._asking("comparing with the model in use"),
        )
        text = verdict_text(report, shipped=bool(shipped_cases(read_dataset(self.site.anchor))))
        self.status_writer.begin("done", text, verdict=report["verdict"], gate=str(candidate.absolute()))


def _nothing(result: Intake) -> str:
    text = "there is no accepted case to train on yet"
    for status, asks in (("refused", ""), ("doubtful", "; a person has to accept or withdraw it")):
        if names := result.names(status):
            first = next(row for row in result.rows if row.name == names[0])
            why = "; ".join(f.text for f in first.findings if f.severity != "note")
            text += f"; {len(names)} {status}, {names[0]}: {why}{asks}"
    if waiting := result.names("waiting"):
        text += f"; {len(waiting)} unchanged ones wait until corrected ones are there"
    return text + ": send corrected cases"
