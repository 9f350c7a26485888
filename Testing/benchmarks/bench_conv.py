"""The 3x3x3 convolutions of `released`: Winograd beside oneDNN, one thread, interleaved, both ISAs that matter.

Each pass runs in a process of its own: as this machine is, and, where that has AVX-512, held to AVX2. Times are
CPU time, the least of the rounds, so that other work on the machine disturbs them little; the transform of the weights
is part of each convolution. Writes results/convolution.json.
"""

from __future__ import annotations

import argparse
import json
import time

from measure import describe, instruction_sets, print_table, progress, run_child, write_results

# Side at windows of 128^3, channels of the inputs, channels out, how many of these `released` has.
SHAPES = (
    (128, (48,), 48, 4),
    (128, (48, 48), 48, 1),
    (64, (48,), 48, 2),
    (64, (48,), 96, 1),
    (64, (96,), 96, 2),
    (64, (96, 96), 96, 1),
    (32, (96,), 96, 2),
    (32, (96,), 192, 1),
    (32, (192,), 192, 2),
    (32, (192, 192), 192, 1),
    (16, (192,), 192, 2),
    (16, (192,), 384, 1),
    (16, (384,), 384, 2),
    (16, (384, 384), 384, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="3x3x3 convolutions of `released` on the CPU.")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the least is shown")
    parser.add_argument("--size", type=int, default=128, help="side of the windows, 64 or 128")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(options.rounds, options.size)))
        return
    facts = {**describe(), "size": options.size, "threads": 1, "isas": {}}
    for variables in instruction_sets(facts["machine"]).values():
        command = [__file__, "--child", "--rounds", options.rounds, "--size", options.size]
        found = json.loads(run_child(*command, environment=variables).output)
        facts["isas"][found["isa"]] = found["rows"]
        _show(found["isa"], found["rows"])
        write_results("convolution", facts)


def _measure(rounds: int, size: int) -> dict:
    import torch
    from segmamba.networks import conv, winograd
    from torch import nn

    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode():
        for side, channels, out, times in SHAPES:
            grid = (side * size // 128,) * 3
            shapes = [(1, c, *grid) for c in channels]
            inputs = [torch.randn(shape).contiguous(memory_format=torch.channels_last_3d) for shape in shapes]
            layer = nn.Conv3d(sum(channels), out, 3, padding=1, bias=False).to(memory_format=torch.channels_last_3d)
            row = {"side": grid[0], "in": list(channels), "out": out, "times": times, "onednn_s": [], "winograd_s": []}
            row["taken"] = winograd.fits(inputs, layer)
            results = {}
            for _ in range(rounds):
                for name, function in (("onednn", conv.by_onednn), ("winograd", winograd.convolution)):
                    start = time.process_time()
                    results[name] = function(inputs, layer)
                    row[f"{name}_s"].append(time.process_time() - start)
            off = (results["winograd"] - results["onednn"]).abs().max() / results["onednn"].abs().max()
            row["difference"] = float(off)
            rows.append(row)
            progress(f"{grid[0]}^3, {channels} -> {out}")
    return {"isa": torch.backends.cpu.get_cpu_capability(), "rows": rows}


def _show(isa: str, rows: list[dict]) -> None:
    cells, totals = [], [0.0, 0.0]
    for row in rows:
        plain, ours = min(row["onednn_s"]), min(row["winograd_s"])
        what = f"{row['side']}^3, {' + '.join(map(str, row['in']))} -> {row['out']}"
        used = "Winograd" if row["taken"] else "oneDNN"
        cells.append([what, f"{1000 * plain:.0f}", f"{1000 * ours:.0f}", f"{plain / ours:.2f}", used])
        for i, seconds in enumerate((plain, ours if row["taken"] else plain)):
            totals[i] += row["times"] * seconds
    header = ["3x3x3 convolution", "oneDNN ms", "Winograd ms", "times as fast", "the rule takes"]
    print_table(f"{isa}, one thread", header, cells)
    plain, ruled = totals
    print(f"all of them: oneDNN {plain:.2f} s, by the rule {ruled:.2f} s, {plain / ruled:.2f} times as fast")


if __name__ == "__main__":
    main()
