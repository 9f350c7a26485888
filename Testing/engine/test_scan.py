"""The selective scan and the causal convolution: every back end against the float64 loop, both passes.

The loop ("reference") is the definition written down; mamba-ssm's own and torch's convolution check it.
"""

import ast
import contextlib
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scan_inputs import NAMES, assert_close, doubles, inputs, run
from segmamba.networks.scan import causal_conv1d_silu, chunked, cuda, selective_scan
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("SEGMAMBA_SCAN", raising=False)


@pytest.fixture
def threads():
    """Sets the number of torch's threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# --- the scan against the definition


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("batch", "length", "d", "gate"),
    [
        (1, 1, 96, True),
        (3, 2, 5, True),
        (2, 7, 12, False),
        (2, 63, 96, True),
        (3, 65, 5, False),
        (1, 257, 12, True),
        (2, 257, 96, False),
        (1, 1000, 96, True),
    ],
)
def test_scan_and_all_its_gradients(backend, batch, length, d, gate):
    values = inputs(batch, length, d, gate=gate)
    expected = run(selective_scan, doubles(values), "reference")
    assert_close(run(selective_scan, values, backend), expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("states", [1, 5, 16, 17, 40])
def test_any_number_of_states(backend, states):
    values = inputs(2, 71, 20, states=states)
    expected = run(selective_scan, doubles(values), "reference")
    assert_close(run(selective_scan, values, backend), expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("shift", [-30.0, -8.0, 6.0, 19.0, 25.0, 100.0])
def test_small_and_large_steps(backend, shift):
    values = inputs(1, 131, 12)
    values[1] = values[1] + shift
    expected = run(selective_scan, doubles(values), "reference")
    got = run(selective_scan, values, backend)
    assert all(torch.isfinite(x).all() for x in got)
    assert_close(got, expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_memory_of_thousands_of_tokens(backend):
    values = inputs(1, 4000, 8, states=4, dt=1e-3)
    values[2] = values[2] * 0.1  # the slowest states forget over ten thousand tokens
    expected = run(selective_scan, doubles(values), "reference")
    assert_close(run(selective_scan, values, backend), expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_states_that_grow_are_still_right(backend):
    values = inputs(1, 40, 8)
    values[2] = -0.2 * values[2]
    expected = run(selective_scan, doubles(values), "reference")
    assert_close(run(selective_scan, values, backend), expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_inputs_may_be_views(backend):
    u, delta, A, B, C, D, bias, z = inputs(2, 70, 24)
    xz = torch.cat([u, z], dim=-1)
    bc = torch.cat([B, C], dim=-1)
    views = [
        xz[..., :24],
        delta.transpose(1, 2).contiguous().transpose(1, 2),  # channels not side by side
        A.T.contiguous().T,
        bc[..., :16],
        bc[..., 16:],
        D.expand(3, 24)[1],
        bias,
        xz[..., 24:],
    ]
    expected = run(selective_scan, doubles([u, delta, A, B, C, D, bias, z]), "reference")
    y = selective_scan(*views, backend=backend)
    assert_close([y], expected[:1], ["y"])
    grown = [x.flip(1) if x.ndim == 3 else x for x in views]
    assert_close(
        [selective_scan(*grown, backend=backend)],
        [selective_scan(*doubles(grown), backend="reference")],
        ["flipped"],
    )


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_nan_stays_in_its_channel_and_its_future(backend):
    values = inputs(1, 200, 32)
    values[0][0, 90, 5] = float("nan")
    y = selective_scan(*values, backend=backend)
    assert torch.isnan(y[0, 90:, 5]).all()
    y[0, 90:, 5] = 0.0
    assert torch.isfinite(y).all()


def test_gradients_by_finite_differences_in_float64(monkeypatch):
    monkeypatch.setitem(chunked.SEGMENT_VALUES, "cpu", 1)  # segments of 16 tokens: two whole ones and a tail
    for gate in (True, False):
        values = inputs(2, 37, 3, states=2, gate=gate, dtype=torch.float64)
        leaves = [None if x is None else x.requires_grad_() for x in values]
        assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, backend="torch"), leaves)
        # the CPU kernels have no float64: asked for by name, they hand it on
        assert torch.equal(selective_scan(*values, backend="cpu"), selective_scan(*values, backend="torch"))


@pytest.mark.parametrize("segment_values", [1, 3000, 1 << 20])
def test_segments_do_not_show(monkeypatch, segment_values):
    monkeypatch.setitem(chunked.SEGMENT_VALUES, "cpu", segment_values)
    values = inputs(2, 101, 6)
    expected = run(selective_scan, doubles(values), "reference")
    assert_close(run(selective_scan, values, "torch"), expected, ("y", *NAMES))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_half_precision_and_autocast(backend):
    """bfloat16 comes in and goes out, sums inside are float32: only the output's rounding is left."""
    values = inputs(2, 300, 24)
    half = [x.bfloat16() if x.ndim == 3 else x for x in values]
    expected = run(selective_scan, doubles(half), "reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(selective_scan, half, backend)
    assert got[0].dtype == torch.bfloat16
    assert [g.dtype for g in got[1:]] == [x.dtype for x in half]
    assert_close(got, expected, ("y", *NAMES), tolerance=2**-7)


# --- memory, determinism, threads


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.size = max(self.size, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_memory_is_bounded():
    batch, length, d = 1, 4096, 32
    values = inputs(batch, length, d)
    with Largest() as largest, torch.no_grad():
        selective_scan(*values, backend="cpu")
    assert largest.size <= batch * length * d  # nothing kept for a backward pass that will not come
    values = [x.requires_grad_() for x in values]
    with Largest() as largest:
        y = selective_scan(*values, backend="torch")
        torch.autograd.backward(y, torch.ones_like(y))
    assert largest.size <= max(batch * length * d, chunked.SEGMENT_VALUES["cpu"])
    assert largest.size < batch * length * d * 16 / 4


@pytest.mark.parametrize("tokens", [1, 4, 5, 16, 17, 64, 65, 256, 300])
def test_pieces_of_pieces_as_a_gpu_has_them(tokens):
    """Few launches: the starts of pieces are found as those of tokens are."""
    generator = torch.Generator().manual_seed(tokens)
    a, x = (torch.rand(2, tokens, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    state = torch.rand(2, 3, 2, generator=generator, dtype=torch.float64)
    expected, h = [], state
    for t in range(tokens):
        h = a[:, t] * h + x[:, t]
        expected.append(h)
    got = chunked._recurrence(a.clone(), x.clone(), state, 4)
    torch.testing.assert_close(got, torch.stack(expected, 1), rtol=0, atol=1e-14 * 10)


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would be sent kernels for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view and "empty" not in function.name()
        return function(*args, **(kwargs or {}))


def test_a_gpu_is_sent_few_kernels_a_training_step(monkeypatch):
    """All scans of `released` at batch 2 of 128^3; with a piece per root of the tokens it was 598,000."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())  # meta has none
    with Launches() as launches:
        for length, d in ((64**3, 96), (32**3, 192), (16**3, 384), (8**3, 768)):
            shapes = (
                (2, length, d),
                (2, length, d),
                (d, 16),
                (2, length, 16),
                (2, length, 16),
                (d,),
                (d,),
                (2, length, d),
            )
            values = [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]
            chunked.selective_scan(*values).sum().backward()
    assert 0 < 6 * launches.count < 598_000 / 3.5  # two layers a stage, three directions


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_two_runs_are_equal_bit_by_bit(backend):
    values = inputs(2, 500, 48)
    first, second = run(selective_scan, values, backend), run(selective_scan, values, backend)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize(("batch", "length", "d"), [(1, 1000, 96), (3, 5000, 48)])
def test_threads_do_not_change_a_bit(threads, batch, length, d):
    values = inputs(batch, length, d)
    conv = [values[0], values[2][:, None, :4].contiguous(), values[5]]
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(selective_scan, values, "cpu") + run(causal_conv1d_silu, conv, "cpu"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


# --- the convolution


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("batch", "length", "d", "taps"),
    [
        (1, 1, 96, 4),
        (2, 2, 5, 4),
        (3, 7, 12, 3),
        (2, 2049, 16, 4),
        (1, 4500, 5, 4),
        (1, 9, 8, 1),
        (1, 30, 8, 11),
    ],
)
def test_convolution_and_all_its_gradients(backend, batch, length, d, taps):
    generator = torch.Generator().manual_seed(3)
    shapes = ((batch, length, d), (d, 1, taps), (d,))
    values = [torch.randn(*shape, generator=generator) for shape in shapes]
    expected = run(causal_conv1d_silu, doubles(values), "reference")
    assert_close(run(causal_conv1d_silu, values, backend), expected, ("y", "x", "weight", "bias"))


def test_convolution_is_what_mamba_does_with_torch():
    x, layer = torch.randn(2, 50, 12, dtype=torch.float64), torch.nn.Conv1d(12, 12, 4, groups=12, padding=3)
    layer = layer.double()
    expected = F.silu(layer(x.transpose(1, 2))[..., :50]).transpose(1, 2)
    for backend in ("reference", "torch"):
        torch.testing.assert_close(causal_conv1d_silu(x, layer.weight, layer.bias, backend=backend), expected)


# --- mamba-ssm's own reference


def mamba_ssm_reference():
    """mamba-ssm's selective_scan_ref from an installed copy, without importing the package.

    Importing it needs its compiled CUDA module and Triton. The function itself is plain Python, so it alone
    is taken from the source file. Without a GPU an unpacked source archive on PYTHONPATH is enough:
    pip download --no-deps --no-binary :all: mamba-ssm
    """
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None:
        pytest.skip("mamba-ssm is not installed")
    einops = pytest.importorskip("einops")
    source = Path(spec.submodule_search_locations[0]) / "ops" / "selective_scan_interface.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    tree.body = [x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == "selective_scan_ref"]
    names = {"torch": torch, "F": F, "rearrange": einops.rearrange, "repeat": einops.repeat}
    exec(compile(tree, str(source), "exec"), names)
    return names["selective_scan_ref"]


@pytest.mark.parametrize("gate", [True, False])
def test_mamba_ssm_agrees(gate):
    theirs = mamba_ssm_reference()

    def function(u, delta, A, B, C, D, bias, z=None, backend=None):
        last = [x if x is None else x.transpose(1, 2) for x in (u, delta, B, C, z)]
        y = theirs(*last[:2], A, *last[2:4], D=D, z=last[4], delta_bias=bias, delta_softplus=True)
        return y.transpose(1, 2)

    values = inputs(2, 257, 24, gate=gate)
    expected = [x.double() for x in run(function, values, None)]
    for backend in ("reference", "torch", "cpu"):
        got = run(selective_scan, values, backend)
        assert_close(got, expected, ("y", *NAMES))


def test_the_cuda_back_end_hands_mamba_ssm_what_it_wants(monkeypatch):
    """Layout, names and dtypes, shown by mamba-ssm's own reference in the place of its kernel."""
    theirs = mamba_ssm_reference()
    monkeypatch.setattr(cuda, "_scan_function", lambda: (theirs, ""))
    for gate in (True, False):
        values = inputs(2, 65, 24, gate=gate)
        expected = run(selective_scan, doubles(values), "reference")
        got = run(lambda *x, backend: cuda.selective_scan(*x), values, None)
        assert_close(got, expected, ("y", *NAMES))
        half = [x if x is None or x.ndim != 3 else x.bfloat16() for x in values]
        assert cuda.selective_scan(*half).dtype == torch.bfloat16
