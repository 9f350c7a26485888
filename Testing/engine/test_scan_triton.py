"""The Triton back end without a GPU: its arithmetic in Triton's interpreter, its kernels compiled for GPUs.

The interpreter runs a program after the other in Python, so shapes are small and tiles smaller than in earnest: several
tiles a chunk, several chunks and blocks of channels, none of them full.
"""

import importlib
import subprocess
from pathlib import Path

import pytest
from scan_inputs import in_process

triton = pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = """
import os
os.environ["TRITON_INTERPRET"] = "1"
from segmamba.networks.scan import triton_backend
triton_backend.SCAN.update(BD=4, BT=2)
triton_backend.SHORT_CHUNK = 4
triton_backend.PASS.update(BJ=8, BC=2)
triton_backend.CONV.update(BD=4, BT=4)
"""


def test_scan_and_all_its_gradients_in_every_order():
    in_process(
        INTERPRETED,
        """
        for order, gate, batch, length, slices in (
            ("forward", True, 2, 7, 1), ("reverse", False, 1, 11, 11), ("slices", True, 1, 15, 5)
        ):
            def function(*values, backend):
                return selective_scan(*values, order=order, slices=slices, backend=backend)
            values = inputs(batch, length, 5, states=3, gate=gate)
            expected = run(function, doubles(values), "reference")
            assert_close(run(function, values, "triton"), expected, [f"{order} {name}" for name in ("y", *NAMES)])
        """,
    )


def test_half_precision_in_slices_of_wider_rows():
    """As ToM has them: x and z are halves of one tensor, B and C lie behind dt's part."""
    in_process(
        INTERPRETED,
        """
        function = lambda *values, backend: selective_scan(*values, order="slices", slices=3, backend=backend)
        u, delta, A, B, C, D, bias, z = inputs(2, 9, 4, states=4)
        half = [x.bfloat16() if x.ndim == 3 else x for x in (u, delta, A, B, C, D, bias, z)]
        expected = run(function, doubles(half), "reference")
        wide, beside = torch.cat([half[0], half[7]], -1), torch.cat([half[1], half[3], half[4]], -1)
        wide, beside = wide.requires_grad_(), beside.requires_grad_()
        y = function(wide[..., :4], beside[..., :4], A, beside[..., 4:8], beside[..., 8:], D, bias, wide[..., 4:],
                     backend="triton")
        assert y.dtype == torch.bfloat16
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        (y * weight.bfloat16()).sum().backward()
        got = [y, wide.grad[..., :4], beside.grad[..., :4], beside.grad[..., 4:8], beside.grad[..., 8:]]
        assert_close(got, [expected[i] for i in (0, 1, 2, 4, 5)], ("y", "u", "delta", "B", "C"), tolerance=2**-7)
        """,
    )


def test_slow_and_fast_steps():
    """dt far below 1 keeps its relative precision; decays that underflow leave zeros, not NaN."""
    in_process(
        INTERPRETED,
        """
        for shift in (-12.0, 40.0):
            values = inputs(1, 7, 4, states=2)
            values[1] = values[1] + shift
            expected = run(selective_scan, doubles(values), "reference")
            assert_close(run(selective_scan, values, "triton"), expected, ("y", *NAMES))
        """,
    )


def test_convolution_and_all_its_gradients_in_every_order():
    in_process(
        INTERPRETED,
        """
        for order, taps in (("forward", 4), ("reverse", 2), ("slices", 3)):
            def function(*values, backend):
                return causal_conv1d_silu(*values, order=order, slices=3, backend=backend)
            values = [torch.randn(*shape) for shape in ((1, 9, 5), (5, 1, taps), (5,))]
            expected = run(function, doubles(values), "reference")
            assert_close(run(function, values, "triton"), expected, [f"{order} {name}" for name in "yxwb"])
        """,
    )


def test_a_network_reads_its_tokens_where_they_lie():
    """ToM takes the way without permutations, and gives what it gives with them."""
    in_process(
        INTERPRETED,
        """
        from segmamba.networks import mamba, scan
        torch.manual_seed(1)
        network, tokens = mamba.TriMamba(2), torch.randn(1, 6, 2)
        with torch.no_grad():
            os.environ["SEGMAMBA_SCAN"] = "torch"
            expected = network(tokens, 3)
            os.environ["SEGMAMBA_SCAN"] = "triton"
            scan.walk = scan.unwalk = None  # nothing is put into order
            assert_close([network(tokens, 3)], [expected.double()], ["tokens"])
        """,
    )


def test_more_states_or_taps_than_its_tiles_hold_go_to_torch():
    in_process(
        INTERPRETED,
        """
        function = lambda *values, backend: selective_scan(*values, order="slices", slices=2, backend=backend)
        values = inputs(1, 8, 3, states=17)
        assert all(map(torch.equal, run(function, values, "triton"), run(function, values, "torch")))
        conv = torch.randn(1, 12, 3), torch.randn(3, 1, 9), torch.randn(3)
        assert torch.equal(*(causal_conv1d_silu(*conv, backend=name) for name in ("triton", "torch")))
        """,
    )


# --- for GPUs, without one


def compiled(module, name, launch, compute, half="*bf16", **constants):
    """A kernel's machine code, as a launch with 16-byte aligned tensors has it. A constant None: no such tensor."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"segmamba.networks.scan.{module}"), name)
    tokens = ["u", "delta", "b", "c", "z", "g", "x", "out", "u_grad", "delta_grad", "z_grad", "x_grad"]
    integers = ["L", "period", "stride", "step", "first", "chunks", "tiles", "D", "N"]
    signature, aligned = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        integer = argument in integers or argument.endswith("_row")
        kind = "constexpr" if argument in constants else "i32" if integer else half if argument in tokens else "*fp32"
        signature[argument] = kind
        if kind != "constexpr" and (argument in ("D", "N") or argument not in integers):
            aligned[(place,)] = [["tt.divisibility", 16]]
    constants = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", compute, 32), options=launch).asm["cubin"]


def resources(code, folder):
    """{"REG": registers a thread, "STACK": bytes of what did not fit into them, ...}"""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton comes without cuobjdump")
    (folder / "kernel.cubin").write_bytes(code)
    command = [tool, "--dump-resource-usage", folder / "kernel.cubin"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        key: int(value)
        for key, value in (word.split(":") for word in text.split() if word.count(":") == 1 and word[-1].isdigit())
    }


SCAN = "triton_kernels"
KERNELS = {
    "ends": (SCAN, "chunk_ends", {"ADJOINT": False, "GATED": False, "z": None}),
    "ends, adjoint": (SCAN, "chunk_ends", {"ADJOINT": True, "GATED": True}),
    "pass on": (SCAN, "pass_on", {"ADJOINT": True}),
    "forward": (SCAN, "forward", {"GATED": True, "KEEP": False, "kept": None}),
    "forward, kept": (SCAN, "forward", {"GATED": False, "KEEP": True, "out": None}),
    "backward": (SCAN, "backward", {"GATED": True}),
    "convolution": ("triton_conv", "conv_forward", {"K": 4}),
    "convolution, backward": ("triton_conv", "conv_backward", {"K": 4}),
}


@pytest.mark.parametrize("compute", [80, 90])
@pytest.mark.parametrize("which", KERNELS)
def test_kernels_fit_into_the_registers_of_a_gpu(which, compute, tmp_path):
    from segmamba.networks.scan import triton_backend as backend

    module, name, constants = KERNELS[which]
    if module == SCAN and name != "pass_on":
        warps = backend.BACKWARD_WARPS if name == "backward" else backend.WARPS
        options = {**backend.SCAN, "BN": backend.MOST_STATES, "num_warps": warps}
    else:
        options = dict(backend.PASS if name == "pass_on" else backend.CONV)
    launch = {"num_warps": options.pop("num_warps"), **backend.COMMON}
    used = resources(compiled(module, name, launch, compute, **options, **constants), tmp_path)
    assert 0 < used["REG"] <= 255
    assert used["STACK"] == used["LOCAL"] == 0
