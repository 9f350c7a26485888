"""Transposed convolutions against F.conv_transpose3d in float64, when they are taken, and a block with one."""

import pytest
import torch
import torch.nn.functional as F
from segmamba.networks import transposed
from segmamba.networks.conv import transposed_convolution
from segmamba.networks.unet import UpBlock
from torch import nn

GRID = (9, 7, 11)  # 693 voxels: no multiple of a block, nor of the rows of a product


def input_of(channels, grid=GRID, batch=1):
    x = torch.randn((batch, channels, *grid), generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last_3d)


def conv_of(channels, out, bias=False, **settings):
    torch.manual_seed(0)
    settings = {"kernel_size": 2, "stride": 2, **settings}
    return nn.ConvTranspose3d(channels, out, bias=bias, **settings).requires_grad_(False)


def check(channels, out, bias=False, layout=torch.channels_last_3d, **settings):
    x, conv = input_of(channels, **settings), conv_of(channels, out, bias).to(memory_format=layout)
    assert transposed.fits(x, conv)
    got = transposed.convolution(x, conv)
    expected = F.conv_transpose3d(x.double(), conv.weight.double(), conv.bias.double() if bias else None, stride=2)
    assert got.dtype == torch.float32 and got.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("channels", "out"), [(8, 16), (24, 16), (48, 24), (96, 48), (64, 64), (16, 80)], ids=str)
def test_it_is_the_transposed_convolution(channels, out, bias, layout):
    check(channels, out, bias, layout)


def test_other_grids_and_batches():
    check(16, 32, batch=2, bias=True)
    check(16, 32, grid=(1, 1, 515))
    check(16, 32, grid=(8, 64, 1))


def test_the_number_of_threads_changes_no_bit():
    x, conv = input_of(16, batch=2), conv_of(16, 48)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 100):
            torch.set_num_threads(threads)
            results.append(transposed.convolution(x, conv))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results[:2]) and torch.equal(*results[1:])


def test_weights_that_change_in_place_are_seen():
    x, conv = input_of(16), conv_of(16, 16)
    once = transposed.convolution(x, conv)
    conv.weight *= 2
    assert torch.equal(transposed.convolution(x, conv), 2 * once)


REFUSED = {
    "stride": {"stride": 1},
    "dilation": {"dilation": 2},
    "padding": {"padding": 1},
    "output padding": {"output_padding": 1},
    "groups": {"groups": 2},
    "kernel": {"kernel_size": 3},
    "uneven kernel": {"kernel_size": (1, 2, 2)},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
def test_other_convolutions_are_left_to_torch(settings):
    x, conv = input_of(16), conv_of(16, 32, **settings)
    assert not transposed.fits(x, conv)
    assert torch.equal(transposed_convolution(x, conv), conv(x))


def test_other_tensors_are_left_to_torch(monkeypatch):
    x, conv = input_of(16), conv_of(16, 16)
    assert transposed.fits(x, conv)
    assert not transposed.fits(x.contiguous(), conv)
    assert not transposed.fits(x[0], conv)
    assert not transposed.fits(input_of(16, grid=(7, 7, 10)), conv)  # few voxels
    assert not transposed.fits(input_of(12), conv_of(12, 16))
    assert not transposed.fits(x, conv_of(16, 10))
    assert not transposed.fits(input_of(24), conv)  # not its channels: torch says so
    assert not transposed.fits(x.double(), conv_of(16, 16).double())
    assert not transposed.fits(x.bfloat16(), conv_of(16, 16).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not transposed.fits(x, conv)
    monkeypatch.setenv("SEGMAMBA_SCAN", "torch")
    assert not transposed.fits(x, conv)


def test_gradients_are_those_of_torch():
    """Where one is asked for, of the input or of the weights alone, torch's convolution is run and records it."""
    x, conv = input_of(16), conv_of(16, 16).requires_grad_()
    assert not transposed.fits(x, conv) and transposed_convolution(x, conv).requires_grad
    conv.requires_grad_(False)
    x.requires_grad_()
    assert not transposed.fits(x, conv) and transposed_convolution(x, conv).requires_grad
    with torch.no_grad():
        assert transposed.fits(x, conv)


@torch.inference_mode()
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format], ids=str)
def test_a_block_gives_the_same_with_and_without(layout, monkeypatch):
    torch.manual_seed(0)
    block = UpBlock(32, 16).eval()
    x, skip = input_of(32, (8, 8, 8)), input_of(16, (16, 16, 16)).contiguous(memory_format=layout)
    taken, run = [], transposed.convolution
    monkeypatch.setattr(transposed, "convolution", lambda *given: taken.append(1) or run(*given))
    got = block(x, skip)
    monkeypatch.setattr(transposed, "fits", lambda *given: False)
    plain = block(x, skip)
    assert len(taken) == 1
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-5 * plain.abs().max().item())
