#!/usr/bin/env python3
"""How long it takes to measure a label map of 240 x 240 x 155 voxels with 30 lesions, on one core.

    python Testing/benchmarks/measure_lesions.py [--repeats 3]

The lesions are rough blobs, rings and plates of 6 to 40 mm, none touching another, drawn from a fixed seed. Seconds are
processor time of the best of the repeats: of the lesions with their diameters (segmamba.followup.lesions.measure), and
of the two other borders in the slices (segmamba.followup.spread). Writes results/measure_lesions.json.
"""

from __future__ import annotations

import argparse
import json
import time

import measure as benchmark
import numpy as np
from scipy import ndimage
from segmamba.followup.lesions import measure
from segmamba.followup.spread import spread

SHAPE, COUNT, LIMIT_SECONDS = (240, 240, 155), 30, 5.0


def draw(seed: int = 0) -> np.ndarray:
    """(X, Y, Z) uint8 label map with COUNT lesions of label 3, each in a cell of its own."""
    rng = np.random.default_rng(seed)
    label_map = np.zeros(SHAPE, np.uint8)
    cells = [(x, y, z) for x in range(4) for y in range(4) for z in range(2)][:COUNT]
    for number, cell in enumerate(cells):
        middle = np.array([30, 30, 38]) + np.array(cell) * (60, 60, 77)
        radius = rng.uniform(3, 20)
        start = middle - 24
        box = tuple(slice(max(0, a), a + 48) for a in start)
        x, y, z = np.meshgrid(
            *(np.arange(s.start, s.start + n) for s, n in zip(box, label_map[box].shape)), indexing="ij"
        )
        rough = ndimage.gaussian_filter(rng.normal(size=x.shape), 3)
        rough *= 0.25 / rough.std()
        away = np.sqrt(
            (x - middle[0]) ** 2 + (y - middle[1]) ** 2 + ((z - middle[2]) * (3 if number % 3 == 2 else 1)) ** 2
        )
        lesion = away / radius + rough < 1
        if number % 3 == 1:
            lesion &= away / radius + rough > 0.7
        pieces, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
        largest = np.argmax(np.bincount(pieces.ravel())[1:]) + 1
        label_map[box][pieces == largest] = 3
    return label_map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    label_map, affine = draw(), np.diag([-1.0, -1.0, 1.0, 1.0])
    seconds = {"lesions": [], "other borders": []}
    for _ in range(repeats):
        begin = time.process_time()
        measured = measure(label_map, affine)
        middle = time.process_time()
        spread(measured, [1, 2, 3])
        seconds["lesions"].append(middle - begin)
        seconds["other borders"].append(time.process_time() - middle)
    assert len(measured.lesions) == COUNT, len(measured.lesions)
    found = {
        "shape": SHAPE,
        "lesions": len(measured.lesions),
        "measurable": sum(lesion.measurable for lesion in measured.lesions),
        "voxels": int(np.count_nonzero(label_map)),
        "longest_mm": round(max(lesion.d1 for lesion in measured.lesions), 1),
        "seconds": {name: round(min(values), 2) for name, values in seconds.items()},
        "limit_seconds": LIMIT_SECONDS,
    }
    print(json.dumps(found, indent=2))
    benchmark.write_results("measure_lesions", {**benchmark.describe(), **found})


if __name__ == "__main__":
    main()
