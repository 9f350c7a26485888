"""Model packages: what is saved is what is loaded, and every way in which a folder can be wrong is said."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.models import package
from segmamba.models.package import (
    Manifest,
    load_package,
    read_manifest,
    save_package,
)
from segmamba.models.specs import InferenceSpec, PostprocessSpec, PreprocessSpec
from segmamba.networks.segmamba import NetworkConfig, SegMamba

CONFIG = NetworkConfig(
    in_channels=2,
    out_channels=3,
    features=(4, 4, 8, 8),
    full_features=4,
    bottleneck=8,
    depths=(1, 1, 1, 1),
    directions=("forward", "slices"),
    mamba_residual=False,
)
MANIFEST = Manifest(
    id="small-1",
    network=CONFIG,
    preprocess=PreprocessSpec(modalities=("t1c", "t2f"), spacing=(2, 1.5, 1), margin_mm=3.0),
    inference=InferenceSpec(window=(32, 48, 64), overlap=0.25, bf16=False),
    label_map={"ED": 2, "NCR": 1},
    regions={"WT": ("NCR", "ED"), "TC": ("NCR",)},
    parent="small-0",
    training={"steps": 3, "data": ["a", "b"], "rate": 1e-3, "resumed": None},
    metrics={"dice": {"WT": 0.5}},
    licence="CC-BY-4.0",
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SegMamba(CONFIG)


@pytest.fixture
def folder(tmp_path, network):
    save_package(tmp_path / "models" / "small", network, MANIFEST, "# Small\n\nµ\n")
    return tmp_path / "models" / "small"


def edit(folder, change):
    """Changes the manifest of a package on disk."""
    path = folder / "model.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(folder, load=load_package):
    with pytest.raises(InputError) as error:
        load(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


# --- there and back


def test_what_is_saved_is_loaded(folder, network):
    model = load_package(folder)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert model.manifest == replace(MANIFEST, weights_sha256=digest)
    assert model.folder == folder
    assert not model.network.training
    assert model.network.config == CONFIG
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    assert (folder / "MODEL_CARD.md").read_bytes().decode() == "# Small\n\nµ\n"
    assert names(folder) == ["MODEL_CARD.md", "model.json", "model.safetensors"]


def test_saving_says_what_it_wrote(tmp_path, network):
    written = save_package(tmp_path / "a" / "b", network, MANIFEST, "")
    assert written == read_manifest(tmp_path / "a" / "b") == load_package(tmp_path / "a" / "b").manifest


def test_the_loaded_network_computes_the_same(folder, network):
    x = torch.randn(1, 2, 16, 48, 32)
    with torch.no_grad():
        assert torch.equal(load_package(folder).network(x), network(x))


def test_weights_may_be_stored_in_half_precision(tmp_path, network):
    save_package(tmp_path / "half", network, replace(MANIFEST, weights_dtype="float16"), "")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in load_package(tmp_path / "half").network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, network.state_dict()[name].half().float()), name


def test_channels_last_weights_are_saved_like_others(tmp_path, network, folder):
    last = SegMamba(CONFIG).to(memory_format=torch.channels_last_3d)
    last.load_state_dict(network.state_dict())
    save_package(tmp_path / "last", last, MANIFEST, "")
    assert read_manifest(tmp_path / "last").weights_sha256 == read_manifest(folder).weights_sha256


def test_an_unknown_precision_is_refused_before_anything_is_written(tmp_path, network):
    with pytest.raises(InputError, match=r"'bfloat16' must be one of float32, float16"):
        save_package(tmp_path / "x", network, replace(MANIFEST, weights_dtype="bfloat16"), "")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"steps": 2**70}}, "a whole number of 22 digits"),
        ({"training": {"name": "\ud800"}}, "not valid Unicode"),
        ({"training": {"data": Path("images")}}, "cannot be written as JSON: Object of type .*Path"),
        ({"metrics": {"dice": float("nan")}}, "not JSON compliant"),
        ({"inference": InferenceSpec(window=(32, 48, 64), overlap=0.95)}, "expected at most"),
    ],
)
def test_what_could_not_be_read_again_is_refused_before_anything_is_written(folder, tmp_path, network, change, message):
    """An existing package stays as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for place in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match=message):
            save_package(place, SegMamba(CONFIG), replace(MANIFEST, **change), "# New\n")
    with pytest.raises(InputError, match="card of small-1 is not valid Unicode"):
        save_package(folder, SegMamba(CONFIG), MANIFEST, "\ud800")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "new").exists()


# --- weights


def test_weights_that_do_not_fit_their_precision_or_manifest_are_refused_before_anything_is_written(tmp_path):
    large = SegMamba(MANIFEST.network)
    with torch.no_grad():
        large.out.conv.conv.bias[0] = 7e4  # float16 ends at 65504
    with pytest.raises(InputError, match=r"not finite as float16: out\.conv\.conv\.bias"):
        save_package(tmp_path / "x", large, replace(MANIFEST, weights_dtype="float16"), "")
    with pytest.raises(InputError, match="describes another network"):
        save_package(tmp_path / "x", large, replace(MANIFEST, network=NetworkConfig()), "")
    with pytest.raises(InputError, match="3 output channels; label_map"):
        save_package(tmp_path / "x", large, replace(MANIFEST, label_map={"ED": 1}, regions={"WT": ("ED",)}), "")
    assert not (tmp_path / "x").exists()


def test_damaged_weights(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    text = refused(folder)
    assert "sha256" in text and "damaged or belongs to another model" in text


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    assert "damaged" in refused(folder)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(100), b"PK\x03\x04"])
def test_weights_that_are_no_safetensors_though_the_hash_is_right(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, lambda values: values.update(weights_sha256=hashlib.sha256(data).hexdigest()))
    assert "not a safetensors file" in refused(folder)


def test_weights_of_another_network(folder):
    edit(folder, lambda values: values["network"].update(directions=["forward"]))
    text = refused(folder)
    assert "do not fit" in text and "unexpected" in text and "A_s_log" in text


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors cannot be read (No such file" in refused(folder)


# --- manifest


def test_missing_folder_and_missing_manifest(folder, tmp_path):
    assert "is not a model folder: it has no model.json" in refused(tmp_path / "nowhere")
    (folder / "model.json").unlink()
    assert "it has no model.json" in refused(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"not json", b"\xff\xfe\x00", b'{"schema": 1,}'])
def test_a_manifest_that_is_no_json(folder, data):
    (folder / "model.json").write_bytes(data)
    assert "model.json cannot be read" in refused(folder)


@pytest.mark.parametrize("text", ["[]", '[{"schema": 1}]', "3", "null", '"schema"', "{}"])
def test_a_manifest_that_is_something_else(folder, text):
    (folder / "model.json").write_text(text)
    assert "has schema None; this version reads 1" in refused(folder)


@pytest.mark.parametrize("schema", [2, 0, "1", None])
def test_another_schema(folder, schema):
    edit(folder, lambda values: values.update(schema=schema))
    assert f"has schema {schema}; this version reads 1: update" in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(trainig={}), "'trainig'; did you mean 'training'?"),
        (lambda v: v["network"].update(feature=[1]), "network: unknown setting 'feature'; did you mean 'features'?"),
        (lambda v: v["preprocess"].update(spacings=[1, 1, 1]), "preprocess: unknown setting 'spacings'; did you mean"),
        (lambda v: v.pop("id"), "missing 'id'"),
        (lambda v: (v.pop("network"), v.pop("inference")), "missing 'network', 'inference'"),
        (lambda v: v["preprocess"].pop("modalities"), "preprocess: missing 'modalities'"),
        (lambda v: v.update(network=[]), "network: expected a table"),
        (lambda v: v.update(network=None), "network: expected a table"),
        (lambda v: v.update(id=3), "id: expected str, got 3"),
        (lambda v: v["inference"].update(overlap="half"), "inference: overlap: expected float, got 'half'"),
        (lambda v: v["inference"].update(window=[32, 32]), "inference: window: expected 3 values"),
        (lambda v: v["network"].update(features=[4, 4, 8, "8"]), "network: features: expected int, got '8'"),
        (lambda v: v["network"].update(in_channels=True), "network: in_channels: expected int, got True"),
        (lambda v: v["inference"].update(window=[32, 32, 40]), "window (32, 32, 40) must be three multiples"),
        (lambda v: v.update(label_map={"NCR": 1, "ED": 3}), "must have the values 1 to 2"),
        (lambda v: v.update(label_map={"NCR": 1, "ED": 2, "ET": 3}), "the network has 3 output channels; label_map"),
        (lambda v: v.update(regions={"WT": ["NCR", "CYST"]}), "known labels are ED, NCR"),
        (lambda v: v.update(regions={"WT": "NCR"}), "expected a list"),
        (lambda v: v.update(regions={}), "need one region at least"),
        (lambda v: v.update(label_map={"NCR": 1}), "label_map"),
        (lambda v: v.update(label_map={"NCR": 1, "ED": 2, "ET": 2}), "label_map"),
        (lambda v: v.update(label_map={"background": 0, "NCR": 1, "ED": 2}), "label_map"),
        (lambda v: v.update(label_map={"NCR": 1, "ED": "2"}), "label_map"),
        (lambda v: v.update(label_map={"NCR": 1, "ED": [2]}), "label_map"),
        (lambda v: v.update(label_map={"NCR": True, "ED": 2}), "label_map"),
        (lambda v: v.update(label_map=[1, 2]), "label_map: expected a table"),
        (lambda v: v["preprocess"].update(modalities=["t1c"]), "1 modalities for 2 input channels"),
        (lambda v: v["preprocess"].update(modalities=["t1c", "t2f", "t1n"]), "3 modalities for 2 input channels"),
    ],
)
def test_a_manifest_with_a_mistake(folder, change, message):
    edit(folder, change)
    assert message in refused(folder, read_manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["network"].update(form="os.system"), "unknown network form 'os.system'"),
        (lambda v: v["network"].update(in_channels=-2), "1 to 1536"),
        (lambda v: v["inference"].update(window=[8, 8, 8]), "multiples of 16"),
        (lambda v: v["preprocess"].update(normalisation="__import__('os')"), "normalisation"),
    ],
)
def test_a_manifest_with_a_value_that_is_not_known(folder, change, message):
    edit(folder, change)
    with pytest.raises(InputError) as error:
        read_manifest(folder)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depths": [1, 1, 1, 1_000_000]}, "depths 0 to 16"),
        ({"features": [4, 4, 8, 1_000_000]}, "1 to 1536"),
        ({"bottleneck": 10**15}, "1 to 1536"),
        ({"name": "nnunet", "width": 1_000_000}, "width 1000000 of nnunet must be 0 or a multiple of 1, at most 64"),
        ({"name": "unetr", "out_channels": 10**9}, "1 to 1536"),
        ({"name": "unetr", "patch": [16, 16, 16 * 10**9]}, "patch .* does not fit unetr"),
    ],
)
def test_a_network_too_large_for_any_machine_is_not_built(folder, sizes, message):
    """A manifest of some hundred bytes asked for all of the memory."""
    edit(folder, lambda v: v.update(network=sizes if "name" in sizes else {**v["network"], **sizes}))
    assert re.search(message, refused(folder, read_manifest))


LIMITS = {
    "min_component_mm3: unknown region ET; known are WT, TC": {"min_component_mm3": {"ET": 5.0}},
    "min_total_mm3: smallest WT of -1.0 mm3": {"min_total_mm3": {"WT": -1.0}},
    "min_without_inner_mm3: region TC has no region inside it": {"min_without_inner_mm3": {"TC": 5.0}},
}


@pytest.mark.parametrize("message", LIMITS)
def test_a_limit_that_cannot_be_used_is_refused_on_reading_and_on_saving(folder, network, tmp_path, message):
    """Before, it was met after the network had run."""
    wrong = replace(MANIFEST, postprocess=PostprocessSpec(**LIMITS[message]))
    with pytest.raises(InputError) as error:
        save_package(tmp_path / "new", network, wrong, "")
    assert f"{tmp_path / 'new' / 'model.json'}: postprocess.{message}" in str(error.value)
    assert not (tmp_path / "new").exists()
    edit(folder, lambda values: values.update(postprocess=LIMITS[message]))
    assert f"model.json: postprocess.{message}" in refused(folder, read_manifest)


def test_nothing_in_a_package_is_evaluated(folder):
    """Text in every field that would make a file if it were run, and Python files beside the weights."""
    trap = f"__import__('os').mkdir({str(folder / 'sprung')!r})"
    edit(folder, lambda v: v.update(id=trap, parent=trap, licence=trap, training={trap: trap}, metrics={"a": trap}))
    for name in ("__init__.py", "model.py", "conftest.py"):
        (folder / name).write_text(trap)
    assert load_package(folder).manifest.id == trap
    assert not (folder / "sprung").exists()


# --- writing


def test_written_aside_and_renamed(tmp_path):
    path = tmp_path / "file"
    write_aside(path, b"one")
    write_aside(path, b"two and more")
    assert path.read_bytes() == b"two and more"
    assert names(tmp_path) == ["file"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    """In a process that may write no more than 1000 bytes to a file, as on a full disk."""
    pytest.importorskip("resource")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = """
import resource, signal, sys
from pathlib import Path
from segmamba.files.atomic import write_aside
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_aside(Path(sys.argv[1]), bytes(5000))
except OSError as error:
    print(error.filename, error.strerror)
"""
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"{path} File too large"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_old_package_stays_whole_until_the_manifest_is_new(folder, network, monkeypatch):
    """Where saving stops between two files, the weights no longer fit the manifest, and that is said."""
    before = load_package(folder).manifest
    written = []

    def interrupted(path, data):
        if path.name == "model.json":
            raise OSError("No space left on device")
        written.append(path.name)
        write_aside(path, data)

    monkeypatch.setattr(package, "write_aside", interrupted)
    other = SegMamba(CONFIG)
    with pytest.raises(OSError, match="No space"):
        save_package(folder, other, MANIFEST, "")
    assert written == ["model.safetensors", "MODEL_CARD.md"]
    assert read_manifest(folder) == before
    assert "belongs to another model" in refused(folder)
