"""The registry of models: it names a model that loads, whatever is killed, damaged, or done by two at once."""

import json
import os
import random
import shutil
from dataclasses import replace

import pytest
import torch
from correction_runs import change_for_ever, change_times, kill_at_work
from processes import in_process
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.learning.registry import change, in_use, state
from segmamba.models.package import load_package, read_manifest, save_package, shipped_models


def variant(tiny_model, folder, seed):
    """A model of another name and weights."""
    model = load_package(tiny_model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    manifest = replace(model.manifest, id=f"tiny-{seed}", parent="tiny")
    save_package(folder, model.network, manifest, "# tiny\n")
    return folder


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    root = tmp_path_factory.mktemp("variants")
    return [variant(tiny_model, root / f"m{seed}", seed) for seed in (1, 2, 3)]


@pytest.fixture
def folder(tiny_model, tmp_path):
    change.start(tmp_path / "models", tiny_model)
    return tmp_path / "models"


def used(folder):
    return load_package(in_use.current(folder).folder).manifest.id


def with_gate(package, folder, verdict, champion_of, **changes):
    """A copy of a package with a report of the gate beside it."""
    shutil.copytree(package, folder)
    champion = read_manifest(in_use.current(champion_of).folder)
    report = {
        "verdict": verdict,
        "candidate": {"weights_sha256": read_manifest(package).weights_sha256},
        "champion": {"weights_sha256": champion.weights_sha256},
        "criteria": {"margin": None},
        **changes,
    }
    (folder / "gate.json").write_text(json.dumps(report))
    return folder


def test_a_candidate_is_promoted_and_one_step_goes_back(folder, models, tmp_path):
    candidate = with_gate(models[0], tmp_path / "c", "promote", folder)
    name = change.promote(folder, candidate)
    assert used(folder) == "tiny-1" and in_use.current(folder).name == name
    shutil.rmtree(candidate)  # the registry has its own copy, report and all
    assert json.loads((in_use.current(folder).folder / "gate.json").read_text())["verdict"] == "promote"
    change.rollback(folder)
    assert used(folder) == "tiny"
    found = state.read_registry(folder)
    assert [event.what for event in found.history] == ["add", "start", "add", "promote", "rollback"]
    assert found.models[name].state == "retired" and found.models[name].parent == "tiny"
    with pytest.raises(InputError, match="to go back to"):
        change.rollback(folder)
    assert used(folder) == "tiny"


def test_rollbacks_walk_back_through_all_champions(folder, models):
    for number, model in enumerate(models):
        change.adopt(folder, model, f"try {number}")
    seen = [used(folder)]
    for _ in range(3):
        change.rollback(folder)
        seen.append(used(folder))
    assert seen == ["tiny-3", "tiny-2", "tiny-1", "tiny"]


def test_the_model_in_use_is_nothing_to_go_back_to(folder, models, tiny_model):
    """It was in use before the one between, which the disk has since damaged."""
    between = change.adopt(folder, models[0], "a try")
    change.adopt(folder, tiny_model, "back, by name")
    (folder / "models" / between / "model.safetensors").write_bytes(b"damaged")
    before = state.read_registry(folder)
    with pytest.raises(InputError, match=f"no model before {before.champion} to go back to"):
        change.rollback(folder)
    assert state.read_registry(folder) == before


@pytest.mark.parametrize("verdict", ["refuse", "confirm"])
def test_only_the_gates_word_promotes_and_a_person_adopts_with_a_reason(folder, models, tmp_path, verdict):
    candidate = with_gate(models[0], tmp_path / "c", verdict, folder)
    with pytest.raises(InputError, match=f"was given '{verdict}' by the gate"):
        change.promote(folder, candidate)
    with pytest.raises(InputError, match="has no report of the gate"):
        change.promote(folder, models[1])
    with pytest.raises(InputError, match="says why"):
        change.adopt(folder, candidate, " ")
    if verdict == "refuse":
        with pytest.raises(InputError, match=r"worse than the model in use .*GATE.md.* adds --against-the-gate"):
            change.adopt(folder, candidate, "looked at by two readers")
    assert used(folder) == "tiny" and len(state.read_registry(folder).models) == 1
    change.adopt(folder, candidate, "looked at by two readers", against_the_gate=verdict == "refuse")
    event = state.read_registry(folder).history[-1]
    assert (event.what, event.reason, event.evidence["verdict"]) == ("adopt", "looked at by two readers", verdict)


def test_the_report_beside_the_registrys_copy_counts_too(folder, models, tmp_path):
    """A site's gate writes there; the run's own folder of the candidate holds no report."""
    name = change.add(folder, models[0])
    with_gate(models[0], tmp_path / "c", "refuse", folder)
    shutil.copy(tmp_path / "c" / "gate.json", folder / "models" / name / "gate.json")
    with pytest.raises(InputError, match="adds --against-the-gate"):
        change.adopt(folder, models[0], "no report here")
    assert used(folder) == "tiny"
    change.adopt(folder, models[0], "known to be right", against_the_gate=True)
    assert state.read_registry(folder).history[-1].evidence["verdict"] == "refuse"


def test_a_report_about_others_does_not_promote(folder, models, tmp_path):
    stale = with_gate(models[0], tmp_path / "stale", "promote", folder)
    change.adopt(folder, models[1], "meanwhile")
    with pytest.raises(InputError, match="another model in use"):
        change.promote(folder, stale)
    foreign = with_gate(models[2], tmp_path / "f", "promote", folder, candidate={"weights_sha256": "0" * 64})
    with pytest.raises(InputError, match="other weights"):
        change.promote(folder, foreign)
    assert used(folder) == "tiny-2"


def test_a_margin_that_somebody_typed_promotes_nothing(folder, models, tmp_path):
    """A margin of 1 would find any model better."""
    typed = with_gate(models[0], tmp_path / "typed", "promote", folder, criteria={"margin": 1.0})
    with pytest.raises(InputError, match=r"margin of 1\.0 that was typed; run the gate without --margin"):
        change.promote(folder, typed)
    assert used(folder) == "tiny"


def test_a_broken_candidate_is_never_named(folder, models, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(models[0], broken)
    data = bytearray((broken / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (broken / "model.safetensors").write_bytes(data)
    before = (folder / "registry.json").read_bytes()
    with pytest.raises(InputError, match="damaged"):
        change.adopt(folder, broken, "because")
    assert (folder / "registry.json").read_bytes() == before
    assert not [path for path in (folder / "models").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_champion_that_the_disk_damaged_gives_way_to_the_one_before(folder, models, file):
    change.adopt(folder, models[0], "better")
    path = in_use.current(folder).folder / file
    path.write_bytes(path.read_bytes()[:-9])
    found = in_use.current(folder)
    assert read_manifest(found.folder).id == "tiny" and "cannot be read here" in found.note
    change.rollback(folder)
    assert in_use.current(folder).note == ""


def test_a_registry_that_cannot_be_read_says_so(folder, tmp_path):
    (folder / "registry.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        in_use.current(folder)
    with pytest.raises(InputError, match="no model in use yet"):
        in_use.current(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        change.start(folder, folder)


def test_what_is_refused_is_remembered(folder, models):
    name = change.refuse(folder, models[0], "worse at home")
    assert state.read_registry(folder).models[name].state == "refused" and used(folder) == "tiny"
    with pytest.raises(InputError, match="is in use"):
        change.refuse(folder, in_use.current(folder).folder, "no")
    assert change.add(folder, models[0]) == name  # no second copy


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_writer_killed_at_random_moments_leaves_a_model_that_loads(folder, models, tmp_path):
    rng, changes = random.Random(2), 0
    for seed in range(12):
        process = in_process(change_for_ever, folder, models, seed, tmp_path / "sign")
        kill_at_work(process, tmp_path / "sign", rng.uniform(0.05, 0.6))
        found = in_use.current(folder)
        assert not found.note and load_package(found.folder)
        in_use.check_model(folder, found.name, state.read_registry(folder))
        changes = len(state.read_registry(folder).history)
    assert changes > 12
    change.adopt(folder, models[0], "after all") if used(folder) != "tiny-1" else None
    assert used(folder) == "tiny-1"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_two_writers_lose_no_event(folder, models):
    both = [in_process(change_times, folder, models, seed, 6) for seed in (1, 2)]
    while any(process.is_alive() for process in both):
        in_use.current(folder)  # a reader never sees half of anything
    assert [process.exitcode for process in both] == [0, 0]
    found = state.read_registry(folder)
    done = [event for event in found.history if event.what not in ("start", "add")]
    assert len(done) == 12
    champion = None  # the history tells the whole story
    for event in found.history:
        if event.what in ("start", "promote", "adopt", "rollback"):
            assert event.before == champion
            champion = event.model
    assert champion == found.champion
    assert [name for name, entry in found.models.items() if entry.state == "champion"] == [champion]


def test_the_commands(folder, models, tmp_path, capsys):
    assert main(["models", str(folder), "adopt", str(models[0]), "--reason", "why not"]) == 0
    assert main(["models", str(folder), "rollback"]) == 0
    assert main(["models", str(folder)]) == 0
    assert "adopt tiny-1" in capsys.readouterr().out
    assert main(["models", str(folder), "current", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == in_use.current(folder).name
    assert main(["models", str(folder), "adopt"]) == 1
    assert "needs a model" in capsys.readouterr().err
    assert main(["models", str(folder), "rollback", "--against-the-gate"]) == 1
    assert "belongs to adopt, not to rollback" in capsys.readouterr().err
    assert main(["models", str(tmp_path / "new"), "start", str(models[1])]) == 0
    assert used(tmp_path / "new") == "tiny-2"


@pytest.mark.parametrize("words", ("", "current", "rollback", "promote quick", "refuse quick --reason bad"))
def test_a_misspelt_registry_is_named_and_not_made(tmp_path, capsys, words):
    assert main(["models", str(tmp_path / "modles"), *words.split()]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'modles'}: no such folder; check the path, or begin")
    assert list(tmp_path.iterdir()) == []


def test_a_registry_without_a_model_says_so(tmp_path):
    with pytest.raises(InputError, match="no model in use, and none to go back to"):
        change.rollback(tmp_path)
    with pytest.raises(InputError, match=r"quick is neither .* nor a name in the registry .*, which has none"):
        in_use.find_package(tmp_path, "quick")


def test_the_gate_writes_nothing_beside_a_model_that_ships(tiny_model, tmp_path, capsys):
    shipped = shipped_models()["quick"]
    before = sorted(shipped.parent.rglob("*"))
    for candidate in ("quick", str(shipped)):
        assert main(["gate", candidate, "--champion", str(tiny_model), "--anchor", str(tmp_path)]) == 1
        assert f"`segmamba models MODELS add {candidate}`" in capsys.readouterr().err
    assert sorted(shipped.parent.rglob("*")) == before
