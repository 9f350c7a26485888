"""Winograd's 3x3x3 convolutions against F.conv3d in float64, when they are taken, and a network with them."""

import pytest
import torch
import torch.nn.functional as F
from segmamba.networks import winograd
from segmamba.networks.conv import convolution
from segmamba.networks.presets import build_network
from torch import nn

GRID = (13, 24, 22)  # 4 x 6 x 6 tiles, of which some stand over


def inputs_of(channels, grid=GRID, batch=1, mean=0.0):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, c, *grid) for c in channels]
    return [
        (torch.randn(s, generator=generator) + mean).contiguous(memory_format=torch.channels_last_3d) for s in shapes
    ]


def conv_of(channels, out, bias=True, **settings):
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "padding": 1, **settings}
    return nn.Conv3d(sum(channels), out, bias=bias, **settings).requires_grad_(False)


def check(channels, out, bias=True, **settings):
    inputs, conv = inputs_of(channels, **settings), conv_of(channels, out, bias)
    assert winograd.fits(inputs, conv)
    got = winograd.convolution(inputs, conv)
    weight, bias = conv.weight.double(), conv.bias.double() if bias else None
    expected = F.conv3d(torch.cat(inputs, dim=1).double(), weight, bias, padding=1)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert got.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("channels", "out"), [((16,), 16), ((48,), 96), ((16, 32), 48), ((96, 16), 80)], ids=str)
def test_it_is_the_convolution(channels, out):
    check(channels, out)


def test_other_grids_batches_and_means():
    check((16,), 32, bias=False, batch=2)
    check((16, 16), 32, grid=(3, 48, 45), mean=5.0)
    check((32,), 16, grid=(20, 24, 24))


def test_of_two_inputs_one_may_have_its_channels_first():
    inputs, conv = inputs_of((16, 32)), conv_of((16, 32), 16)
    expected = winograd.convolution(inputs, conv)
    mixed = [inputs[0].contiguous(), inputs[1]]
    assert winograd.fits(mixed, conv) and not mixed[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(winograd.convolution(mixed, conv), expected)


def test_the_number_of_threads_changes_no_bit():
    inputs, conv = inputs_of((16, 16), grid=(24, 24, 24)), conv_of((16, 16), 48)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(winograd.convolution(inputs, conv))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_weights_that_change_in_place_are_seen():
    inputs, conv = inputs_of((16,)), conv_of((16,), 16, bias=False)
    once = winograd.convolution(inputs, conv)
    conv.weight *= 2
    assert torch.equal(winograd.convolution(inputs, conv), 2 * once)


REFUSED = {
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "padding": 2},
    "padding": {"padding": 0},
    "reflection": {"padding_mode": "reflect"},
    "groups": {"groups": 2},
    "kernel": {"kernel_size": 1, "padding": 0},
    "uneven kernel": {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)},
    "same": {"padding": "same"},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
def test_other_convolutions_are_left_to_onednn(settings):
    assert not winograd.fits(inputs_of((16,)), conv_of((16,), 32, **settings))


def test_other_tensors_are_left_to_onednn(monkeypatch):
    inputs, conv = inputs_of((16,)), conv_of((16,), 16)
    assert winograd.fits(inputs, conv)
    assert not winograd.fits([inputs[0].contiguous()], conv)
    assert not winograd.fits(inputs_of((16,), grid=(12, 12, 12)), conv)  # few tiles
    assert not winograd.fits(inputs_of((16,), grid=(1, 64, 64)), conv)  # most of each is outside
    assert not winograd.fits(inputs_of((10, 6)), conv)
    assert not winograd.fits(inputs_of((16,)), conv_of((16,), 10))
    assert not winograd.fits(inputs_of((16,) * 3), conv_of((16,) * 3, 16))
    assert not winograd.fits([inputs[0].double()], conv_of((16,), 16).double())
    assert not winograd.fits([inputs[0].bfloat16()], conv_of((16,), 16).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.fits(inputs, conv)
    monkeypatch.setenv("SEGMAMBA_SCAN", "torch")
    assert not winograd.fits(inputs, conv)
    assert winograd.rule().startswith("oneDNN")


def test_gradients_are_those_of_torch():
    """Where one is asked for, of the input or of the weights alone, torch's convolution is run and records it."""
    inputs, conv = inputs_of((16,)), conv_of((16,), 16).requires_grad_()
    assert not winograd.fits(inputs, conv)
    convolution(inputs, conv).square().mean().backward()
    got = conv.weight.grad.clone()
    conv.zero_grad()
    conv(inputs[0]).square().mean().backward()
    torch.testing.assert_close(got, conv.weight.grad)
    conv.requires_grad_(False)
    x = inputs[0].requires_grad_()
    assert not winograd.fits([x], conv) and convolution([x], conv).requires_grad
    with torch.no_grad():
        assert winograd.fits([x], conv)


@torch.inference_mode()
def test_a_network_gives_the_same_with_and_without(monkeypatch):
    torch.manual_seed(0)
    sizes = {"features": (16, 32, 32, 32), "full_features": 16, "bottleneck": 32, "depths": (1, 1, 1, 1)}
    network = build_network("released", **sizes).eval().to(memory_format=torch.channels_last_3d)
    (x,) = inputs_of((4,), grid=(32, 48, 48))
    taken, run = [], winograd.convolution
    monkeypatch.setattr(winograd, "convolution", lambda *given: taken.append(1) or run(*given))
    got = network(x)
    assert len(taken) == 11  # five on the input's own grid, where one more has four channels, and six on the next
    monkeypatch.setattr(winograd, "fits", lambda *given: False)
    plain = network(x)
    assert len(taken) == 11
    assert (got - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert (got.argmax(1) == plain.argmax(1)).float().mean() >= 0.9999
