"""The training loop on real parts: it learns, validates whole volumes, keeps what it wrote, refuses what is wrong."""

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from segmamba.cases.case import find_case, load_case, load_label_map
from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.reading import hash_file
from segmamba.datasets.split import make_split
from segmamba.errors import InputError, Stopped
from segmamba.evaluation.metrics import dice, region_scores
from segmamba.models.package import load_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.prediction.segment import segment
from segmamba.training import loop as training
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.config import AugmentConfig, OptimizerConfig, SourceConfig, ValidationConfig, load_config
from segmamba.training.distributed import World
from segmamba.training.journal import Journal
from segmamba.training.loop import Training, train
from segmamba.training.optimize import build_optimizer, state_to_come, uses_bf16
from segmamba.training.stepper import Stepper
from training_runs import narrow_network, small_config


@pytest.fixture(autouse=True)
def narrow():
    with narrow_network():
        yield


@pytest.fixture
def config(phantom_dataset, tmp_path):
    return small_config(phantom_dataset.folder, tmp_path / "cache")


@pytest.fixture(scope="session")
def split_dataset(own_phantoms):
    """The three phantoms in three folds."""
    dataset = own_phantoms()
    make_split(dataset, folds=3, seed=1)
    return dataset


def lines_of(run, kind):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_one_case_can_be_learnt_by_heart(config, phantom_cases, tmp_path):
    settings = {
        "sources": (replace(config.sources[0], at_most=1),),
        "augment": AugmentConfig(set="none"),
        "optimizer": replace(
            config.optimizer, learning_rate=5e-3, warmup=10
        ),  # at 8e-3 half of all seeds learn nothing
        "steps": 150,  # TC is learnt late, on some CPUs later than on others; of some seeds nothing in so few
        "preprocess": replace(config.preprocess, spacing=(5.0, 5.0, 5.0)),
        "patch": (32, 32, 32),  # most of the brain
        "batch": 1,
    }
    model = load_package(train(replace(config, **settings), tmp_path / "run"))
    folder = phantom_cases / "phantom-0"
    case = load_case(find_case(folder))
    truth = load_label_map(folder / "phantom-0-seg.nii.gz", "brats2023", case)
    result = segment(case, model.network, model.manifest.preprocess, model.manifest.inference)
    scores = region_scores(result.label_map, truth, (4, 4, 4))
    assert scores["WT"]["dice"] > 0.8 and scores["TC"]["dice"] > 0.8, scores


@pytest.mark.pictures
def test_held_out_cases_are_validated_whole_and_never_trained_on(config, split_dataset, tmp_path):
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=1)
    settings = ValidationConfig(every=2, release="last")
    model = load_package(train(replace(config, sources=(source,), validation=settings), tmp_path / "run")).manifest
    held_out = list(model.training["held_out"])
    assert len(held_out) == 1 and sorted([*held_out, *model.training["cases"]]) == [f"phantom-{i}" for i in range(3)]
    assert set(model.metrics["cases"]) == set(held_out)
    assert [line["step"] for line in lines_of(tmp_path / "run", "validation")] == [0, 2, 4]
    assert (tmp_path / "run" / "overlays" / f"{held_out[0]}.png").is_file()
    assert (tmp_path / "run" / "progress.png").is_file()


def test_the_best_validation_is_what_is_released(config, split_dataset, tmp_path, monkeypatch):
    dices = iter([0.1, 0.6, 0.4])
    real = training.validate

    def scored(*arguments, **more):
        found = real(*arguments, **more)
        value = next(dices)
        return {**found, "mean": {region: {"dice": value, "hd95": 1.0} for region in found["mean"]}}

    monkeypatch.setattr(training, "validate", scored)
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=ValidationConfig(every=2))
    manifest = load_package(train(config, tmp_path / "run")).manifest
    assert manifest.metrics["step"] == 2 and manifest.metrics["mean"]["WT"]["dice"] == 0.6
    assert [line["best"] for line in lines_of(tmp_path / "run", "validation")] == [True, True, False]


def test_training_ends_early_when_nothing_gets_better(config, split_dataset, tmp_path, monkeypatch):
    constant = {"mean": {"WT": {"dice": 0.5, "hd95": 1.0}}, "cases": {}}
    monkeypatch.setattr(training, "validate", lambda *_, **__: constant)
    monkeypatch.setattr(training, "draw_worst", lambda *_: None)
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=ValidationConfig(every=1, patience=2), steps=20)
    train(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")[0]["step"] == 2


def test_the_package_holds_the_averaged_weights_and_no_path_of_this_machine(config, tmp_path):
    folder = train(replace(config, weights_dtype="float16"), tmp_path / "run")
    averaged = load_checkpoint(tmp_path / "run")[0]["averaged"]
    for name, tensor in load_package(folder).network.state_dict().items():
        torch.testing.assert_close(tensor, averaged[f"module.{name}"].half().float(), rtol=0, atol=0)
    assert str(tmp_path) not in (folder / "model.json").read_text()
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["versions"]["torch"] == torch.__version__ and record["hardware"]["device"] == "cpu"
    assert record["config"]["optimizer"]["learning_rate"] == 3e-3 and len(record["cases"]) == 3


def test_accumulation_changes_nothing(config, tmp_path):
    config = replace(config, optimizer=replace(config.optimizer, name="sgd"))  # AdamW makes steps of rounding errors
    whole = load_package(train(config, tmp_path / "a")).network.state_dict()
    parts = load_package(train(replace(config, accumulation=2), tmp_path / "b")).network.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-5)


def test_checkpointed_activations_change_nothing(config, tmp_path):
    config = replace(config, steps=2)
    whole = load_package(train(config, tmp_path / "a")).network.state_dict()
    again = load_package(train(replace(config, checkpoint_activations=True), tmp_path / "b")).network.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)


def test_a_run_folder_is_never_overwritten(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"holds a training already.*--resume auto"):
        train(config, tmp_path / "run")
    with pytest.raises(InputError, match="has no checkpoint"):
        train(config, tmp_path / "other", resume="must")


def test_a_short_run_has_a_line_a_step_and_tells_every_step(config, tmp_path):
    told: list[int] = []
    train(config, tmp_path / "run", on_step=lambda step, loss: told.append(step) or math.isfinite(loss) or 1 / 0)
    lines = lines_of(tmp_path / "run", "step")
    assert [line["step"] for line in lines] == told == [1, 2, 3, 4]
    assert all(line["seconds_per_step"] > 0 and 0 <= line["stall"] <= 1 for line in lines)


@pytest.mark.parametrize(("steps", "every"), [(4, 1), (250, 6), (1000, 25), (100_000, 25)])
def test_a_long_run_has_a_line_every_25_steps(tmp_path, steps, every):
    assert Journal(tmp_path, World(), steps).every == every


def test_a_stop_file_ends_a_run_and_the_next_start_takes_it_away(config, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(config, run, on_step=lambda step, loss: (run / "stop").touch())
    step = load_checkpoint(run)[0]["step"]
    assert 1 <= step < 4  # the file is looked for once a second
    train(config, run, resume="auto")
    assert load_checkpoint(run)[0]["step"] == 4 and not (run / "stop").exists()


def test_a_finished_run_resumed_gives_its_model_again(config, tmp_path):
    first = load_package(train(config, tmp_path / "run")).manifest.weights_sha256
    assert load_package(train(config, tmp_path / "run", resume="auto")).manifest.weights_sha256 == first


def test_a_run_of_another_network_is_not_resumed(config, tmp_path):
    train(replace(config, steps=1), tmp_path / "run")
    other = replace(config, optimizer=replace(config.optimizer, name="sgd"))
    with pytest.raises(InputError, match="another network or optimizer"):
        train(other, tmp_path / "run", resume="auto")


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(config, tmp_path):
    run = tmp_path / "run"
    train(replace(config, checkpoint_minutes=1e-9), run)
    whole = load_checkpoint(run)[0]
    data = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(data[: len(data) // 2])
    state, note = load_checkpoint(run)
    assert state["step"] < 4 and "last.pt cannot be read" in note and "went back to previous.pt" in note
    train(config, run, resume="auto")
    assert any("went back to previous.pt" in line["text"] for line in lines_of(run, "event"))
    for name, tensor in load_checkpoint(run)[0]["averaged"].items():
        torch.testing.assert_close(tensor, whole["averaged"][name], rtol=0, atol=1e-6)
    for name in ("last.pt", "previous.pt"):
        (run / name).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"last.pt cannot be read.*previous.pt cannot be read.*another folder"):
        load_checkpoint(run)


def break_gradients(monkeypatch, steps):
    """The gradient of these steps (from 0) is not a number."""
    step, gradient, now = Training._step, Stepper._gradient, [0]

    def counted(self, batch):
        now[0] = self.step
        return step(self, batch)

    def broken(self, image, label, parts):
        loss = gradient(self, image, label, parts)
        if now[0] in steps:
            next(self.network.parameters()).grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(Training, "_step", counted)
    monkeypatch.setattr(Stepper, "_gradient", broken)


def test_a_gradient_that_is_not_finite_changes_nothing(config, tmp_path, monkeypatch):
    break_gradients(monkeypatch, range(4))
    fresh = Training(config, tmp_path / "fresh", World(), "never", []).stepper.network.state_dict()
    train(config, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")[0]
    assert state["skipped"] == 4
    for name, tensor in state["network"].items():
        torch.testing.assert_close(tensor, fresh[name], rtol=0, atol=0)


def test_ten_bad_steps_go_back_once_and_then_end_with_the_cases_names(config, tmp_path, monkeypatch):
    config = replace(config, steps=30, batch=1, checkpoint_minutes=1e9)
    break_gradients(monkeypatch, range(3, 30))
    with pytest.raises(InputError, match=r"diverged twice.*phantom-\d"):
        train(config, tmp_path / "run")
    _, event = lines_of(tmp_path / "run", "event")  # the first says the precision
    assert event["text"].startswith("rolled back from step 13 to 0, with half the learning rate; cases phantom-")
    assert load_checkpoint(tmp_path / "run")[0]["step"] == 0


def test_a_gpu_too_small_for_the_batch_gets_smaller_parts_of_it(config, tmp_path, monkeypatch):
    told = []
    run = Training(replace(config, batch=8), tmp_path / "run", World(), "never", []).stepper
    monkeypatch.setattr(run, "world", World(device="meta"))  # any device but the CPU

    def short_of_memory(image, label, parts):
        if len(image) // parts > limit:
            raise RuntimeError("CUDA error: out of memory")  # the driver's own words

    def fitted():
        run.prepare(told.append)
        return run.parts

    monkeypatch.setattr(run, "_gradient", short_of_memory)
    limit = 8
    assert fitted() == 1
    limit = 2
    assert fitted() == 4
    assert told == [
        "out of GPU memory: 2 micro-batches of 4 patches, the same batch",
        "out of GPU memory: 4 micro-batches of 2 patches, the same batch",
    ]
    limit = 0
    with pytest.raises(InputError, match=r"a single patch of .* does not fit.*checkpoint_activations"):
        fitted()
    monkeypatch.setattr(run, "_gradient", lambda *_: fail("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):  # which smaller parts do not mend
        fitted()


def fail(text):
    raise RuntimeError(text)


@pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(name="sgd")])
def test_room_is_left_for_the_state_that_the_first_step_makes(optimizer):
    network = torch.nn.Linear(30, 20)
    stepped = build_optimizer(network, optimizer)
    expected = state_to_come(stepped)
    network(torch.ones(1, 30)).sum().backward()
    stepped.step()
    made = [x for state in stepped.state.values() for x in state.values() if torch.is_tensor(x) and x.ndim]
    assert sum(x.numel() for x in expected) == sum(x.numel() for x in made) >= 620
    assert state_to_come(stepped) == []


def test_every_process_of_a_gpu_has_its_share_of_the_cores_for_patches(config, tmp_path, monkeypatch):
    run = Training(config, tmp_path / "run", World(), "never", [])
    monkeypatch.setattr(training, "cores", lambda: 48)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # as torchrun has it
    for local_size, expected in ((1, 47), (4, 11), (48, 1)):
        monkeypatch.setattr(run, "world", World(device="meta", local_size=local_size))  # any device but the CPU
        assert run._loader().num_workers == expected
    monkeypatch.setattr(run, "world", World())
    assert run._loader().num_workers == 0


def test_a_model_of_another_kind_cannot_be_continued(config, tiny_model, tmp_path):
    with pytest.raises(InputError, match="another preprocessing than the configuration"):
        train(replace(config, initial_model=str(tiny_model)), tmp_path / "run")


def test_a_model_continued_is_named_as_parent_and_scored_before_the_first_step(config, split_dataset, tmp_path):
    first = train(config, tmp_path / "first")
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=2)
    second = replace(config, name="second", initial_model=str(first), sources=(source,), validation=ValidationConfig())
    manifest = load_package(train(second, tmp_path / "second")).manifest
    assert manifest.parent == "small" and manifest.id == "second"
    assert lines_of(tmp_path / "second", "validation")[0]["step"] == 0


def test_a_model_of_labels_goes_on_as_one_of_regions_and_not_back(config, tmp_path):
    first = train(config, tmp_path / "first")
    second = replace(config, name="second", head="regions", initial_model=str(first), steps=1)
    model = load_package(train(second, tmp_path / "second"))
    assert model.manifest.inference.nested == (2, 1, 3) and model.manifest.network.out_channels == 3
    assert load_package(first).manifest.network.out_channels == 4
    third = replace(config, initial_model=str(tmp_path / "second" / "model"))
    with pytest.raises(InputError, match=r"has the head 'regions'.*set head = 'regions'"):
        train(third, tmp_path / "third")


def test_batches_that_cannot_be_shared_are_refused(config, tmp_path):
    with pytest.raises(InputError, match="batch 2 cannot be shared by 1 processes with 4 micro-batches"):
        train(replace(config, accumulation=4), tmp_path / "run")


def test_sources_of_different_labels_are_refused(config, phantom_dataset, tmp_path):
    other = replace(phantom_dataset, regions={"WT": ("NCR", "ED", "ET")}, folder=str(tmp_path))
    write_dataset(other)
    sources = (*config.sources, SourceConfig(dataset=str(tmp_path)))
    with pytest.raises(InputError, match="other labels or regions"):
        train(replace(config, sources=sources), tmp_path / "run")


def test_a_ct_data_set_of_one_channel_and_one_label_needs_a_configuration_alone(tmp_path):
    """As the paper's AIIB2023 and CRC-500: a bright ball in Hounsfield units, labelled 255 in its files."""
    root = tmp_path / "ct"
    cases = []
    for number in range(3):
        rng = np.random.default_rng(number)
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (36, 40, 44)), indexing="ij"))
        centre = rng.integers(14, 24, 3)
        ball = ((grid - centre[:, None, None, None]) ** 2).sum(0) < 64
        image = np.where(ball, 300.0, -50.0) + rng.normal(0, 20, ball.shape)
        image[:4] = -1000
        folder = root / f"ct-{number}"
        folder.mkdir(parents=True)
        entries = {}
        for name, array in (("ct", image.astype(np.int16)), ("seg", (255 * ball).astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, np.diag([2, 2, 2.5, 1])), folder / f"{name}.nii.gz")
            path = folder / f"{name}.nii.gz"
            entries[name] = FileEntry(path=f"ct-{number}/{name}.nii.gz", sha256=hash_file(path))
        cases.append(
            CaseEntry(
                id=f"ct-{number}",
                subject=f"ct-{number}",
                images={"ct": entries["ct"]},
                label=entries["seg"],
                shape=(36, 40, 44),
                spacing=(2, 2, 2.5),
            )
        )
    write_dataset(
        Dataset(
            name="ct",
            modalities=("ct",),
            labels={"lesion": 1},
            regions={"lesion": ("lesion",)},
            label_values={"255": "lesion"},
            cases=tuple(cases),
            folder=str(root),
        )
    )
    (tmp_path / "ct.toml").write_text(
        """
        name = "ct"
        steps = 110
        batch = 1
        patch = [32, 32, 32]
        precision = "fp32"
        cache = "cache"
        [augment]
        set = "none"
        [preprocess]
        modalities = ["ct"]
        spacing = [2.5, 2.0, 2.0]
        normalisation = "window"
        intensity = [-200, 400]
        crop = "none"
        [optimizer]
        learning_rate = 1e-2
        warmup = 5
        ema = 0.9
        [inference]
        window = [64, 64, 64]
        [[sources]]
        dataset = "ct"
        validate = true
        fold = 0
        """
    )
    make_split(read_dataset(root), folds=3, seed=1)
    model = load_package(train(load_config(tmp_path / "ct.toml"), tmp_path / "run"))
    assert model.manifest.label_map == {"lesion": 1} and model.manifest.network.in_channels == 1
    assert model.manifest.metrics["mean"]["lesion"]["dice"] > 0.8
    case = load_case({"ct": root / "ct-1" / "ct.nii.gz"}, modalities=("ct",))
    truth = np.asarray(nib.load(root / "ct-1" / "seg.nii.gz").dataobj) == 255
    answer = segment(case, model.network, model.manifest.preprocess, model.manifest.inference).label_map
    assert dice(answer == 1, truth) > 0.8


def test_bf16_on_the_cpu_needs_a_deep_patch(config, tmp_path):
    with pytest.raises(InputError, match="depth of 48 or more for bf16 on the CPU"):
        train(replace(config, precision="bf16"), tmp_path / "run")


def test_the_log_says_the_precision_that_the_cpu_is_fast_in(config, tmp_path):
    config = replace(config, steps=1, batch=1, patch=(48, 48, 48))
    for precision in ("bf16", "fp32"):
        train(replace(config, precision=precision), tmp_path / precision)
    fast = uses_bf16(replace(config, precision="bf16"), "cpu")
    slow = "training in fp32; bf16 is slow or missing on this device"
    found = {run: [line["text"] for line in lines_of(tmp_path / run, "event")] for run in ("bf16", "fp32")}
    assert found == {"bf16": ["training in bf16" if fast else slow], "fp32": ["training in fp32"]}


def test_settings_that_make_no_sense_are_refused(config):
    for wrong, text in (
        ({"loss": "mse"}, "loss 'mse'"),
        ({"batch": 0}, "batch 0"),
        ({"foreground": 1.5}, "foreground 1.5"),
        ({"sources": ()}, "at least one"),
        ({"steps": 0}, "steps 0"),
    ):
        with pytest.raises(InputError, match=text):
            replace(config, **wrong)
    for wrong, text in (({"learning_rate": 0.0}, "learning_rate"), ({"ema": 1.0}, "ema"), ({"name": "lion"}, "lion")):
        with pytest.raises(InputError, match=text):
            OptimizerConfig(**wrong)
    with pytest.raises(InputError, match="three multiples of 16"):
        PreprocessSpec(modalities=("a",)) and InferenceSpec(window=(30, 32, 32))
