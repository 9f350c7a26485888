"""One process of `bench.py`: the scan back ends on the CPU, interleaved. Prints JSON.

Batch 1, float32, without a gate: softplus, recurrence, contraction with C and the skip.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import scan_case
import torch
import torch.nn.functional as F
from measure import progress
from segmamba.networks.scan import available_backends, selective_scan
from torch import Tensor

D_INNER = 96  # channels of the first stage of `released`
AT_LEAST = 0.2  # seconds that one measurement takes


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("length", "rounds", "threads"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    usable = available_backends("cpu")
    functions = {name: _backend(name) for name in ("cpu", "torch") if not usable[name]}
    short = min(options.length, scan_case.LOOP_LENGTH)  # the plain loop would take minutes at full length
    lengths = sorted({options.length, short}, reverse=True)
    subjects = [Subject(name, functions[name], length) for length in lengths for name in functions]
    subjects.append(Subject(*_plain_loop(), short))
    for number in range(options.rounds):
        for subject in subjects:
            progress(f"scan: round {number + 1} of {options.rounds}, {subject.name}, {subject.length} tokens")
            subject.measure()
    exact = {subjects[0].length: scan_case.exact_scan(subjects[0].values)}
    exact[short] = scan_case.exact_scan(subjects[-1].values)
    print(
        json.dumps(
            {
                "d": D_INNER,
                "states": subjects[0].values[2].shape[1],
                "threads": options.threads,
                "oracle_error": scan_case.exactness(subjects[0].values),
                "rows": [subject.row(exact[subject.length]) for subject in subjects],
            }
        )
    )


class Subject:
    """One implementation at one length, and its times."""

    def __init__(self, name: str, function: Callable[..., Tensor], length: int):
        self.name, self.function, self.length = name, function, length
        self.values = scan_case.make_inputs(length, D_INNER, torch.device("cpu"), torch.float32, gate=False)
        self.forward_s, self.backward_s = [], []

    def measure(self) -> None:
        with torch.inference_mode():
            self.forward_s.append(_seconds(lambda: self.function(*self.values)))
        leaves = [None if x is None else x.clone().requires_grad_() for x in self.values]
        out = self.function(*leaves)
        inputs, weights = [x for x in leaves if x is not None], scan_case.weights(out)
        self.backward_s.append(_seconds(lambda: torch.autograd.grad(out, inputs, weights, retain_graph=True)))

    def row(self, exact: list[Tensor]) -> dict:
        forward, *gradients = scan_case.errors(scan_case.passes(self.function, self.values), exact)
        return {
            "implementation": self.name,
            "tokens": self.length,
            "forward_s": self.forward_s,
            "backward_s": self.backward_s,
            "forward_error": forward,
            "backward_error": scan_case.worst(gradients),
        }


def _seconds(function: Callable[[], object]) -> float:
    """The median over as many runs as take AT_LEAST seconds, after one that compiles and touches memory."""
    function()
    times = []
    while sum(times) < AT_LEAST:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def _backend(name: str) -> Callable[..., Tensor]:
    return lambda *values: selective_scan(*values, backend=name)


def _plain_loop() -> tuple[str, Callable[..., Tensor]]:
    """mamba-ssm's selective_scan_ref where it can be imported, else the same steps written out."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_ref
    except Exception:  # not installed, or without its CUDA module
        return "plain loop", _loop

    def function(u, delta, A, B, C, D, delta_bias, z):
        u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))
        y = selective_scan_ref(u, delta, A, B, C, D=D, delta_bias=delta_bias, delta_softplus=True)
        return y.transpose(1, 2)

    return "selective_scan_ref", function


def _loop(u, delta, A, B, C, D, delta_bias, z) -> Tensor:
    """All decays and inputs at once, (B, L, d, N), then one Python step a token, like mamba-ssm's."""
    dt = F.softplus(delta + delta_bias)
    decay = torch.exp(dt[..., None] * A)
    x = (dt * u)[..., None] * B[:, :, None]
    h, rows = torch.zeros_like(x[:, 0]), []
    for t in range(u.shape[1]):
        h = decay[:, t] * h + x[:, t]
        rows.append((h @ C[:, t, :, None]).squeeze(-1))
    return torch.stack(rows, dim=1) + D * u


if __name__ == "__main__":
    main()
