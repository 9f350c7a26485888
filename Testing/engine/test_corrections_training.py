"""From corrected cases to a candidate: what fine-tuning and retraining learn from, and that they run."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from correction_runs import edited, grown, send
from segmamba.cases.case import find_label
from segmamba.cli import main
from segmamba.datasets.collect import init_dataset
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.split import Split, write_split
from segmamba.errors import InputError
from segmamba.learning.gate.comparison import _local
from segmamba.learning.submissions.intake import ingest
from segmamba.models.package import load_package, read_manifest, save_package
from segmamba.models.specs import PreprocessSpec
from segmamba.networks.segmamba import NetworkConfig, SegMamba
from segmamba.training import recipes
from segmamba.training.config import load_config
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment
from segmamba.training.packed import Packed, PackedCase
from training_runs import MODALITIES, narrow_network, small_config

NARROW = ["patch=[32, 32, 32]", "precision=fp32", "steps=3", "workers=0", "validation.every=100"]


@pytest.fixture(scope="module")
def intake(phantom_cases, tmp_path_factory):
    """Two corrected cases to train on and one to validate on; doubtful findings taken, they are of no matter here."""
    folder = tmp_path_factory.mktemp("intake") / "to"
    names = []
    for number, case in enumerate(sorted(path for path in phantom_cases.iterdir() if path.is_dir())):
        labels = edited(find_label(case), folder.parent / f"{number}.nii.gz", grown)
        names.append(send(folder, case, labels=labels, subject=f"s{number}").name)
    result = ingest(folder, accept=dict.fromkeys(names, "a test"))
    assert (len(result.names("train")), len(result.names("validation"))) == (2, 1)
    return folder


@pytest.fixture(scope="module")
def old_data(tmp_path_factory, make_dataset):
    """A data set that a model may have learnt before."""
    from segmamba.datasets.phantom import make_phantom, save_phantom

    root = tmp_path_factory.mktemp("old")
    folder = root / "old-9"
    folder.mkdir()
    save_phantom(make_phantom(9, spacing=(4, 4, 4), enhancing=True), folder, folder.name)
    return make_dataset(root)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A narrow model on 4 mm; its manifest is what a fine-tuning has to follow."""
    from segmamba.cases.incomplete import Incomplete
    from segmamba.models.package import Manifest
    from segmamba.models.specs import InferenceSpec, PreprocessSpec

    config = NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))
    torch.manual_seed(5)
    manifest = Manifest(
        id="old",
        network=config,
        preprocess=PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0)),
        inference=InferenceSpec(window=(64, 64, 64)),
        training={
            "config": {
                "patch": [32, 32, 32],
                "precision": "fp32",
                "augment": {"modality_dropout": 0.4, "mirror": False},
            }
        },
        incomplete=Incomplete(measured_on="old", cases=9, dice={"WT": 0.9}, without={"t2w": {"WT": 0.8}}),
    )
    folder = tmp_path_factory.mktemp("old-model") / "old"
    save_package(folder, SegMamba(config), manifest, "# old\n")
    return folder


def sources(config):
    return {source.dataset: source for source in config.sources}


def test_most_of_a_fine_tuning_is_new_and_the_rest_old(intake, old_data, phantom_dataset, model):
    with narrow_network():
        config = recipes.finetune(intake, model, replay=[old_data.folder, phantom_dataset.folder])
    found = sources(config)
    assert found[str(intake)].share == 0.8 and found[str(intake)].validate
    assert [found[d.folder].share for d in (old_data, phantom_dataset)] == pytest.approx([0.1, 0.1])
    assert config.initial_model == str(model) and config.preprocess.spacing == (4.0, 4.0, 4.0)
    assert config.precision == "fp32"  # bf16 on a CPU does not take this patch
    assert config.patch == (32, 32, 32) and config.inference.window == (64, 64, 64)
    assert config.validation.at_start and config.optimizer.ema > 0
    assert config.optimizer.learning_rate <= load_config(recipes.config_file("quick.toml")).optimizer.learning_rate / 2
    assert config.steps == 150  # 50, and 50 for each of two cases, not 400
    assert config.optimizer.warmup == 15
    assert config.foreground == 0.4  # what the model that ships ended with: with more, tumours are invented
    assert config.augment.modality_dropout == 0.4  # what the model does without, it learns to do without again
    assert config.augment.mirror is False  # nor are its labels mirrored now


@pytest.mark.parametrize("word", ["pad_to_window", "fixed"])
def test_what_a_model_says_of_its_windows_can_be_replaced(word, intake, model):
    """By the name of a configuration, and by the key that manifests keep."""
    with narrow_network():
        config = recipes.finetune(intake, model, replay=[], overrides=[f"inference.{word}=true"])
    assert config.inference.pad_to_window and config.inference.window == (64, 64, 64)


def test_without_old_data_all_is_new(intake, model, caplog):
    with narrow_network():
        config = recipes.finetune(intake, model, replay=[])
    assert [source.share for source in config.sources] == [1.0]
    assert "may forget" in caplog.text


def test_corrections_that_no_intake_has_seen_are_for_intake(model, tmp_path):
    (tmp_path / "to" / "incoming").mkdir(parents=True)
    hint = f"make it with `segmamba intake {tmp_path / 'to'}`"
    for way in (lambda: recipes.finetune(tmp_path / "to", model), lambda: recipes.retrain(tmp_path / "to")):
        with pytest.raises(InputError, match=re.escape(hint)):
            way()
    with pytest.raises(InputError, match=re.escape(hint)):
        _local(tmp_path / "to", (load_package(model),))


def test_retraining_counts_every_case_alike_and_starts_from_nothing(intake, old_data):
    config = recipes.retrain(intake, replay=[old_data.folder], overrides=["steps=7"])
    found = sources(config)
    assert (found[str(intake)].share, found[old_data.folder].share) == (2.0, 1.0)
    assert config.initial_model == "" and config.steps == 7 and found[str(intake)].validate


def test_packed_cases_and_crops_of_a_configuration_are_replayed(intake, old_data, model, tmp_path):
    """Two packed cases count as two, crops as the part of the samples that the configuration gives them."""
    entries = tuple(PackedCase(id=f"p{n}", file=f"{n}", sha256="", digest="") for n in range(2))
    packed = Packed(preprocess=PreprocessSpec(modalities=MODALITIES), labels={}, regions={}, cases=entries)
    values = {**asdict(packed), "labels": old_data.labels, "regions": old_data.regions}
    del values["folder"]
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/packed.json").write_text(json.dumps(values))
    (tmp_path / "crops.npz").write_bytes(b"opened by the training alone")
    text = f'name = "a"\n[[sources]]\ndataset = "{old_data.folder}"\nshare = 0.4\n'
    text += '[[sources]]\npacked = "packed"\nshare = 0.6\n[[sources]]\npatches = "crops.npz"\nshare = 0.2\n'
    (tmp_path / "a.toml").write_text(text)
    config = recipes.retrain(intake, config=tmp_path / "a.toml")
    named = [Path(source.dataset or source.packed or source.patches).name for source in config.sources]
    assert named == [intake.name, Path(old_data.folder).name, "packed", "crops.npz"]
    assert [source.share for source in config.sources] == pytest.approx([2, 1, 2, 0.2 * 5])
    with narrow_network():
        config = recipes.finetune(intake, model, config=tmp_path / "a.toml")
    assert [source.share for source in config.sources] == pytest.approx([0.8, *[0.2 / 3] * 3])
    (tmp_path / "packed/packed.json").unlink()
    with narrow_network():
        config = recipes.finetune(intake, model, config=tmp_path / "a.toml")
    assert [source.packed for source in config.sources] == ["", "", ""]
    with pytest.raises(InputError, match="there are no packed cases"):
        recipes.retrain(intake, config=tmp_path / "a.toml")


def test_a_fine_tuning_runs_and_says_where_it_comes_from(intake, old_data, model, tmp_path, caplog):
    options = [part for text in [*NARROW, f"cache={tmp_path / 'cache'}"] for part in ("--set", text)]
    with narrow_network():
        code = main([
            *("train", "--finetune", str(intake), "--model", str(model), "--replay", old_data.folder),
            *("--run-folder", str(tmp_path / "run"), "--device", "cpu", *options),
        ])  # fmt: skip
    assert code == 0
    manifest = read_manifest(tmp_path / "run" / "model")
    dataset = read_dataset(intake)
    held_out = set(manifest.training["held_out"])
    assert manifest.parent == "old" and len(held_out) == 1
    assert manifest.incomplete == read_manifest(model).incomplete
    assert set(manifest.training["cases"]) == {c.id for c in dataset.cases} - held_out | {"old-9"}
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert log.index('"kind": "validation", "step": 0') < log.index('"step": 3')  # validated before the first step
    old, new = load_package(model).network.state_dict(), load_package(tmp_path / "run" / "model").network.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_a_frozen_encoder_learns_nothing_and_the_decoder_does(intake, model, tmp_path):
    from segmamba.training.loop import train

    with narrow_network():
        config = recipes.finetune(
            intake, model, replay=[], overrides=[*NARROW, "freeze=encoder", f"cache={tmp_path / 'c'}"]
        )
        train(config, tmp_path / "run")
    old, new = load_package(model).network.state_dict(), load_package(tmp_path / "run" / "model").network.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert "vit" not in changed and {"decoder1", "out"} <= changed


def test_the_anchor_set_is_validated_on_and_never_trained_on(intake, old_data, model, tmp_path):
    with narrow_network():
        config = recipes.finetune(
            intake, model, replay=[], anchor=old_data.folder, overrides=[*NARROW, f"cache={tmp_path / 'c'}"]
        )
        experiment = load_experiment(config, World())
    assert "old-9" in {case.id for case in experiment.held_out}
    assert [case.id for group in experiment.groups for case in group] and len(experiment.groups) == 1
    assert {experiment.samples[i]["case"] for i in range(8)} <= {case.id for case in experiment.groups[0]}


def test_empty_label_maps_alone_are_not_trained_on(phantom_cases, tmp_path):
    shutil.copytree(phantom_cases, tmp_path / "set")
    for path in (tmp_path / "set").glob("*/*-seg.nii.gz"):
        stored = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(stored.shape, np.uint8), stored.affine), path)
    (tmp_path / "set" / "dataset.json").unlink(missing_ok=True)
    init_dataset(tmp_path / "set")
    with pytest.raises(InputError, match="the label maps of all 3 training cases are empty"):
        load_experiment(
            small_config(tmp_path / "set", tmp_path / "c", sources=(_unvalidated(tmp_path / "set"),)), World()
        )


def _unvalidated(folder):
    return replace(small_config(folder, folder).sources[0], validate=False)


def test_an_anchor_case_that_is_trained_on_under_another_name_is_found(intake, phantom_cases, model, tmp_path):
    """The corrected cases were made of the phantoms: other files, other ids, the same voxels."""
    anchor = init_dataset(phantom_cases, output=tmp_path / "anchor", convention="brats2023").dataset
    with narrow_network(), pytest.raises(InputError, match="is validated on, and trained on as"):
        config = recipes.finetune(
            intake, model, replay=[], anchor=anchor.folder, overrides=[*NARROW, f"cache={tmp_path / 'c'}"]
        )
        load_experiment(config, World())


def test_a_case_to_validate_on_is_not_trained_on(intake, tmp_path):
    config = replace(small_config(intake, tmp_path / "c"), sources=recipes.retrain(intake, replay=[]).sources)
    with narrow_network():
        experiment = load_experiment(config, World())
    trained = {case.id for group in experiment.groups for case in group}
    assert len(trained) == 2 and not trained & {case.id for case in experiment.held_out}


def test_nothing_to_train_on(tmp_path, phantom_dataset, model, capsys):
    alone = replace(phantom_dataset, folder=str(tmp_path))
    from segmamba.datasets.manifest import write_dataset

    write_dataset(alone)
    shares = {"train": 0.8, "validation": 0.2, "test": 0.0}
    write_split(Split(seed=1, shares=shares, subjects={f"phantom-{n}": "validation" for n in range(3)}), tmp_path)
    with pytest.raises(InputError, match="no accepted case to train on"):
        recipes.finetune(tmp_path, model)
    assert main(["train"]) == 1 and "needs a configuration" in capsys.readouterr().err
    assert main(["train", "x.toml", "--replay", "y"]) == 1 and "only valid with --finetune" in capsys.readouterr().err


def test_correct_and_intake_on_the_command_line(phantom_cases, tmp_path, capsys):
    import json

    case = phantom_cases / "phantom-0"
    labels = edited(find_label(case), tmp_path / "labels.nii.gz", grown)
    arguments = ["correct", str(case), "--labels", str(labels), "--proposal", str(find_label(case))]
    arguments += ["--output", str(tmp_path / "to"), "--subject", "A"]
    assert main(arguments) == 1 and "--consent" in capsys.readouterr().err
    assert main([*arguments, "--consent"]) == 0
    name = capsys.readouterr().out.strip().rsplit("/")[-1]
    assert main(["intake", str(tmp_path / "to"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["status"]) for row in report["rows"]] == [(name, "train")]
    assert main(["intake", str(tmp_path / "to")]) == 0
    assert "1 train, 0 validation" in capsys.readouterr().out


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_a_check_says_what_intake_would_and_writes_nothing(phantom_cases, tmp_path, capsys):
    import json

    case, folder = phantom_cases / "phantom-0", tmp_path / "to"
    truth = find_label(case)
    labels = edited(truth, tmp_path / "labels.nii.gz", lambda v: np.where((v == 2) & (np.roll(v, 1, 0) == 0), 0, v))
    base = ["correct", str(case), "--proposal", str(truth), "--output", str(folder), "--subject", "A", "--labels"]

    def check(*arguments):
        assert main([*base, *map(str, arguments), "--check"]) == 0
        return json.loads(capsys.readouterr().out)

    found = check(labels)
    assert not folder.exists()
    assert set(found) == {
        *("findings", "changes", "dice", "empty", "unchanged", "earlier_versions", "next_version"),
    }
    removed = int((np.asarray(nib.load(truth).dataobj) > 0).sum() - (np.asarray(nib.load(labels).dataobj) > 0).sum())
    assert found["changes"]["ED"]["removed"] == removed > 0 and found["changes"]["ET"]["removed"] == 0
    assert found["dice"]["ET"] == 1 and found["dice"]["WT"] < 1 and not found["unchanged"]
    assert (found["empty"], found["earlier_versions"], found["next_version"]) == ([], 0, 1)
    assert not [finding for finding in found["findings"] if finding["severity"] == "wrong"]

    send(folder, case, labels=labels, subject="A")
    ingest(folder)
    before = tree(folder)
    again = check(labels)
    assert (again["earlier_versions"], again["next_version"]) == (1, 2)
    assert check(truth)["unchanged"]
    none = edited(truth, tmp_path / "none.nii.gz", lambda voxels: np.where(voxels == 1, 3, voxels))
    assert check(none)["empty"] == ["NCR"] and check(none, "--empty", "NCR")["empty"] == []
    other = shutil.copytree(case, tmp_path / "other")  # a new case with three images of patient A
    t1n = next(other.glob("*t1n*"))
    image = nib.load(t1n)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + (np.asarray(image.dataobj) > 0), image.affine), t1n)
    base[base.index("A")], base[base.index(str(case))] = "somebody else", str(other)
    (wrong,) = [finding for finding in check(labels)["findings"] if finding["severity"] == "wrong"]
    assert wrong["kind"] == "same image" and wrong["mend"]
    odd = edited(truth, tmp_path / "odd.nii.gz", lambda voxels: np.where(voxels == 3, 7, voxels))
    assert main([*base, str(odd), "--check"]) == 1  # cannot be sent at all
    assert capsys.readouterr().err.startswith("error: ")
    assert tree(folder) == before


def test_what_is_said_of_a_correction_is_written(phantom_cases, tmp_path, capsys):
    import json

    from segmamba.learning.submissions.record import read_record

    case = phantom_cases / "phantom-1"
    arguments = ["correct", str(case), "--labels", str(find_label(case)), "--proposal", str(find_label(case))]
    arguments += ["--output", str(tmp_path / "to"), "--editor-seconds", "61.5", "--preprocessing", "registered to t1c"]
    arguments += ["--preprocessing", "skull-stripped", "--mirrorings", "7", "--consent", "--json"]
    assert main([*arguments, "--weights-sha256", "0" * 64]) == 1 and "--model-id" in capsys.readouterr().err
    assert main([*arguments, "--model-id", "m", "--weights-sha256", "x"]) == 1
    assert "64 hexadecimal digits" in capsys.readouterr().err
    assert main([*arguments, "--model-id", "m", "--weights-sha256", "0" * 64]) == 0
    answer = json.loads(capsys.readouterr().out)
    record = read_record(tmp_path / "to" / "incoming" / answer["name"])
    assert answer == {"name": record.name, "case": record.case, "version": 1, "folder": answer["folder"]}
    assert answer["folder"] == str(tmp_path / "to" / "incoming" / record.name)
    assert (record.model.id, record.model.weights_sha256) == ("m", "0" * 64)
    assert record.settings == {"mirrorings": 7} and record.editor_seconds == 61.5
    assert record.preprocessing == ("registered to t1c", "skull-stripped")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--retrain", "c", "--model", "x", "--models", "y"], "--model, --models: only valid with --finetune"),
        (["--finetune", "c", "--replay", "none", "--replay", "x"], "--replay none: leave out the data sets, or none"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(options, said, capsys):
    assert main(["train", *options]) == 1
    assert said in capsys.readouterr().err
