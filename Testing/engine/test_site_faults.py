"""An improvement under fire: killed at every stage, stopped by a file; what it leaves is whole, and it goes on."""

import json
import os
import random
import re
import shutil
import signal
from dataclasses import replace
from unittest import mock

import pytest
import torch
from processes import in_process, kill
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.errors import InputError, Stopped
from segmamba.learning.registry import change, in_use, state
from segmamba.learning.site import Site, ask_to_stop, stages, summarise
from segmamba.learning.site import improve as work
from segmamba.learning.site.plan import begin_plan
from segmamba.learning.site.status import read_status
from segmamba.learning.submissions.intake import ingest
from segmamba.models.package import load_package, read_manifest
from segmamba.training import experiment, stop_signals
from segmamba.training.checkpoint import has_checkpoint, load_checkpoint
from site_runs import improve, save_model, wait_for
from training_runs import narrow_network, single_precision

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

RUN = "finetune-0001"


@pytest.fixture
def small_site(site_template, tmp_path):
    shutil.copytree(site_template.with_name("old"), tmp_path / "old")
    return Site(shutil.copytree(site_template, tmp_path / "site"))


def finish(process, code=0):
    process.join(500)
    assert process.exitcode == code


def steps_logged(folder):
    try:
        lines = (folder / "log.jsonl").read_text().splitlines()
    except OSError:
        return 0
    return max([0, *(json.loads(line)["step"] for line in lines if line.endswith("}"))])


def is_whole(site, champion_id="old"):
    """What must hold whenever a run is ended from outside."""
    found = state.read_registry(site.models)
    if found.champion:
        now = in_use.current(site.models)
        assert not now.note and load_package(now.folder).manifest.id == champion_id
    assert len(found.models) <= 2
    for row in summarise(site)["runs"]:
        assert row["alive"] is False and row["state"] in ("lost", "stopped", "done")
    return found


def test_an_improvement_killed_at_every_stage_ends_where_an_uninterrupted_one_does(small_site, tmp_path):
    site, options = small_site, {"steps": 8, "model": str(tmp_path / "old")}
    other = Site(shutil.copytree(site.folder, tmp_path / "undisturbed"))
    finish(in_process(improve, other.folder, RUN, options))
    run, rng = site.run(RUN), random.Random(6)
    signs = [
        lambda: (s := read_status(run)) and s.text.startswith("examining corrected case"),
        lambda: (run / "corrections" / "dataset.json").exists(),
        lambda: (run / "last.pt").exists(),
        lambda: steps_logged(run) >= 2,
        lambda: steps_logged(run) >= 5,
        lambda: (run / "model" / "model.json").exists(),
        lambda: (s := read_status(run)) and s.state == "judging",
        lambda: any((site.models / "models" / ".gate-scores").glob("*.json")),
    ]
    killed = 0
    for number, sign in enumerate(signs):
        process = in_process(improve, site.folder, RUN, options)
        wait_for(lambda sign=sign, process=process: sign() or not process.is_alive())
        process.join(rng.uniform(0, 0.4))
        if number == 4 and process.is_alive():  # once it is asked
            ask_to_stop(site, RUN)
            finish(process, 3)
            status = read_status(run)
            assert status.state == "stopped" and not (run / "stop").exists()
            assert load_checkpoint(run)[0]["step"] == status.step
            assert f"stopped after step {status.step}" in (run / "log.jsonl").read_text()
        else:
            killed += kill(process)
        is_whole(site)
    assert killed >= 5
    finish(in_process(improve, site.folder, RUN, options))
    status = read_status(run)
    assert status.state == "done" and status.verdict
    found = is_whole(site)
    assert sorted(entry.state for entry in found.models.values()) == ["candidate", "champion"]
    assert [event.what for event in found.history] == ["add", "start", "add"]
    steps = [line["step"] for line in summarise(site, RUN)["log"] if line["kind"] == "step"]
    assert steps == list(range(1, 9))
    same_model(run / "model", other.run(RUN) / "model")


def same_model(one, two):
    """Learnt on the same cases, the same weights."""
    assert read_manifest(one).training["cases"] == read_manifest(two).training["cases"]
    states = [load_package(folder).network.state_dict() for folder in (one, two)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-6)


def test_a_correction_that_is_gone_is_named(small_site, tmp_path):
    """The run's data stand; a file of them does not: it must not learn without it."""
    site, options = small_site, {"steps": 1, "model": str(tmp_path / "old")}
    process = in_process(improve, site.folder, RUN, options)
    data = site.run(RUN) / "corrections"
    wait_for(lambda: (data / "dataset.json").exists(), process)
    kill(process)
    dataset = read_dataset(data)
    label = dataset.path(dataset.cases[0].label)
    label.write_bytes(label.read_bytes()[:-20])
    shutil.rmtree(site.cache, ignore_errors=True)
    finish(in_process(improve, site.folder, RUN, options), 1)
    status = read_status(site.run(RUN))
    assert status.state == "failed" and label.parent.name in status.text
    with pytest.raises(InputError, match="checkpoint"):
        load_checkpoint(site.run(RUN))


def by_file(site):
    ask_to_stop(site, RUN)


def by_signal(site):
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("ask", [by_file, by_signal])
@pytest.mark.parametrize("moment", ["reading", "preparing"])
def test_a_stop_while_data_are_read_or_prepared_ends_the_run_before_a_step(
    small_site, tmp_path, monkeypatch, ask, moment
):
    """The status says that it trains by then; what is asked must not be lost before the training itself asks."""
    site = small_site
    monkeypatch.setattr(stop_signals, "_LOOK", 0)
    module, name = (stages, "drop_others") if moment == "reading" else (experiment, "prepare")
    usual = getattr(module, name)

    def asked(*arguments):
        assert read_status(site.run(RUN)).state == "training"
        monkeypatch.setattr(module, name, usual)
        ask(site)
        return usual(*arguments)

    monkeypatch.setattr(module, name, asked)
    with narrow_network(), single_precision(), pytest.raises(Stopped):
        work(site, RUN, steps=2, model=str(tmp_path / "old"))
    run = site.run(RUN)
    assert read_status(run).state == "stopped" and not (run / "stop").exists()
    assert len(list(site.cache.glob("*"))) <= 1 and not has_checkpoint(run)


def by_newer_program(folder):
    """A manifest with a key of a version to come, added there: its hash is right."""
    manifest = folder / "model.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "of_2031": 1}))
    registry = folder.parents[1] / "registry.json"
    values = json.loads(registry.read_text())
    values["models"][folder.name]["manifest_sha256"] = state.hash_of(manifest)
    registry.write_text(json.dumps(values))
    return "of_2031"


def by_disk(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    return "is damaged"


@pytest.mark.parametrize("spoil", [by_newer_program, by_disk])
def test_nothing_is_learnt_from_the_model_before_one_that_cannot_be_read_here(small_site, tmp_path, capsys, spoil):
    """Nor judged against it: what is better than a retired model may be worse than the one in use."""
    site = small_site
    with narrow_network():
        old = change.start(site.models, tmp_path / "old")
        new = change.adopt(site.models, save_model(tmp_path / "new", name="new", seed=6), "better")
        why = spoil(site.models / "models" / new)
        said = f"the model in use, {new}, cannot be read here .*{why}.*update the program.*segmamba models .* rollback"
        with pytest.raises(InputError, match=said) as caught:
            work(site, RUN, steps=2)
        assert ("damaged" in str(caught.value)) == (spoil is by_disk)
        run = site.run(RUN)
        assert read_status(run).state == "failed" and not (run / "model").exists()
        plan = replace(begin_plan(run, None, None), candidate=old)
        late = stages.Stages(site, run, plan, mock.Mock(), mock.Mock(), "quick", lambda: "cpu")
        with pytest.raises(InputError, match=said):
            late._judge()
        given = ["--models", str(site.models), "--device", "cpu"]
        assert main(["gate", old, "--anchor", str(site.anchor), *given]) == 1
        assert re.search(said, capsys.readouterr().err)
        assert main(["train", "--finetune", str(site.corrections), "--run-folder", str(tmp_path / "run"), *given]) == 1
        assert re.search(said, capsys.readouterr().err)
        assert new in in_use.current(site.models).note  # what segments goes on
        change.rollback(site.models)
        assert in_use.champion(site.models).name == old


# --- withdrawn


def test_a_run_that_knows_a_withdrawn_case_says_so_and_another_is_begun(small_site, tmp_path, monkeypatch):
    """Nobody may be asked to restore a patient who was taken back."""
    site, options = small_site, {"steps": 2, "model": str(tmp_path / "old")}

    def ended(*arguments):
        by_signal(site)

    with narrow_network(), single_precision(), monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(stages, "drop_others", ended)
        work(site, RUN, **options)
    dataset = read_dataset(site.run(RUN) / "corrections")
    first = dataset.path(dataset.cases[0].label).parent
    other = f"{first.name} was withdrawn since run {RUN} began.*`segmamba improve .*site --way finetune`"
    shutil.copytree(first, tmp_path / "kept")
    ingest(site.corrections, withdraw=[first.name])
    with pytest.raises(InputError, match=other):
        work(site, RUN, **options)
    assert "restore" not in read_status(site.run(RUN)).text
    shutil.copytree(tmp_path / "kept", first)  # another one takes its name
    record = json.loads((first / "case.json").read_text())
    record["segmentation"]["sha256"] = "0" * 64
    (first / "case.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=other):
        work(site, RUN, **options)
    (site.corrections / "incoming").rename(tmp_path / "unplugged")
    with pytest.raises(InputError, match="is not a folder of corrections"):
        work(site, RUN, **options)
