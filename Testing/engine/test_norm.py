"""The norm with its sum and nonlinearity: kernels and torch's words against one plain formula, and their gradients."""

import math

import pytest
import torch
from segmamba.networks import norm
from segmamba.networks.norm import Residual, cpu, instance_norm
from torch.utils.checkpoint import checkpoint

LAST = torch.channels_last_3d
AT = {
    "": Residual.NONE,
    "add": Residual.BEFORE_ACT,
    "add normed": Residual.NORMED_BEFORE_ACT,
    "add after": Residual.AFTER_ACT,
}
HOWS = tuple(AT)
SLOPES = (0.0, 0.01, 1.0)
# Channels that fill vectors of 4, 8 and 16 and that do not; grids of unequal sides, one tile and several.
SHAPES = [(1, 48, 6, 10, 14), (2, 24, 8, 6, 10), (2, 4, 12, 16, 20), (1, 5, 16, 4, 4), (2, 64, 2, 1, 2)]
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("SEGMAMBA_SCAN", raising=False)


def norm_act(x, slope, r=None, how="", reuse=False):
    return norm.norm_act(x, slope=slope, residual=r, residual_at=AT[how], reuse=reuse)


def by_definition(x, slope, r, how):
    def normed(x):
        centred = x - x.mean((2, 3, 4), keepdim=True)
        return centred / torch.sqrt((centred**2).mean((2, 3, 4), keepdim=True) + 1e-5)

    p = normed(x)
    if how in ("add", "add normed"):
        p = p + (r if how == "add" else normed(r))
    y = torch.where(p > 0, p, slope * p)
    return y + r if how == "add after" else y


def values(shape, how, dtype, layout=LAST, offset=3.0):
    """x, r (or None) and the gradient of y."""
    generator = torch.Generator().manual_seed(len(how))
    x, r, weight = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    cast = [(t.to(dtype).contiguous(memory_format=layout)) for t in (x + offset, 2 * r - 1, weight)]
    return [cast[0], cast[1] if how else None, cast[2]]


def passes(function, x, slope, r, how, weight):
    """Output and gradients."""
    x, r = (None if t is None else t.detach().clone().requires_grad_() for t in (x, r))
    y = function(x, slope, r, how)
    y.backward(weight)
    return [y.detach(), x.grad, *([r.grad] if how else [])]


def check(x, slope, r, how, weight, tolerance):
    got = passes(norm_act, x, slope, r, how, weight)
    exact = [None if t is None else t.double() for t in (x, r, weight)]
    expected = passes(by_definition, exact[0], slope, exact[1], how, exact[2])
    for name, a, b in zip(("y", "dx", "dr"), got, expected):
        assert a.dtype == x.dtype and a.shape == b.shape, name
        error = ((a.double() - b).abs().max() / b.abs().max()).item()
        assert error <= tolerance, f"{name}: {error:.1e}"
    return got


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_and_their_gradients(shape, how, dtype):
    for slope in SLOPES:
        x, r, weight = values(shape, how, dtype)
        assert cpu.fits(x, r)
        y, *_ = check(x, slope, r, how, weight, TOLERANCES[dtype])
        assert y.is_contiguous(memory_format=LAST)
        with torch.inference_mode():
            assert torch.equal(norm_act(x, slope, r, how), y)
            assert torch.equal(norm_act(x.clone(), slope, r, how, reuse=True), y)


def test_many_tiles(monkeypatch):
    """Short tiles and a last one that is shorter; what they are cut into changes nothing but the rounding."""
    x, r, weight = values((2, 24, 10, 12, 14), "add normed", torch.float32)
    whole = norm_act(x, 0.01, r, "add normed")
    monkeypatch.setattr(cpu, "TILE", 11 * 48 * 4)
    # A float32 sum of n terms errs by about sqrt(n) roundings of 2^-24, and with it a variance; half of that comes into
    # x^ and into r^, once for either order of the sums. n is up to all voxels: in wide vectors a row holds several.
    largest = sum(by_definition(t, 1.0, None, "").abs() for t in (x, r)).max().item()
    tolerance = math.sqrt(x[0, 0].numel()) * 2**-24 * largest
    torch.testing.assert_close(norm_act(x, 0.01, r, "add normed"), whole, rtol=0, atol=tolerance)
    check(x, 0.01, r, "add normed", weight, 2e-6)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("shape", "dtype", "layout"),
    [
        ((2, 6, 4, 6, 10), torch.float32, torch.contiguous_format),
        ((1, 5, 3, 5, 7), torch.float32, LAST),  # 105 voxels make no rows of whole vectors
        ((2, 6, 4, 6, 10), torch.float64, LAST),
    ],
    ids=["layout", "odd", "float64"],
)
def test_what_the_kernels_do_not_take_is_the_same(how, shape, dtype, layout):
    for slope in SLOPES:
        x, r, weight = values(shape, how, dtype, layout)
        assert not cpu.fits(x, r)
        check(x, slope, r, how, weight, 2e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("how", HOWS)
def test_other_layouts_of_r_and_of_the_gradient(how):
    x, r, weight = values((2, 16, 6, 4, 10), how, torch.float32)
    r = None if r is None else r.contiguous()
    check(x, 0.01, r, how, weight.contiguous(), 2e-6)
    check(x, 0.01, None if r is None else r.transpose(2, 4).contiguous().transpose(2, 4), how, weight, 2e-6)
    every_second = torch.randn(2, 32, 6, 4, 10).contiguous(memory_format=LAST)[:, ::2]
    check(every_second, 0.01, r, how, weight, 2e-6)
    with torch.inference_mode():
        torch.testing.assert_close(
            norm_act(x[:, :, 1:5], 0.0, None if r is None else r[:, :, 1:5], how),
            by_definition(x[:, :, 1:5], 0.0, None if r is None else r[:, :, 1:5], how),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("how", HOWS)
def test_gradcheck(how):
    x, r, _ = values((2, 3, 2, 3, 4), how, torch.float64)
    leaves = [t.requires_grad_() for t in (x, r) if t is not None]
    assert torch.autograd.gradcheck(lambda x, r=None: norm_act(x, 0.2, r, how), leaves)


def test_far_from_zero_and_nearly_empty():
    """Where naive float32 sums fail: a mean of 1000 standard deviations; a few voxels that hold all the energy."""
    x, r, weight = values((1, 16, 40, 24, 32), "add", torch.float32, offset=1000.0)
    check(x, 0.01, r, "add", weight, 1e-4)
    x = torch.zeros(1, 16, 40, 24, 32).normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    x[..., :2, :3, :2] += 50
    check(x.contiguous(memory_format=LAST), 1.0, None, "", weight, 2e-6)


def test_the_input_is_left_alone_unless_it_may_be_reused():
    x, r, _ = values((1, 16, 6, 4, 10), "add", torch.float32)
    kept = x.clone()
    with torch.no_grad():
        norm_act(x, 0.01, r, "add")
        assert torch.equal(x, kept)
        assert norm_act(x, 0.01, r, "add", reuse=True).data_ptr() == x.data_ptr()
    leaf = kept.clone().requires_grad_()
    norm_act(leaf, 0.01, r, "add", reuse=True)
    assert torch.equal(leaf, kept)  # a gradient is wanted, and needs it


def test_nan_and_infinity_stay_visible():
    for dtype in TOLERANCES:
        for bad in (float("nan"), float("inf")):
            x, _, _ = values((1, 16, 4, 4, 4), "", dtype)
            x[0, 3, 1, 2, 3] = bad
            y = norm_act(x, 0.01)
            assert y[0, 3].isnan().all() and y[0, 4:].isfinite().all()


def test_mixed_precision_becomes_the_wider_type():
    x, r, _ = values((1, 16, 6, 4, 10), "add", torch.float32)
    got = norm_act(x.bfloat16(), 0.01, r, "add")
    assert got.dtype == torch.float32
    expected = by_definition(x.bfloat16().double(), 0.01, r.double(), "add")
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_rounding_to_bfloat16_is_torchs():
    """One tile, so that the sums in both types are the same."""
    x, _, _ = values((1, 16, 8, 16, 16), "", torch.bfloat16)
    exact = norm_act(x.float(), 1.0)
    with torch.no_grad():
        assert torch.equal(norm_act(x, 1.0), exact.bfloat16())


def test_the_number_of_threads_changes_no_bit():
    x, r, weight = values((1, 24, 16, 20, 24), "add normed", torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(passes(norm_act, x, 0.01, r, "add normed", weight))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_checkpointing_gives_the_same_gradient():
    x, r, weight = values((2, 16, 6, 4, 10), "add", torch.float32)
    plain = passes(norm_act, x, 0.01, r, "add", weight)
    saved = passes(lambda *inputs: checkpoint(norm_act, *inputs, use_reentrant=False), x, 0.01, r, "add", weight)
    assert all(torch.equal(a, b) for a, b in zip(plain, saved))


def test_without_the_scans_kernels_torch_takes_over(monkeypatch):
    x, r, weight = values((2, 16, 6, 4, 10), "add normed", torch.float32)
    monkeypatch.setenv("SEGMAMBA_SCAN", "torch")
    assert not cpu.fits(x, r)
    check(x, 0.01, r, "add normed", weight, TOLERANCES[torch.float32])


def test_the_plain_norm_is_the_case_without_anything_else():
    x, _, _ = values((2, 24, 8, 6, 10), "", torch.float32)
    torch.testing.assert_close(instance_norm(x), by_definition(x, 1.0, None, ""), rtol=1e-5, atol=1e-5)
    assert torch.equal(norm.InstanceNorm()(x), instance_norm(x))
