"""Which back end of the scan is taken, what happens where one is missing, and what bad input says."""

import logging
import re

import pytest
import torch
from scan_inputs import NAMES, assert_close, doubles, in_process, inputs
from segmamba.errors import InputError
from segmamba.networks import scan
from segmamba.networks.scan import available_backends, causal_conv1d_silu, choose_backend, selective_scan


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.delenv("SEGMAMBA_SCAN", raising=False)


def test_the_automatic_choice_on_a_cpu():
    assert choose_backend("cpu") == "cpu"
    reasons = available_backends("cpu")
    assert list(reasons) == ["cuda", "triton", "cpu", "torch", "reference"]
    assert reasons["cpu"] == reasons["torch"] == reasons["reference"] == ""
    assert "GPU" in reasons["cuda"] and "GPU" in reasons["triton"]


def test_the_environment_overrides(monkeypatch):
    values = inputs(1, 40, 8)
    for name in ("cpu", "torch", "reference"):
        monkeypatch.setenv("SEGMAMBA_SCAN", name)
        assert choose_backend("cpu") == name
        assert torch.equal(selective_scan(*values), selective_scan(*values, backend=name))
    monkeypatch.setenv("SEGMAMBA_SCAN", "cuda")
    with pytest.raises(InputError, match=r"SEGMAMBA_SCAN.*'cuda'.*GPU"):
        choose_backend("cpu")
    selective_scan(*values, backend="torch")  # the argument goes before the environment
    monkeypatch.setenv("SEGMAMBA_SCAN", "fast")
    with pytest.raises(InputError, match=r"unknown scan back end 'fast'.*cuda, triton, cpu, torch, reference"):
        selective_scan(*values)


@pytest.mark.parametrize("backend", ["cuda", "tpu"])
def test_an_unusable_back_end_is_an_error(backend):
    values = inputs(1, 5, 8)
    with pytest.raises(InputError, match=f"argument backend.*{backend}"):
        selective_scan(*values, backend=backend)
    with pytest.raises(InputError, match=f"argument backend.*{backend}"):
        causal_conv1d_silu(values[0], torch.ones(8, 1, 4), torch.ones(8), backend=backend)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("u", (2, 10)),
        ("u", (2, 0, 8)),
        ("u", (2, 10, 7)),
        ("delta", (2, 9, 8)),
        ("A", (7, 16)),
        ("B", (2, 10, 15)),
        ("C", (1, 10, 16)),
        ("D", (1,)),
        ("delta_bias", (8, 1)),
        ("z", (2, 10, 16)),
    ],
)
def test_shapes_that_do_not_fit(name, shape):
    values = dict(zip(NAMES, inputs(2, 10, 8)))
    values[name] = torch.zeros(shape)
    with pytest.raises(InputError, match="of the scan"):
        selective_scan(**values)


def test_bad_convolutions():
    x, weight, bias = torch.zeros(1, 5, 8), torch.zeros(8, 1, 4), torch.zeros(8)
    for bad in (
        (x[:, :0], weight, bias),
        (x.long(), weight, bias),
        (x, weight[:4], bias),
        (x, weight, bias[:4]),
    ):
        with pytest.raises(InputError):
            causal_conv1d_silu(*bad)


# --- other machines, played in a process of their own


def test_nothing_heavy_is_imported_before_first_use():
    in_process(
        "import sys, segmamba.networks.scan",
        "assert not {'numba', 'triton', 'mamba_ssm', 'causal_conv1d'} & set(sys.modules)",
    )


def test_without_numba_torch_takes_over_with_one_notice():
    text = in_process(
        """
        import importlib.abc, logging, sys
        class Blocker(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("numba", "llvmlite"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
        logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
        """,
        """
        import pytest
        from segmamba.errors import InputError
        from segmamba.networks.scan import choose_backend
        assert choose_backend("cpu") == choose_backend("cpu") == "torch"
        check_everything(None)
        values = inputs(1, 20, 8)
        assert torch.equal(selective_scan(*values), selective_scan(*values, backend="torch"))
        with pytest.raises(InputError, match="numba cannot be imported.*pip install numba"):
            selective_scan(*values, backend="cpu")
        """,
    )
    assert text.count("WARNING segmamba.networks.scan") == 1, text


def test_without_a_folder_for_numbas_cache():
    text = in_process(
        "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []", "check_everything('cpu')"
    )
    assert text.count("NUMBA_CACHE_DIR") == 1, text


def test_a_cold_cache_is_said_once_and_a_warm_one_not(tmp_path):
    build = "from segmamba.networks.scan import jit; [jit.build('conv forward', taps) for taps in (2, 3)]"
    where = f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}"
    assert in_process(where, build).count("are being compiled for this CPU") == 1
    assert "compiled" not in in_process(where, build)


def test_on_a_gpu_the_best_that_can_be_used_is_taken(monkeypatch, caplog):
    """Nobody is told of mamba-ssm while Triton is there; without either both reasons are given."""
    reasons = {"cuda": "no mamba-ssm", "triton": ""}
    for name in reasons:
        monkeypatch.setattr(scan.BACKENDS[name], "unavailable_reason", lambda device, name=name: reasons[name])
    scan._notice.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_backend("cuda") == "triton" and not caplog.records
        reasons["triton"] = "no Triton"
        assert choose_backend("cuda") == "torch"
        assert "no mamba-ssm" in caplog.text and "no Triton" in caplog.text
        reasons["cuda"] = ""
        assert choose_backend("cuda") == "cuda"
    scan._notice.cache_clear()


GRIDS = {"forward": (1, 150), "reverse": (1, 150), "slices": (70, 3)}  # slices, and tokens in each; chunks have 64


@pytest.mark.parametrize("gradients", [False, True], ids=["", "gradients"])
@pytest.mark.parametrize("order", GRIDS)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_orders_of_back_ends_that_read_one_alone(backend, order, gradients):
    """From the definition with the walk written out: tokens in the grid or walked already, with and without a sum."""
    slices, plane = GRIDS[order]
    walk = {
        "forward": range(slices * plane),
        "reverse": range(slices * plane)[::-1],
        "slices": [p + s * plane for p in range(plane) for s in range(slices)],
    }
    walk = torch.tensor(list(walk[order]))
    values = inputs(2, len(walk), 48 if order == "slices" else 20, gate=order != "reverse")
    u, delta, A, B, C, D, bias, z = (x if x is None else x.requires_grad_(gradients) for x in values)
    in_order = [None if x is None else x[:, walk] if x.ndim == 3 else x for x in doubles(values)]
    expected = torch.empty(u.shape, dtype=torch.float64)
    expected[:, walk] = selective_scan(*in_order, backend="reference").detach()
    asked = {"order": order, "slices": slices, "backend": backend}
    onto = torch.randn(u.shape, generator=torch.Generator().manual_seed(3))
    first = [x[:, walk] for x in (u, delta, B, C)]
    with torch.set_grad_enabled(gradients):
        results = {
            "grid": selective_scan(u, delta, A, B, C, D, bias, z, **asked),
            "walked": selective_scan(*first[:2], A, *first[2:], D, bias, z, walked=True, **asked),
        }
        total = selective_scan(*first[:2], A, *first[2:], D, bias, z, walked=True, onto=onto.clone(), **asked)
    assert_close(results.values(), [expected] * 2, results)
    assert torch.equal(total, onto + results["walked"])

    weight, bias = inputs(1, 1, u.shape[2], states=4)[2][:, None], D
    in_order = u.double()[:, walk], weight.double(), bias.double()
    walked = causal_conv1d_silu(*in_order, backend="reference").detach()
    with torch.set_grad_enabled(gradients):
        assert_close([causal_conv1d_silu(u, weight, bias, walked=True, **asked)], [walked], ["convolution, walked"])
        got = causal_conv1d_silu(u, weight, bias, **asked)
    assert_close([got[:, walk]], [walked], ["convolution"])


def test_an_order_that_does_not_fit():
    values = inputs(1, 12, 8)
    with pytest.raises(InputError, match=r"order 'back'.*forward, reverse, slices"):
        selective_scan(*values, order="back")
    with pytest.raises(InputError, match=r"12 tokens.*5 slices"):
        selective_scan(*values, order="slices", slices=5)
    with pytest.raises(InputError, match=r"onto .*\(1, 11, 8\); expected \(1, 12, 8\)"):
        selective_scan(*values, onto=torch.zeros(1, 11, 8))


def test_the_notice_names_the_reason(caplog, monkeypatch):
    monkeypatch.setattr(scan.cpu, "unavailable_reason", lambda device: "because of the test")
    scan._notice.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_backend("cpu") == choose_backend("cpu") == "torch"
    assert len(caplog.records) == 1 and "because of the test" in caplog.text
    scan._notice.cache_clear()


# --- mamba-ssm as it may be found


def installed(folder, *files):
    """A folder of packages as pip would leave it."""
    for name, text in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return f"import sys; sys.path.insert(0, {str(folder)!r})"


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        (None, "without its CUDA kernels, the module selective_scan_cuda.*MAMBA_KEEP_CUDA_BUILD=TRUE"),
        ("raise ImportError('undefined symbol: _ZN3c10')", "cannot be imported: ImportError: undefined symbol"),
        ("", ""),
    ],
)
def test_mamba_ssm_counts_only_with_its_kernels(tmp_path, kernels, reason):
    """Its package imports without them; then the scan fails at the first step, or is a loop in Python."""
    package = ("mamba_ssm/__init__.py", ""), ("mamba_ssm/ops/__init__.py", "")
    interface = ("mamba_ssm/ops/selective_scan_interface.py", "def selective_scan_fn(): pass")
    compiled = [] if kernels is None else [("selective_scan_cuda.py", kernels)]
    out = in_process(
        installed(tmp_path, *package, interface, *compiled),
        "from segmamba.networks.scan import available_backends; print(available_backends('cuda')['cuda'])",
    )
    assert re.search(reason, out) and (reason or not out.strip())
