"""Every formula of the network against plain float64 loops (network_oracles), and every gradient by gradcheck."""

from itertools import combinations

import network_oracles as oracles
import numpy as np
import pytest
import torch
from segmamba.networks.blocks import (
    ChannelLayerNorm,
    ChannelMLP,
    GatedSpatialConv,
    GatedSpatialConvProduct,
    MambaLayer,
    TSMambaBlock,
    feature_uncertainty,
)
from segmamba.networks.mamba import DIRECTIONS, TriMamba
from segmamba.networks.norm import instance_norm
from segmamba.networks.presets import build_network
from segmamba.networks.scan.orders import index_map, unwalk, walk
from torch.autograd import gradcheck

pytestmark = pytest.mark.usefixtures("same_weights")

GRIDS = [(2, 3, 5), (5, 2, 3), (3, 1, 4), (1, 4, 3)]
SUBSETS = [names for n in (1, 2, 3) for names in combinations(DIRECTIONS, n)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(module, seed=1):
    """float64, every parameter moved away from its initial value: no two directions alike, no norm an identity."""
    module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def check(module, oracle, x, tolerance=1e-12):
    with torch.no_grad():
        got = module(x).numpy()
    expected = oracle(x.numpy(), module.state_dict())
    assert np.abs(expected - x.numpy()).max() > 0.1 if expected.shape == x.shape else np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


# --- ToM


@pytest.mark.parametrize("directions", SUBSETS, ids="-".join)
def test_tri_mamba_in_every_choice_of_directions(directions):
    grid = (2, 3, 5)
    module = shaken(TriMamba(3, directions))
    tokens = random(2, 30, 3)
    with torch.no_grad():
        got = module(tokens, slices=2).numpy()
    expected = oracles.tri_mamba(tokens.numpy(), module.state_dict(), grid, directions)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tri_mamba_on_grids_of_every_orientation(grid):
    module = shaken(TriMamba(18))  # rank of dt: 2
    tokens = random(1, np.prod(grid), 18)
    expected = oracles.tri_mamba(tokens.numpy(), module.state_dict(), grid)
    with torch.no_grad():
        got = module(tokens, slices=grid[0]).numpy()
        single = module.float()(tokens.float(), slices=grid[0]).numpy()  # the fast back end
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_direction_visits_the_tokens_in_its_order_and_puts_them_back(grid, direction):
    length = int(np.prod(grid))
    tokens = torch.arange(length).reshape(1, length, 1).expand(2, -1, 3)
    walked = walk(tokens, direction, grid[0])
    order = [(s * grid[1] + h) * grid[2] + w for s, h, w in oracles.walk(grid, direction)]
    assert walked[1, :, 2].tolist() == order
    assert torch.equal(unwalk(walked, direction, grid[0]), tokens)
    period, stride, step, first = index_map(direction, length, grid[0])
    assert [first + t % period * stride + t // period * step for t in range(length)] == order


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_change_in_one_voxel_reaches_exactly_the_voxels_that_come_later(direction):
    """The "slices" scan really walks through the slices: S comes from the first axis of the grid itself."""
    grid, place = (3, 2, 4), (1, 1, 2)
    layer = shaken(MambaLayer(4, (direction,), residual=False))
    x = random(1, 4, *grid)
    changed = x.clone()
    changed[(0, slice(None), *place)] += random(4, seed=5)
    with torch.no_grad():
        differs = (layer(x) - layer(changed)).abs().amax(dim=(0, 1)) > 1e-14
    order = oracles.walk(grid, direction)
    later = order[order.index(place) :]
    assert {tuple(p) for p in differs.nonzero().tolist()} == set(later)


# --- blocks


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_mamba_layer_with_and_without_its_input_added(grid, residual):
    layer = shaken(MambaLayer(4, residual=residual))
    check(layer, lambda x, state: oracles.mamba_layer(x, state, residual), random(2, 4, *grid))


def test_gated_spatial_convolution_as_published_adds_its_branches():
    check(shaken(GatedSpatialConv(3)), oracles.gsc_sum, random(2, 3, 3, 4, 5))


def test_gated_spatial_convolution_of_the_paper_multiplies_its_branches():
    check(shaken(GatedSpatialConvProduct(3)), oracles.gsc_product, random(2, 3, 3, 4, 5))


def test_channel_mlp_with_the_exact_gelu():
    check(shaken(ChannelMLP(3, ratio=2)), oracles.mlp, 2 * random(2, 3, 2, 3, 4))


def test_channel_layer_norm():
    x = 1e-3 * random(2, 3, 2, 3, 4)  # small, so that eps is seen
    check(shaken(ChannelLayerNorm(3)), lambda x, state: oracles.channel_norm(x, state, 1e-6), x)


def test_tri_orientated_spatial_mamba_block_of_the_paper():
    check(shaken(TSMambaBlock(4)), oracles.ts_mamba, random(1, 4, 3, 2, 5))


def test_feature_uncertainty():
    z = 3 * random(2, 3, 2, 3, 4)
    np.testing.assert_allclose(feature_uncertainty(z).numpy(), oracles.uncertainty(z.numpy()), rtol=1e-13)


def test_feature_uncertainty_of_large_features_is_finite():
    """sigmoid underflows to 0 below -104 in float32; 0 log 0 would be NaN, forward and backward."""
    z = torch.tensor([-1e4, -150.0, -90.0, 0.0, 90.0, 1e4]).reshape(1, 1, 1, 2, 3).requires_grad_()
    out = feature_uncertainty(z)
    out.sum().backward()
    assert torch.isfinite(z.grad).all()
    expected = torch.tensor([-2e4, -300.0, -180.0, 0.0, 180.0, 2e4])  # certain either way: z + z
    torch.testing.assert_close(out.detach().flatten(), expected)


# --- whole networks

FORMS = {
    "released": {"directions": ("forward", "reverse", "slices"), "depths": (1, 2, 0, 1)},
    "paper": {"directions": ("forward", "reverse", "slices"), "depths": (1, 1, 2, 1)},
    "v1": {"directions": ("forward", "reverse"), "depths": (2, 1, 1, 1)},
    "v1-text": {"directions": ("forward", "reverse"), "depths": (1, 2, 1, 1)},
}


@pytest.mark.parametrize("form", FORMS)
def test_whole_network_put_together_again_from_its_weights(form):
    narrow = {"features": (4, 6, 6, 8), "full_features": 5, "bottleneck": 7, "in_channels": 2, "out_channels": 3}
    network = shaken(build_network(form, **narrow, **FORMS[form]))
    x = random(1, 2, 32, 16, 48)
    groups = 2 if form in ("paper", "v1-text") else 1  # the texts' stem is "depth-wise"
    with torch.no_grad():
        got = network(x)
        expected = oracles.network(x, network.state_dict(), form, groups=groups, **FORMS[form])
    assert got.shape == (1, 3, 32, 16, 48)
    assert (got - expected).abs().max() < 1e-9 * expected.abs().max()


# --- gradients


def gradients_hold(module, x, *arguments):
    """gradcheck of a module in its input and in every parameter."""
    names, values = zip(*((name, p.detach().clone().requires_grad_()) for name, p in module.named_parameters()))

    def function(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values)), (x, *arguments))

    assert gradcheck(lambda x: module(x, *arguments), (x.requires_grad_(),), eps=1e-6, atol=1e-7, rtol=1e-5)
    assert gradcheck(function, (x, *values), fast_mode=True, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("directions", [("forward",), ("reverse",), ("slices",), tuple(DIRECTIONS)], ids="-".join)
def test_gradients_of_tri_mamba(directions):
    gradients_hold(shaken(TriMamba(2, directions)), random(1, 12, 2), 2)


def test_gradients_of_both_gated_spatial_convolutions():
    for block in (GatedSpatialConv, GatedSpatialConvProduct):
        gradients_hold(shaken(block(2)), random(2, 2, 2, 3, 4, seed=3))


def test_gradients_of_the_other_blocks():
    gradients_hold(shaken(MambaLayer(2)), random(1, 2, 2, 1, 3))
    gradients_hold(shaken(ChannelMLP(2, ratio=2)), random(1, 2, 2, 1, 3))
    gradients_hold(shaken(ChannelLayerNorm(3)), random(1, 3, 2, 1, 3))
    gradients_hold(shaken(TSMambaBlock(2)), random(1, 2, 3, 2, 4, seed=3))


def test_gradients_of_norm_and_uncertainty():
    for batch in (1, 2):
        x = random(batch, 2, 2, 3, 4).requires_grad_()
        assert gradcheck(instance_norm, (x,))
        assert gradcheck(instance_norm, (x.detach().to(memory_format=torch.channels_last_3d).requires_grad_(),))
        assert gradcheck(feature_uncertainty, (x,))
