"""`make gpu-check`: is every back end of the scan right on this machine's GPU, and `released` as on the CPU?

Scan and causal convolution, forward and backward, in fp32, bf16 and fp16, at the four stages of `released` on a
128^3 window, against float64; then `released` on such a window, on the GPU against the CPU. The CPU's own back
ends are checked on short, odd lengths, which is all that happens without a GPU.

Prints a line a check; exit code 1 if one failed. With a GPU: results/gpu-check-NAME.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import peers
import scan_case
import torch
from measure import describe, progress, slug, write_results
from segmamba.networks.scan import ORDERS, OVERRIDE, available_backends, causal_conv1d_silu, selective_scan
from torch import Tensor

STAGES = ((64**3, 96), (32**3, 192), (16**3, 384), (8**3, 768))  # tokens, channels
SHORT_STAGES = ((1001, 96), (257, 192), (67, 384), (13, 768))
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Largest error as a share of the exact tensor's largest magnitude. Gradients of A, D and the bias are sums over
# all tokens; half precision rounds what it returns, once or twice, by up to 2^-8 (bf16) or 2^-11 (fp16).
FORWARD = {"fp32": 1e-5, "bf16": 5e-3, "fp16": 1e-3}
BACKWARD = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 2e-3}
ORACLE = 1e-10  # chunks in float64 against the loop in float64
# Root mean square of the logits' difference over that of the logits. Under bf16 on a CPU it is 0.01.
NETWORK = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 3e-2}


class Checks:
    """What was checked, and how it went."""

    def __init__(self):
        self.rows: list[dict] = []

    def add(self, what: str, error: float, tolerance: float) -> None:
        passed = error <= tolerance  # False for NaN
        self.rows.append({"check": what, "error": error, "tolerance": tolerance, "passed": passed})
        print(f"{'ok    ' if passed else 'FAILED'}  {error:8.1e} <= {tolerance:.0e}  {what}", flush=True)

    def add_passes(self, what: str, got: list[Tensor], exact: list[Tensor], names: list[str], precision: str) -> None:
        """The output, and of the gradients the worst, by name."""
        forward, *gradients = scan_case.errors(got, exact)
        self.add(f"{what} forward", forward, FORWARD[precision])
        name = max(zip(gradients, names), key=lambda pair: (pair[0] != pair[0], pair[0]))[1]
        self.add(f"{what} backward, worst: {name}", scan_case.worst(gradients), BACKWARD[precision])

    @property
    def failed(self) -> list[str]:
        return [row["check"] for row in self.rows if not row["passed"]]


def check_operations(
    device: torch.device, stages: tuple[tuple[int, int], ...], precisions: dict[str, torch.dtype], checks: Checks
) -> None:
    """Scan and convolution by every back end that can be used on `device`."""
    usable = [name for name, reason in available_backends(device).items() if not reason and name != "reference"]
    for length, d in stages:
        values = scan_case.make_inputs(length, d, device, torch.float32)
        oracle = f"{device.type} float64 oracle of {length} x {d}"
        checks.add(oracle, scan_case.exactness(values), ORACLE)
        for precision, dtype in precisions.items():
            values = scan_case.make_inputs(length, d, device, dtype)
            exact = scan_case.exact_scan(values)
            for backend in usable:
                got = scan_case.passes(selective_scan, values, backend=backend)
                what = f"{device.type} scan {backend} {precision} {length} x {d}"
                checks.add_passes(what, got, exact, list(scan_case.NAMES), precision)
            if "triton" in usable:
                check_orders(values, f"{device.type} scan triton {precision} {length} x {d}", precision, checks)
            convolution = [values[0], values[2][:, None, :4].contiguous(), values[5]]
            exact = scan_case.passes(causal_conv1d_silu, scan_case.doubles(convolution), backend="reference")
            for backend in usable:
                got = scan_case.passes(causal_conv1d_silu, convolution, backend=backend)
                what = f"{device.type} convolution {backend} {precision} {length} x {d}"
                checks.add_passes(what, got, exact, ["x", "weight", "bias"], precision)


def check_orders(values: list[Tensor | None], what: str, precision: str, checks: Checks) -> None:
    """The back end that reads tokens in any order where they lie, on a cube; and twice the same, bit by bit."""
    slices = round(values[0].shape[1] ** (1 / 3))
    for order in ORDERS[1:]:
        walked = {"order": order, "slices": slices}
        exact = scan_case.passes(selective_scan, scan_case.doubles(values), backend="torch", **walked)
        got = scan_case.passes(selective_scan, values, backend="triton", **walked)
        checks.add_passes(f"{what}, {order}", got, exact, list(scan_case.NAMES), precision)
    again = scan_case.passes(selective_scan, values, backend="triton", **walked)
    checks.add(f"{what}, a second time", float(not all(map(torch.equal, got, again))), 0.0)


@torch.inference_mode()
def check_network(device: torch.device, size: int, checks: Checks) -> None:
    """`released` on one window: `device`, with each of its back ends, against the CPU in fp32."""
    network = peers.build("released", size).eval()
    image = torch.randn(1, 4, size, size, size, generator=torch.Generator().manual_seed(1))
    progress(f"released on 4x{size}^3 on the CPU")
    expected = network(image)
    network, image = network.to(device), image.to(device)
    for backend, reason in available_backends(device).items():
        if reason or backend == "reference":
            continue
        os.environ[OVERRIDE] = backend
        for precision, tolerance in NETWORK.items():
            torch.backends.cudnn.allow_tf32 = precision != "fp32"
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                difference = network(image).float().cpu() - expected
            error = (difference.norm() / expected.norm()).item()
            checks.add(f"{device.type} released {backend} {precision} 4x{size}^3 against the CPU", error, tolerance)
    os.environ.pop(OVERRIDE, None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the scan back ends, on the GPU where there is one.")
    parser.add_argument("--quick", action="store_true", help="the first and the last stage, no fp16")
    parser.add_argument("--results", type=Path, help="a JSON file, written after each part; default: in results/")
    options = parser.parse_args()
    stages, short_stages = (STAGES[::3], SHORT_STAGES[1::2]) if options.quick else (STAGES, SHORT_STAGES)
    precisions = {name: dtype for name, dtype in PRECISIONS.items() if name != "fp16" or not options.quick}
    os.environ.pop(OVERRIDE, None)
    facts, checks = describe(), Checks()
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name, reason in available_backends(device).items():
            if reason:
                print(f"not checked on {device}: {name}: {reason}")
    check_operations(torch.device("cpu"), short_stages, precisions, checks)
    if torch.cuda.is_available():
        device, gpu = torch.device("cuda"), torch.cuda.get_device_name()
        facts |= {"gpu": gpu, "backends": available_backends(device)}
        name = f"gpu-check-{slug(gpu)}"
        check_operations(device, stages, precisions, checks)
        write_results(name, {**facts, "checks": checks.rows}, options.results)
        check_network(device, 128, checks)
        write_results(name, {**facts, "checks": checks.rows}, options.results)
    else:
        print("no GPU: GPU parts skipped")
        if options.results:
            write_results("", {**facts, "checks": checks.rows}, options.results)
    print(f"{len(checks.rows)} checks, {len(checks.failed)} failed")
    for what in checks.failed:
        print(f"failed: {what}")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
