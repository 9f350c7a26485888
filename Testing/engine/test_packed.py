"""Packed cases: what comes out is what went in, to half a step; and what a training from them does without."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load as load_numpy
from safetensors.numpy import save as save_numpy
from segmamba.cases.labels import GLIOMA
from segmamba.errors import InputError
from segmamba.models.package import load_package
from segmamba.models.specs import PreprocessSpec
from segmamba.training.config import SourceConfig, load_config
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment
from segmamba.training.packed import INDEX, prepare_packed, read_packed, write_packed
from segmamba.training.samples import TrainingCase, prepare, store
from training_runs import small_config

TRAINING = Path(__file__).resolve().parents[2] / "Training"
SPEC = PreprocessSpec(modalities=("t1n", "t1c", "t2w", "t2f"), spacing=(5.0, 4.0, 4.0))
NOT_THERE = ("monai", "nibabel", "SimpleITK", "matplotlib", "pydicom", "nilearn", "einops")  # on the machine


@pytest.fixture(scope="module")
def cases(phantom_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [prepare(phantom_dataset, entry, SPEC, cache) for entry in phantom_dataset.cases]


def tensors(case):
    with safe_open(case.cached, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  safe_open is no dict


def test_what_is_unpacked_is_what_was_packed_to_half_a_step(cases, tmp_path):
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases)
    packed = read_packed(tmp_path / "packed")
    assert [case.id for case in packed.cases] == [case.id for case in cases]
    assert packed.preprocess == SPEC and packed.scheme == GLIOMA
    for number, case in enumerate(cases):
        again = prepare_packed(packed, number, tmp_path / "cache")
        assert (again.id, again.digest) == (case.id, case.digest)
        before, after = tensors(case), tensors(again)
        for old, new in zip(before["image"].float(), after["image"].float()):
            step = max(0.05, old.abs().max().item() / 127)
            assert (old - new).abs().max().item() <= step / 2 + 0.01  # and the rounding of half precision
            assert torch.equal(new[old == 0], torch.zeros_like(new[old == 0]))
        shared = (before["label"].float() - after["label"].float()).abs().max().item()
        assert before["label"].dtype == after["label"].dtype == torch.float16  # shares: 5 mm from phantoms of 4 mm
        assert shared <= 3 / 255 + 1e-3  # the background is what three labels leave
        size = (tmp_path / "packed" / packed.cases[number].file).stat().st_size
        assert size < case.cached.stat().st_size / 4


def test_part_labelled_hard_maps_of_six_channels_come_back_exactly(tmp_path):
    """Six channels and two labels with what is known: nine volumes, three pictures a slice."""
    rng = np.random.default_rng(5)
    image = torch.from_numpy(rng.integers(-127, 128, (6, 7, 9, 11)) * 0.05).float()
    label = torch.from_numpy(rng.integers(0, 3, (7, 9, 11)))
    valid = torch.from_numpy(rng.random((7, 9, 11)) < 0.5)
    shares = torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float()
    digest = hashlib.sha256(b"case").hexdigest()
    (tmp_path / "case").write_bytes(store(image, shares, bytes.fromhex(digest), valid))
    case = TrainingCase("a", {}, tmp_path, {}, tmp_path / "case", digest)
    scheme = type(GLIOMA)(labels={"wall": 1, "lumen": 2}, regions={"all": ("wall", "lumen")})
    spec = PreprocessSpec(modalities=tuple("abcdef"))
    write_packed(tmp_path / "packed", spec, scheme, [case])
    before, after = tensors(case), tensors(prepare_packed(read_packed(tmp_path / "packed"), 0, tmp_path / "cache"))
    assert sorted(before) == sorted(after)
    for name, value in before.items():
        if name == "image":
            assert torch.allclose(value.float(), after[name].float(), atol=4e-3)
        else:
            assert torch.equal(value, after[name]), name


def test_as_many_as_fit_are_packed(cases, tmp_path):
    write_packed(tmp_path / "all", SPEC, GLIOMA, cases)
    first, second, _ = (path.stat().st_size for path in sorted((tmp_path / "all").glob("*.safetensors")))
    packed = write_packed(tmp_path / "two", SPEC, GLIOMA, cases, first + second)
    assert [case.id for case in packed.cases] == [case.id for case in cases[:2]]
    assert len(list((tmp_path / "two").glob("*.safetensors"))) == 2


def test_a_file_that_is_not_the_packed_one_is_refused(cases, tmp_path):
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases[:1])
    file = tmp_path / "packed" / "0000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"0000\.safetensors is not the one that packed\.json names"):
        prepare_packed(read_packed(tmp_path / "packed"), 0, tmp_path / "cache")


@pytest.mark.parametrize(
    "spoil", [lambda picture: bytes(len(picture)), lambda picture: picture[:40].ljust(len(picture))]
)
def test_a_slice_that_is_no_picture_is_named(cases, tmp_path, spoil):
    """Of a file that is the one that the index names, as after a fault in packing."""
    folder = tmp_path / "packed"
    packed = write_packed(folder, SPEC, GLIOMA, cases[:1])
    file = folder / packed.cases[0].file
    tensors = load_numpy(file.read_bytes())
    content, end = tensors["slices"].tobytes(), int(tensors["ends"][0])
    spoilt = spoil(content[:end]) + content[end:]
    file.write_bytes(save_numpy({**tensors, "slices": np.frombuffer(spoilt, np.uint8)}))
    index = (folder / INDEX).read_text()
    (folder / INDEX).write_text(index.replace(packed.cases[0].sha256, hashlib.sha256(file.read_bytes()).hexdigest()))
    with pytest.raises(InputError, match=r"0000\.safetensors: slice 0 cannot be read"):
        prepare_packed(read_packed(folder), 0, tmp_path / "cache")


def test_an_index_that_leads_elsewhere_is_refused(cases, tmp_path):
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases[:1])
    index = tmp_path / "packed" / INDEX
    values = json.loads(index.read_text())
    values["cases"][0]["file"] = "../0000.safetensors"
    index.write_text(json.dumps(values))
    with pytest.raises(InputError, match="is not the name of a file in this folder"):
        read_packed(tmp_path / "packed")


def test_a_folder_that_was_copied_in_part_is_refused_before_a_case_is_unpacked(cases, tmp_path):
    packed = write_packed(tmp_path / "packed", SPEC, GLIOMA, cases[:2])
    (tmp_path / "packed" / packed.cases[1].file).unlink()
    sources = (SourceConfig(packed=str(tmp_path / "packed")),)
    config = small_config(tmp_path, tmp_path / "cache", sources=sources, preprocess=SPEC)
    with pytest.raises(InputError, match=r"0001\.safetensors: no such file"):
        load_experiment(config, World())
    assert not (tmp_path / "cache").exists()


def test_packed_cases_of_another_preprocessing_are_refused(cases, tmp_path):
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases[:1])
    config = small_config(tmp_path, tmp_path / "cache", sources=(SourceConfig(packed=str(tmp_path / "packed")),))
    with pytest.raises(InputError, match="preprocessed otherwise than the configuration asks"):
        load_experiment(config, World())


def test_nobody_is_trained_on_packed_and_validated_on_as_a_case(cases, phantom_dataset, tmp_path):
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases)
    sources = (
        SourceConfig(packed=str(tmp_path / "packed")),
        SourceConfig(dataset=phantom_dataset.folder, held_out=True),
    )
    with pytest.raises(InputError, match=r"packed case phantom-0 .* is validated on"):
        load_experiment(small_config(tmp_path, tmp_path / "cache", sources=sources, preprocess=SPEC), World())


CHILD = """
import json, sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in json.loads(sys.argv[1]):
            self.asked.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from segmamba.cli import main
code = main(sys.argv[2:])
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(json.loads(sys.argv[1])))
print(json.dumps({"code": code, "loaded": loaded, "asked": Blocked.asked}))
"""


def test_packed_cases_train_with_torch_and_numpy_alone(cases, tmp_path):
    """In a process of its own, in which the libraries that read and show images cannot be imported."""
    write_packed(tmp_path / "packed", SPEC, GLIOMA, cases)
    config = tmp_path / "packed.toml"
    config.write_text(
        """
name = "packed"
patch = [32, 32, 32]
steps = 2
precision = "fp32"
cache = "cache"
[network]
preset = "quick"
[preprocess]
modalities = ["t1n", "t1c", "t2w", "t2f"]
spacing = [5, 4, 4]
[[sources]]
packed = "packed"
"""
    )
    assert load_config(config).sources[0].packed == str(tmp_path / "packed")
    arguments = ["train", config, "--run-folder", tmp_path / "run", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(NOT_THERE), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TRAINING)},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 0 and said["loaded"] == []
    assert {name.partition(".")[0] for name in said["asked"]} <= {"matplotlib", "pydicom"}  # the picture of the curves
    model = load_package(tmp_path / "run" / "model")
    assert model.manifest.training["cases"] == {case.id: case.digest for case in cases}
    steps = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any(line["kind"] == "step" and np.isfinite(line["loss"]) for line in steps)
