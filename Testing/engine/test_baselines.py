"""The networks of Table 1 as one kind: shapes, gradients, precision, what is refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from segmamba.errors import InputError
from segmamba.networks.baselines import BASELINES, BaselineConfig
from segmamba.networks.baselines.config import TRANSFORMERS
from segmamba.networks.choice import build, checkpoint_activations
from segmamba.networks.norm import use_instance_norm
from segmamba.networks.segmamba import NetworkConfig
from small_baselines import ROUGH, SMALL, image, small


def test_an_affine_norm_keeps_its_factors():
    torch.manual_seed(0)
    norm = torch.nn.Sequential(torch.nn.InstanceNorm3d(3, affine=True), torch.nn.InstanceNorm3d(3))
    torch.nn.init.normal_(norm[0].weight)
    torch.nn.init.normal_(norm[0].bias)
    x = torch.randn(2, 3, 4, 5, 6)
    expected = norm(x)
    torch.testing.assert_close(use_instance_norm(norm)(x), expected, rtol=1e-5, atol=1e-5)
    assert len(list(norm.parameters())) == 2


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
        together = network(x)
        torch.testing.assert_close(together[[2, 0, 1]], network(x[[2, 0, 1]]), **close)
        torch.testing.assert_close(together[1:2], network(x[1:2]), **close)


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


def test_without_einops_the_transformers_alone_cannot_be_built():
    lines = ["import sys", "sys.modules['einops'] = None", "from segmamba.errors import InputError"]
    lines += ["from small_baselines import SMALL, small", "for name in SMALL:", "    try: small(name)"]
    lines += ["    except InputError as error: print(name, error, sep=': ')"]
    place = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=place, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    names = [line.partition(":")[0] for line in found.stdout.splitlines()]
    assert sorted(names) == sorted(TRANSFORMERS) and found.stdout.count("pip install einops") == len(names)
