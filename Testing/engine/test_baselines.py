"""The networks of Table 1 as one kind: sizes, shapes, gradients, precision, what is refused."""

import math
from itertools import pairwise

import pytest
import torch
from segmamba.baselines import BASELINES, BaselineConfig, build_baseline
from segmamba.baselines.nnformer import NNFormer
from segmamba.baselines.uxnet import UXNet
from segmamba.errors import InputError
from segmamba.settings import build as from_plain

# narrow ones, on a crop that is the smallest or nearly so, no two sides alike where the stride allows
SMALL = {
    "segresnet": {"width": 8, "patch": (16, 24, 8)},
    "uxnet": {"width": 4, "patch": (16, 32, 48)},
    "mednext": {"width": 4, "patch": (16, 32, 48)},
    "unetr": {"width": 2, "patch": (16, 32, 48)},
    "swinunetr": {"width": 12, "patch": (32, 64, 32)},
    "swinunetr-v2": {"width": 12, "patch": (32, 64, 32)},
    "nnformer": {"width": 32, "patch": (32, 64, 32)},
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
    network = small(name).train()
    x = image(network.config.patch)
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


@pytest.mark.parametrize("name", BASELINES)
def test_bf16_autocast_gives_nearly_the_same(name):
    network = small(name).eval().requires_grad_(False)  # weight gradients in bf16 on a small depth: oneDNN is wrong
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
    with torch.no_grad():
        torch.testing.assert_close(network(x)[[2, 0, 1]], network(x[[2, 0, 1]]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("name", ["unetr", "nnformer"])
def test_position_encodings_take_the_patch_alone(name):
    with pytest.raises(InputError, match="made for"):
        small(name)(image((64, 64, 64)))


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
