"""Sizes of the networks of Table 1: published counts, to their last digit, and counts by hand."""

from itertools import pairwise

import pytest
import torch
from segmamba.networks.baselines import BaselineConfig, build_baseline
from segmamba.networks.baselines.nnformer import NNFormer
from segmamba.networks.baselines.uxnet import UXNet
from small_baselines import count


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
