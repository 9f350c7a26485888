"""Convolutions of inputs side by side against F.conv3d in float64, and the blocks against MONAI's."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from segmamba.networks.conv import convolution, pointwise
from segmamba.networks.unet import BasicBlock, OutBlock, UpBlock
from torch import nn

pytestmark = pytest.mark.usefixtures("same_weights")

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last_3d}


def inputs_of(channels, layout, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, c, 6, 4, 10) for c in channels]
    return [torch.randn(s, generator=generator).to(dtype).contiguous(memory_format=LAYOUTS[layout]) for s in shapes]


def passes(function, inputs, conv):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    conv.zero_grad()
    y = function(inputs, conv)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    y.backward(weight)
    return [y.detach(), *(x.grad for x in inputs), *(p.grad.clone() for p in conv.parameters())]


def plainly(inputs, conv):
    x = torch.cat([x.double() for x in inputs], dim=1)
    bias = None if conv.bias is None else conv.bias.double()
    return F.conv3d(x, conv.weight.double(), bias, padding=conv.padding)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("channels", [(5,), (3, 4), (2, 1, 5)], ids=str)
@pytest.mark.parametrize(("function", "kernel"), [(pointwise, 1), (convolution, 3)], ids=["pointwise", "convolution"])
def test_convolutions_and_their_gradients(function, kernel, channels, bias, batch, layout):
    torch.manual_seed(0)
    conv = nn.Conv3d(sum(channels), 6, kernel, padding=kernel // 2, bias=bias)
    conv = conv.to(memory_format=LAYOUTS[layout])
    inputs = inputs_of(channels, layout, batch)
    expected = passes(plainly, inputs, conv)
    for got, want in zip(passes(function, inputs, conv), expected):
        torch.testing.assert_close(got.double(), want.double(), rtol=1e-5, atol=1e-5 * want.abs().max().item())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y = function(inputs, conv)
        torch.testing.assert_close(y.double(), expected[0], rtol=1e-5, atol=1e-5)
        if layout == "channels last" and batch == 2:
            assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("function", "kernel"), [(pointwise, 1), (convolution, 3)], ids=["pointwise", "convolution"])
@pytest.mark.parametrize("gradient", [False, True])
def test_autocast_rounds_as_torch_does(function, kernel, gradient):
    conv = nn.Conv3d(8, 6, kernel, padding=kernel // 2)
    inputs = inputs_of((5, 3), "channels last")
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradient):
        got, plain = function(inputs, conv), conv(torch.cat(inputs, dim=1))
    assert got.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(got, plain, rtol=2e-2, atol=2e-2)


def test_float64_and_a_float64_network_keep_their_type():
    conv = nn.Conv3d(7, 6, 3, padding=1).double()
    inputs = inputs_of((3, 4), "channels last", dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(convolution(inputs, conv), plainly(inputs, conv), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient", [False, True])
def test_the_blocks_are_monais(layout, gradient):
    """Names of parameters, initial values for a seed, outputs and gradients."""
    settings = {"kernel_size": 3, "norm_name": "instance", "res_block": True}
    pairs = [
        (BasicBlock(5, 8), UnetrBasicBlock(3, 5, 8, stride=1, **settings), (5,)),
        (BasicBlock(8, 8), UnetrBasicBlock(3, 8, 8, stride=1, **settings), (8,)),
        (OutBlock(8, 3), UnetOutBlock(3, 8, 3), (8,)),
    ]
    for block, monai, channels in pairs:
        compare(block, monai, inputs_of(channels, layout), layout, gradient)
    x, skip = inputs_of((8, 4), layout)
    x = x[:, :, ::2, ::2, ::2].contiguous(memory_format=LAYOUTS[layout])
    compare(UpBlock(8, 4), UnetrUpBlock(3, 8, 4, upsample_kernel_size=2, **settings), [x, skip], layout, gradient)


def compare(block, monai, inputs, layout, gradient):
    assert {n: p.shape for n, p in block.named_parameters()} == {n: p.shape for n, p in monai.named_parameters()}
    block.load_state_dict(monai.state_dict())
    block, monai = block.to(memory_format=LAYOUTS[layout]), monai.double()
    with torch.set_grad_enabled(gradient):
        got, expected = block(*inputs), monai(*(x.double() for x in inputs))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    if gradient:
        (got**2).mean().backward()
        (expected**2).mean().backward()
        for (name, a), b in zip(block.named_parameters(), monai.parameters()):
            assert (a.grad - b.grad).norm() <= 1e-4 * b.grad.norm(), name


def test_the_blocks_start_as_monais_do():
    for make, monai in (
        (lambda: UpBlock(8, 4), lambda: UnetrUpBlock(3, 8, 4, 3, 2, "instance", res_block=True)),
        (lambda: BasicBlock(5, 8), lambda: UnetrBasicBlock(3, 5, 8, 3, 1, "instance", res_block=True)),
    ):
        states = []
        for factory in (make, monai):
            torch.manual_seed(4)
            states.append(factory().state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_a_pointwise_convolution_takes_the_room_it_is_given(bias):
    inputs = inputs_of((3, 4), "channels last")
    conv = nn.Conv3d(7, 6, 1, bias=bias)
    room = torch.full((2, 6, 6, 4, 10), float("nan")).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        expected = pointwise(inputs, conv)
        y = pointwise(inputs, conv, room)
        unfit = room.contiguous()
        other = pointwise(inputs, conv, unfit)
    assert y.data_ptr() == room.data_ptr() and other.data_ptr() != unfit.data_ptr()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other, expected, rtol=1e-6, atol=1e-6)
    y = pointwise(inputs, conv, room)  # a gradient may be asked for: what is in the room may be needed again
    assert y.data_ptr() != room.data_ptr() and y.requires_grad
