"""Published checkpoints: every form recognised by its keys, loaded whole or refused, and nothing in them executed."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNETR
from safetensors.torch import save_file
from segmamba.errors import InputError
from segmamba.models.published import load_published, load_strictly
from segmamba.networks.segmamba import NetworkConfig, SegMamba

DIRECTIONS = ("forward", "reverse", "slices")
CONFIG = NetworkConfig(
    in_channels=2, out_channels=3, features=(4, 8, 8, 16), full_features=6, bottleneck=12, depths=(1, 2, 1, 1)
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SegMamba(CONFIG)


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


def save(content, path):
    torch.save(content, path)
    return path


def assert_same(network, state):
    found = network.state_dict()
    assert found.keys() == state.keys()
    for name in state:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], state[name].float()), name


# A broken file may claim any pickle protocol; torch says so, and refuses it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


# --- forms and wrappings


@pytest.mark.parametrize("directions", [DIRECTIONS[:1], DIRECTIONS[:2], DIRECTIONS], ids=len)
def test_the_number_of_directions_is_read_from_the_keys(tmp_path, directions):
    config = replace(CONFIG, directions=directions)
    original = SegMamba(config)
    loaded = load_published(save(original.state_dict(), tmp_path / "a.pt"))
    assert loaded.config == config
    assert_same(loaded, original.state_dict())


def test_v1_is_recognised(tmp_path):
    config = replace(CONFIG, form="v1", directions=DIRECTIONS[:2], mamba_residual=False)
    original = SegMamba(config)
    loaded = load_published(save(original.state_dict(), tmp_path / "a.pth"))
    assert loaded.config == config
    assert_same(loaded, original.state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {f"module.{name}": t for name, t in s.items()},
        lambda s: {"module": s},
        lambda s: {"state_dict": {f"module.{name}": t for name, t in s.items()}, "epoch": 3, "best": 0.9},
        lambda s: {"model": {"module": s}},
        lambda s: {"step": torch.tensor(7), "model_state_dict": s},  # a tensor beside the tensors
        lambda s: {"net": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    ],
    ids=["bare", "distributed", "module", "trainer", "nested", "tensor beside", "optimizer beside"],
)
def test_wrappings(tmp_path, state, wrap):
    assert_same(load_published(save(wrap(dict(state)), tmp_path / "a.pt")), state)


def test_safetensors(tmp_path, state):
    save_file({f"module.{name}": t for name, t in state.items()}, tmp_path / "a.safetensors")
    assert_same(load_published(str(tmp_path / "a.safetensors")), state)


def test_half_precision_becomes_float32(tmp_path, state):
    half = {name: t.half() for name, t in state.items()}
    assert_same(load_published(save(half, tmp_path / "a.pt")), half)


@pytest.mark.parametrize("form", ["released", "v1"])
@pytest.mark.parametrize("residual", [None, True, False])
def test_the_residual_is_as_told_or_as_the_form_has_it(tmp_path, form, residual):
    original = SegMamba(replace(CONFIG, form=form, directions=DIRECTIONS[:2]))
    path = save(original.state_dict(), tmp_path / "a.pt")
    loaded = load_published(path, mamba_residual=residual)
    assert loaded.config.mamba_residual == ((form == "released") if residual is None else residual)
    x = torch.randn(1, 2, 32, 16, 48)
    with torch.no_grad():
        same = torch.equal(loaded(x), original(x))  # the original has the residual
    assert same == loaded.config.mamba_residual


# --- refused: all or nothing


def refused(path):
    with pytest.raises(InputError) as error:
        load_published(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "vit.stages.1.1.mamba.dt_proj_s.bias",
        "vit.downsample_layers.2.1.weight",
        "out.conv.conv.weight",
        "encoder5.layer.conv1.conv.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path, state, name):
    rest = {key: t for key, t in state.items() if key != name}
    text = refused(save(rest, tmp_path / "a.pt"))
    assert "missing" in text and name in text


def test_a_missing_stage_is_named(tmp_path, state):
    rest = {key: t for key, t in state.items() if not key.startswith("vit.stages.2.")}
    assert "vit.stages.2.0.mamba.A_b_log" in refused(save(rest, tmp_path / "a.pt"))


def test_a_tensor_too_many_is_named(tmp_path, state):
    text = refused(save({**state, "vit.surplus": torch.ones(1)}, tmp_path / "a.pt"))
    assert "unexpected vit.surplus" in text and "missing nothing" in text


def test_a_tensor_of_another_shape_is_named(tmp_path, state):
    text = refused(save({**state, "vit.gscs.1.proj.bias": torch.ones(5)}, tmp_path / "a.pt"))
    assert "another shape vit.gscs.1.proj.bias" in text


def test_one_direction_of_one_layer_is_not_enough(tmp_path, state):
    """Never partially: the fork's arguments deleted give a file without "_s", silently another network."""
    rest = {key: t for key, t in state.items() if "_s" not in key or "stages.1.0" in key}
    assert "A_s_log" in refused(save(rest, tmp_path / "a.pt"))


def test_nothing_is_loaded_where_one_tensor_does_not_fit(state):
    fresh = SegMamba(CONFIG)
    before = {name: t.clone() for name, t in fresh.state_dict().items()}
    broken = {name: t for name, t in state.items() if name != "vit.gscs.0.proj.bias"}
    with pytest.raises(
        InputError, match=r"here: 2\d\d tensors do not fit the 'released' network .*vit.gscs.0.proj.bias"
    ):
        load_strictly(fresh, broken, "here")
    assert all(torch.equal(t, before[name]) for name, t in fresh.state_dict().items())


def test_another_network_is_told_from_ours(tmp_path):
    """MONAI's UNETR has "vit." and the same encoder and decoder names."""
    unetr = UNETR(4, 4, (32, 32, 32), feature_size=8, hidden_size=32, mlp_dim=64, num_heads=4)
    text = refused(save(unetr.state_dict(), tmp_path / "a.pt"))
    for part in ("not a SegMamba", "missing", "vit.downsample_layers.0.0.weight", "found"):
        assert part in text


def test_weights_of_something_else_entirely(tmp_path):
    text = refused(save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pt"))
    assert "vit. or mamba_encoder." in text and "found bias, weight" in text


def test_a_tensor_of_an_impossible_shape(tmp_path, state):
    text = refused(save({**state, "out.conv.conv.weight": torch.tensor(1.0)}, tmp_path / "a.pt"))
    assert "out.conv.conv.weight" in text


@pytest.mark.parametrize(
    "content",
    [{}, [1, 2], torch.ones(3), {"epoch": 3}, {"state_dict": {}}, {"model": {"a": 1}}, {"module": 3}],
    ids=str,
)
def test_no_tensors(tmp_path, content):
    assert "holds no dict of tensors" in refused(save(content, tmp_path / "a.pt"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_files_that_are_none(tmp_path, suffix, state):
    missing = tmp_path / f"missing{suffix}"
    assert "does not exist" in refused(missing)
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "cannot be read" in refused(folder)
    save(dict(state), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for number, data in enumerate([b"", b"hello", b"\x80\x02", b"\x89PNG" + bytes(90), whole[:-100], whole[:1000]]):
        path = tmp_path / f"broken-{number}{suffix}"
        path.write_bytes(data)
        assert "cannot be read" in refused(path) and "weights_only" not in refused(path)


def test_bytes_gone_wrong_anywhere_give_the_same_error(tmp_path):
    """Old torch files are bare pickles, in which a wrong byte raises nearly any exception."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    outcomes = set()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        text = refused(path)
        known = [part for part in ("cannot be read", "not a SegMamba") if part in text]
        outcomes.add(known[0] if known else text)
    assert "cannot be read" in outcomes


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, state, legacy):
    sprung, path = tmp_path / "sprung", tmp_path / "a.pt"
    torch.save({**state, "trap": Trap(sprung)}, path, _use_new_zipfile_serialization=not legacy)
    text = refused(path)
    assert "cannot be read" in text and "state dict alone" in text
    assert "weights_only" not in text  # torch's advice would run it
    assert not sprung.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert sprung.is_dir()


def test_code_in_a_bare_pickle_is_not_run_either(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    assert "cannot be read" in refused(path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.is_dir()


def test_the_error_says_the_path_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(Path("nowhere.pt")).startswith("checkpoint nowhere.pt")
