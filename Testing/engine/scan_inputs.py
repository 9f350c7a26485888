"""What the tests of the scan share: inputs like Mamba's, a run with gradients, a comparison."""

import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from segmamba.networks.scan import causal_conv1d_silu, selective_scan

TOLERANCE = 1e-5  # of the scale of what is compared
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias", "z")


def inputs(batch, length, d, states=16, gate=True, dtype=torch.float32, seed=0, dt=0.1):
    """What Mamba feeds its scan: states that decay at different speeds; dt: the typical step."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A = -torch.arange(1, states + 1) * torch.exp(0.3 * normal(d, states))
    bias = torch.log(torch.expm1(torch.full((d,), dt, dtype=torch.float64))) + 0.3 * normal(d)
    values = [normal(batch, length, d), normal(batch, length, d), A]
    values += [normal(batch, length, states), normal(batch, length, states), normal(d), bias]
    values.append(normal(batch, length, d) if gate else None)
    return [None if x is None else x.to(dtype) for x in values]


def run(function, values, backend):
    """Output and gradients of every input, for a fixed weighting of the output."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in values]
    out = function(*leaves, backend=backend)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (out * weight.to(out.dtype)).sum().backward()
    return [out.detach(), *(x.grad for x in leaves if x is not None)]


def doubles(values):
    return [None if x is None else x.double() for x in values]


def assert_close(got, expected, names, tolerance=TOLERANCE):
    for name, a, b in zip(names, got, expected):
        assert a.shape == b.shape, name
        scale = max(b.abs().max().item(), 1e-15)  # what is smaller than that is as good as 0
        error = (a.double() - b).abs().max().item()
        assert error <= tolerance * scale, f"{name}: {error:.2e} of a scale of {scale:.2e}"


def check_everything(backend):
    """Run in the other process: scan and convolution, both passes, awkward shapes."""
    for d, states in ((40, 16), (5, 3)):
        values = inputs(2, 131, d, states=states)
        expected = run(selective_scan, doubles(values), "reference")
        assert_close(run(selective_scan, values, backend), expected, ("y", *NAMES))
        conv = [values[0], values[2][:, None, :3].contiguous(), values[5]]
        expected = run(causal_conv1d_silu, doubles(conv), "reference")
        assert_close(run(causal_conv1d_silu, conv, backend), expected, ("y", "x", "weight", "bias"))


def in_process(before, after=""):
    """`before`, then the shared parts, then `after`, in a new interpreter; what it printed."""
    code = f"{textwrap.dedent(before)}\nfrom scan_inputs import *\n{textwrap.dedent(after)}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
