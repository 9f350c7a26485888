"""`python Testing/benchmarks/shipped_cases.py OUT CASE ...`: labelled cases as small files, on the grid of `quick`.

So were made the cases of Resources/cases. Each CASE is a folder with t1n, t1c, t2w, t2f and seg.nii.gz (1 NCR, 2 ED,
3 ET), skull-stripped and co-registered. OUT gets a folder of
each: 2 mm, every image in 63 steps from its darkest to its brightest brain, so about half a megabyte a case. A voxel is
brain, or of a label, where most of it was; its intensity is the mean of what was brain in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from segmamba.images.resample import Axis, to_model

SPACING = 2.0  # mm
STEPS = 63
IMAGES = ("t1n", "t1c", "t2w", "t2f")
nib.openers.Opener.default_compresslevel = 9


def main() -> None:
    parser = argparse.ArgumentParser(description="Labelled cases as small files.")
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", type=Path, nargs="+")
    options = parser.parse_args()
    for case in options.cases:
        folder = options.out / case.name
        folder.mkdir(parents=True)
        for name in IMAGES:
            write(folder, case, name, small_image)
        write(folder, case, "seg", small_label)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {size / 1e6:.2f} MB", flush=True)


def write(folder: Path, case: Path, name: str, smaller) -> None:
    image: nib.Nifti1Image = nib.load(case / f"{name}.nii.gz")
    array, spacing = np.asarray(image.dataobj), image.header.get_zooms()[:3]
    axes = [Axis.over(0, size, side, SPACING) for size, side in zip(array.shape, spacing, strict=True)]
    to_old = np.diag([*(axis.step for axis in axes), 1.0])
    to_old[:3, 3] = [axis.centres()[0] for axis in axes]
    made = nib.Nifti1Image(smaller(array, axes), image.affine @ to_old)
    made.header.set_xyzt_units("mm")
    nib.save(made, folder / f"{name}.nii.gz")


def small_image(array: np.ndarray, axes: list[Axis]) -> np.ndarray:
    brain = array != 0
    share = on_grid(brain, axes)
    mean = on_grid(array, axes) / np.maximum(share, 1e-6)
    low, high = np.percentile(array[brain], (0.05, 99.95))
    steps = np.clip(np.round((mean - low) / (high - low) * (STEPS - 1)), 0, STEPS - 1) + 1
    return np.where(share > 0.5, steps, 0).astype(np.uint8)


def small_label(array: np.ndarray, axes: list[Axis]) -> np.ndarray:
    values = np.unique(array).astype(int)
    if not set(values) <= {0, 1, 2, 3}:
        raise SystemExit(f"labels {values.tolist()}: expected 1 NCR, 2 ED, 3 ET")
    return values[np.argmax([on_grid(array == value, axes) for value in values], axis=0)].astype(np.uint8)


def on_grid(array: np.ndarray, axes: list[Axis]) -> np.ndarray:
    return to_model(torch.from_numpy(array.astype(np.float32)), axes).numpy()


if __name__ == "__main__":
    main()
