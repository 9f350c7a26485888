"""The networks of Table 1 as one kind: sizes, shapes, gradients, precision, what is refused."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import pytest
import torch
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.models.package import Manifest, load_package, read_manifest, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.baselines import BASELINES, BaselineConfig, build_baseline
from segmamba.networks.baselines.nnformer import NNFormer
from segmamba.networks.baselines.uxnet import UXNet
from segmamba.networks.choice import NetworkChoice, build, checkpoint_activations
from segmamba.networks.norm import use_instance_norm
from segmamba.networks.segmamba import NetworkConfig
from segmamba.settings import build as from_plain
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.loop import train
from training_runs import small_config

# narrow ones, on a crop that is the smallest or nearly so, no two sides alike where the stride allows
SMALL = {
    "segresnet": {"width": 8, "patch": (16, 24, 8)},
    "uxnet": {"width": 4, "patch": (16, 32, 48)},
    "mednext": {"width": 4, "patch": (16, 32, 48)},
    "unetr": {"width": 2, "patch": (16, 32, 48)},
    "swinunetr": {"width": 12, "patch": (32, 64, 32)},
    "swinunetr-v2": {"width": 12, "patch": (32, 64, 32)},
    "nnformer": {"width": 32, "patch": (32, 64, 32)},
    "transbts": {"width": 8, "patch": (16, 32, 24)},
    # the coarsest grid of two voxels would be +1 and -1 after its norm, whatever goes in
    "nnunet": {"width": 3, "patch": (64, 64, 32)},
    "nnunet-resenc-m": {"width": 2, "patch": (64, 64, 32)},
    "umamba-bot": {"width": 3, "patch": (64, 64, 32)},
    "umamba-enc": {"width": 3, "patch": (64, 64, 64)},
}


def small(name, **changes):
    torch.manual_seed(0)
    config = BaselineConfig(name=name, in_channels=2, out_channels=3, **{**SMALL[name], **changes})
    return build_baseline(config)


def image(patch, batch=1, seed=1):
    return torch.randn(batch, 2, *patch, generator=torch.Generator().manual_seed(seed))


def count(network):
    return sum(p.numel() for p in network.parameters())


# --- sizes: published counts, to their last digit


@pytest.mark.parametrize(
    "name, channels, patch, millions",
    [
        ("uxnet", (1, 14), 96, 53.0),  # arXiv 2209.15076, table 1
        ("mednext", (4, 4), 128, 61.7),  # arXiv 2303.09975, table 1, has 61.8 with deep supervision's outputs
        ("unetr", (1, 14), 96, 92.8),  # arXiv 2209.15076, table 1
        ("swinunetr", (1, 14), 96, 62.2),  # the same
        ("segresnet", (4, 4), 128, 18.8),
        ("swinunetr-v2", (4, 4), 128, 72.8),
        ("transbts", (4, 4), 128, 32.7),
        ("nnformer", (1, 14), 96, 149.4),  # arXiv 2209.15076, table 1, has 149.3, with fewer classes
    ],
)
def test_a_baseline_has_its_published_size(name, channels, patch, millions, monkeypatch):
    monkeypatch.setattr(
        torch.nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor
    )  # takes seconds, counts nothing
    config = BaselineConfig(name=name, in_channels=channels[0], out_channels=channels[1], patch=(patch,) * 3)
    if name.startswith("swinunetr"):  # MONAI reads values while it builds, which the meta device has not
        network = build_baseline(config)
    else:
        with torch.device("meta"):
            network = build_baseline(config)
    assert round(count(network) / 1e6, 1) == millions


@pytest.mark.parametrize(
    "name, parameters",
    [
        # dynamic-network-architectures 0.4.4, PlainConvUNet and ResidualEncoderUNet: 31.2 M and 102.4 M
        ("nnunet", 31_199_796),
        ("nnunet-resenc-m", 102_353_972),
        # the authors' U-Mamba code (bowang-lab/U-Mamba), UMambaBot and UMambaEnc
        ("umamba-bot", 42_124_692),
        ("umamba-enc", 42_755_220),
    ],
)
def test_the_unets_have_the_size_of_their_authors_code(name, parameters):
    """Which has four more outputs, for deep supervision. With the same weights the logits are the same to the last bit,
    which was tried once, against these versions."""
    with torch.device("meta"):
        network = build_baseline(BaselineConfig(name=name))
    outputs = sum(4 * channels + 4 for channels in (320, 256, 128, 64))
    assert count(network) + outputs == parameters


def test_transbts_has_its_published_size():
    """32.99 M (arXiv 2103.04430, v2), with two layers of the authors' code that nothing uses, without three biases."""
    with torch.device("meta"):
        network = build_baseline(BaselineConfig(name="transbts"))
    unused = (512 * 4 * 128 + 512) + 2 * 512
    assert round((count(network) + unused - 4 * 3 * 512) / 1e6, 2) == 32.99


def test_an_affine_norm_keeps_its_factors():
    torch.manual_seed(0)
    norm = torch.nn.Sequential(torch.nn.InstanceNorm3d(3, affine=True), torch.nn.InstanceNorm3d(3))
    torch.nn.init.normal_(norm[0].weight)
    torch.nn.init.normal_(norm[0].bias)
    x = torch.randn(2, 3, 4, 5, 6)
    expected = norm(x)
    torch.testing.assert_close(use_instance_norm(norm)(x), expected, rtol=1e-5, atol=1e-5)
    assert len(list(norm.parameters())) == 2


def test_the_plain_nnunet_is_counted_by_hand():
    channels = (32, 64, 128, 256, 320, 320)

    def block(a, b, kernel=3):  # convolution with bias, norm
        return kernel**3 * a * b + b + 2 * b

    down = sum(block(a, b) + block(b, b) for a, b in pairwise((4, *channels)))
    up = sum(8 * b * a + a + block(2 * a, a) + block(a, a) for a, b in pairwise(channels))
    with torch.device("meta"):
        network = build_baseline(BaselineConfig(name="nnunet"))
    assert count(network) == down + up + 32 * 4 + 4


def test_uxnet_is_counted_by_hand():
    """Every layer of the encoder and the decoder, one channel in, 14 classes."""
    features = (48, 96, 192, 384)
    stem = 7**3 * 48 + 48 + 2 * 48
    halvings = sum(2 * a + 8 * a * 2 * a + 2 * a for a in features[:3])
    block = sum(2 * ((7**3 + 1) * c + 2 * c + 8 * c + 5 * c + c) for c in features)  # two a stage
    norms = sum(2 * c for c in features)

    def residual(a, b):
        return 27 * a * b + 27 * b * b + (a * b if a != b else 0)

    wide = (48, 96, 192, 384, 768)
    lateral = sum(residual(a, b) for a, b in zip((1, *features), wide))
    up = sum(8 * b * a + residual(2 * a, a) for a, b in pairwise(wide))
    by_hand = stem + halvings + block + norms + lateral + up + residual(48, 48) + 48 * 14 + 14
    with torch.device("meta"):
        assert count(UXNet(1, 14)) == by_hand == 53_006_510


def test_nnformer_has_the_size_of_its_authors():
    """Their network for CT has 150,054,210 parameters (150.5 M is published), two more outputs included."""
    with torch.device("meta"):
        network = NNFormer(1, 14, (64, 128, 128), stride=(2, 4, 4))
    deep_supervision = sum(channels * 14 * 2 * 4 * 4 + 14 for channels in (384, 768))
    assert count(network) + deep_supervision == 150_054_210
    assert count(network) / 1e6 == pytest.approx(150.5, rel=0.01)


# --- what every one of them does


@pytest.mark.parametrize("name", BASELINES)
def test_logits_have_the_grid_of_the_input_and_gradients_reach_every_parameter(name):
    """DDP waits for each of them. A drop path may skip a block, which gives its parameters zeros, not nothing."""
    network = small(name).train().to(memory_format=torch.channels_last_3d)  # as training has it
    x = image(network.config.patch).contiguous(memory_format=torch.channels_last_3d)
    logits = network(x)
    assert isinstance(logits, torch.Tensor) and logits.shape == (1, 3, *x.shape[2:]) and logits.dtype == torch.float32
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    missing = [key for key, p in network.named_parameters() if p.grad is None]
    assert not missing
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.startswith("swin")])
def test_no_parameter_is_idle(name):
    """Without drop path each tensor of parameters changes the logits of some input."""
    network = small(name).eval()
    logits = network(image(network.config.patch))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert [key for key, p in network.named_parameters() if not p.grad.any() and not _before_a_norm(key)] == []


def _before_a_norm(key):
    """A bias whose effect an instance norm takes away: its gradient may be zero to the last bit."""
    return key.endswith("bias")


# With fresh weights at this size umamba-enc makes a change of its input 1800 times as large: 1e-6 of the input became
# 1.8e-3 of the logits' deviation, where nnU-Net and umamba-bot make it 10 times as large at most. What rounding does is
# judged without it.
ROUGH = "umamba-enc"


# swinunetr: slow, and all of it is in v2
@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("swinunetr", ROUGH)])
def test_bf16_autocast_gives_nearly_the_same(name):
    # oneDNN is wrong in bf16 where a side ends as a single voxel (on AMX), and in weight gradients on a small depth
    patch = tuple(max(16, side) for side in SMALL[name]["patch"])
    network = small(name, patch=patch).eval().requires_grad_(False)
    x = image(network.config.patch).requires_grad_()
    with torch.no_grad():
        exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    (gradient,) = torch.autograd.grad(logits.float().square().mean(), x)
    assert torch.isfinite(gradient).all() and gradient.any()
    difference = (logits.float() - exact).square().mean().sqrt() / exact.std()
    assert difference < 0.05


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.startswith("swin")])
def test_samples_of_a_batch_do_not_mix(name):
    network = small(name).eval()
    x = image(network.config.patch, batch=3)
    close = {"rtol": 1e-4, "atol": 5e-5} if name != ROUGH else {"rtol": 0, "atol": 0.05}  # mixed ones differ by 0.5
    with torch.no_grad():
        torch.testing.assert_close(network(x)[[2, 0, 1]], network(x[[2, 0, 1]]), **close)
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), **close)


@pytest.mark.parametrize("name", ["uxnet", "unetr", "nnformer"])
def test_memory_format_changes_nothing(name):
    """Training runs channels last, where torch's own instance norm has a wrong gradient."""
    gradients = []
    for form in (torch.contiguous_format, torch.channels_last_3d):
        network = small(name).eval().to(memory_format=form)
        logits = network(image(network.config.patch).contiguous(memory_format=form))
        logits.square().mean().backward()
        gradients.append([p.grad.contiguous() for p in network.parameters()])
    for plain, last in zip(*gradients):
        torch.testing.assert_close(plain, last, rtol=1e-3, atol=1e-5)


# --- activation checkpointing

_TINY = NetworkConfig(in_channels=2, out_channels=3, features=(4, 4, 8, 8), full_features=4, bottleneck=8)
_TINY = replace(_TINY, depths=(1, 1, 1, 1))
_BLOCKS = {
    # blocks of encoder and decoder: Mamba layers or TSMamba blocks, GSC, MLPs; basic and up blocks
    "released": (_TINY, 4 + 4 + 4 + 6 + 4),
    "paper": (replace(_TINY, form="paper"), 4 + 6 + 4),
    "v1": (replace(_TINY, form="v1", directions=("forward", "reverse")), 4 + 4 + 6 + 4),
}
_BLOCKS |= {name: (None, None) for name in BASELINES if name != "swinunetr"}  # slow, and all of it is in v2


@pytest.mark.parametrize("name", _BLOCKS)
def test_checkpointing_keeps_less_and_changes_no_gradient(name):
    config, blocks = _BLOCKS[name]
    gradients, kept = [], []
    for saving in (False, True):
        torch.manual_seed(5)
        network = build(config).train() if config else small(name).train()
        if saving:
            found = checkpoint_activations(network)
            assert found == blocks if blocks else found > 2
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: _note(t, sizes), lambda t: t):
            torch.manual_seed(6)  # drop path
            logits = network(image((32, 32, 64) if config else network.config.patch))
        (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        gradients.append([p.grad for p in network.parameters()])
        own = {p.untyped_storage().data_ptr() for p in network.parameters()}
        kept.append(sum(size for place, size in sizes.items() if place not in own))
    for plain, again in zip(*gradients):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)
    assert kept[1] < 0.5 * kept[0]


def _note(tensor, sizes):
    sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


# --- trained, packaged, used


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", BASELINES)
def test_a_package_gives_the_network_back(name, dtype, tmp_path):
    network = small(name).eval()
    manifest = Manifest(
        id=name,
        network=network.config,
        preprocess=PreprocessSpec(modalities=("t1c", "t2f")),
        inference=InferenceSpec(),
        label_map={"core": 1, "rest": 2},
        regions={"all": ("core", "rest")},
        weights_dtype=dtype,
    )
    save_package(tmp_path, network, manifest, "# card\n")
    again = load_package(tmp_path).network
    assert again.config == network.config
    assert all(t.is_floating_point() for t in network.state_dict().values())  # float16 holds no index above 2048
    x = image(network.config.patch)
    with torch.no_grad():
        expected, found = network(x), again(x)
    if dtype == "float32":
        assert torch.equal(found, expected)
    elif name != ROUGH:
        assert (found - expected).square().mean().sqrt() < 5e-3 * expected.std()


@pytest.fixture(scope="module")
def trained(phantom_dataset, tmp_path_factory):
    """A narrow UNETR after two steps: (its run folder, its package)."""
    root = tmp_path_factory.mktemp("baseline")
    config = small_config(phantom_dataset.folder, root / "cache", steps=2, network=NetworkChoice(name="unetr"))
    real = NetworkChoice.resolve
    with mock.patch.object(NetworkChoice, "resolve", lambda *inputs: replace(real(*inputs), width=1)):
        return root / "run", train(config, root / "run")


def test_a_trained_baseline_is_packaged_as_it_was(trained):
    run, package = trained
    model = load_package(package)
    assert model.manifest.network == BaselineConfig(name="unetr", patch=(32, 32, 32), width=1)
    assert model.manifest.inference.window == (32, 32, 32) and model.manifest.inference.pad_to_window
    averaged = load_checkpoint(run)[0]["averaged"]
    network = build_baseline(model.manifest.network).eval()
    network.load_state_dict({name.removeprefix("module."): t for name, t in averaged.items() if name != "n_averaged"})
    x = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(model.network(x), network(x))


def test_predict_takes_a_baseline(trained, phantom_cases, tmp_path, capsys):
    case = phantom_cases / "phantom-1"
    assert main(["predict", str(case), "--model", str(trained[1]), "--output", str(tmp_path), "--device", "cpu"]) == 0
    summary = json.loads((tmp_path / "phantom-1-summary.json").read_text())
    assert summary["model"] == "small" and summary["passes"] > 1
    assert (tmp_path / "phantom-1-seg.nii.gz").is_file()


def test_weights_of_another_baseline_are_refused_by_name(trained, tmp_path):
    manifest = read_manifest(trained[1])
    other = build_baseline(replace(manifest.network, width=2))
    with pytest.raises(InputError, match="describes another network"):
        save_package(tmp_path, other, manifest, "")
    save_package(tmp_path, other, replace(manifest, network=other.config), "")
    values = json.loads((tmp_path / "model.json").read_text())
    values["network"]["width"] = 1
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"tensors do not fit the 'unetr' network .* of another shape network\."):
        load_package(tmp_path)
    values["network"]["name"] = "unet"
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="unknown baseline 'unet'"):
        load_package(tmp_path)


# --- what is refused


@pytest.mark.parametrize("name", BASELINES)
def test_a_patch_that_does_not_fit_is_refused(name):
    stride = BASELINES[name].stride
    with pytest.raises(InputError, match=f"multiples of {stride}"):
        BaselineConfig(name=name, patch=(128, 128, 128 + stride // 2))
    with pytest.raises(InputError, match="three sides"):
        BaselineConfig(name=name, patch=(128, 128))
    if BASELINES[name].longest > stride:
        with pytest.raises(InputError, match=f"{BASELINES[name].longest} or more"):
            BaselineConfig(name=name, patch=(stride,) * 3)


@pytest.mark.parametrize("name", BASELINES)
def test_an_input_that_does_not_fit_is_refused(name):
    network = small(name)
    d, h, w = network.config.patch
    for shape in [(1, 2, d, h), (1, 3, d, h, w), (1, 2, d, h, w + 4), (1, 2, d, h, 0), (2, d, h, w)]:
        with pytest.raises(InputError, match=f"input of {name}"):
            network(torch.zeros(shape))


@pytest.mark.parametrize("name", ["segresnet", "uxnet", "mednext"])
def test_convolutions_take_other_sides_than_the_patch(name):
    network = small(name).eval()
    with torch.no_grad():
        assert network(image((32, 16, 32))).shape == (1, 3, 32, 16, 32)


@pytest.mark.parametrize("name", ["unetr", "nnformer", "umamba-enc"])
def test_position_encodings_take_the_patch_alone(name):
    with pytest.raises(InputError, match="made for"):
        small(name)(image((64, 64, 96)))


def test_what_is_no_baseline_is_refused():
    with pytest.raises(InputError, match="segresnet"):
        BaselineConfig(name="resnet")
    with pytest.raises(InputError, match="channels"):
        BaselineConfig(name="uxnet", in_channels=0)
    with pytest.raises(InputError, match="multiple of 12"):
        BaselineConfig(name="swinunetr", width=16)


def test_a_configuration_survives_plain_values():
    config = BaselineConfig(name="unetr", in_channels=3, out_channels=5, patch=(32, 64, 96))
    plain = {"name": "unetr", "in_channels": 3, "out_channels": 5, "patch": [32, 64, 96]}
    assert from_plain(BaselineConfig, plain, "test") == config
    assert math.prod(config.patch) == 32 * 64 * 96
