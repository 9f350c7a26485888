"""Brain extraction, measured: Dice, distances, volume, share of the tumour kept, seconds of one core.

    python Testing/benchmarks/brain.py [--data ../shared/data] [--cases 9]

On real stripped cases with a simulated head around them (segmamba.datasets.phantom.head), turned up to 20 degrees and
moved, at 1 mm and in slices of 5 mm, axial, coronal and sagittal; in all four modalities for some; and on one native
T1c with its own brain mask. Writes results/brain.json. CPU seconds are those of one thread and include neither
start-up nor the template, which is read once.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(_name, "1")

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from measure import HERE, describe, print_table, progress, write_results  # noqa: E402
from scipy import ndimage  # noqa: E402
from segmamba.datasets.phantom.head import add_head  # noqa: E402
from segmamba.errors import InputError  # noqa: E402
from segmamba.preparation.brain import brain_mask  # noqa: E402
from segmamba.preparation.brain.template import load_template  # noqa: E402

MODALITIES = ("t1c", "t1n", "t2w", "t2f")
_DEGREES, _MM = 20, 20
_NATIVE = "TCGA-FG-6692"


def main() -> None:
    """Measure, print a table, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--cases", type=int, default=9)
    parser.add_argument("--all-modalities", type=int, default=2, metavar="N", help="of the first N cases")
    options = parser.parse_args()
    load_template()
    rows = []
    folders = sorted((options.data / "brats").iterdir())[: options.cases]
    for number, folder in enumerate(folders):
        for modality in MODALITIES if number < options.all_modalities else MODALITIES[:1]:
            rows += simulated(folder, modality, number)
    rows += simulated(options.data / "raw" / f"{_NATIVE}_preprocessed", "t1c", len(folders))
    rows.append(native(options.data / "raw" / _NATIVE))
    facts = {"summary": summarise(rows), "rows": rows, "peak_mb": round(_peak_mb()), **describe()}
    write_results("brain", facts)
    names = ("dice", "mean_mm", "p95_mm", "volume_percent", "tumour_kept", "cpu_seconds")
    table = [[row["case"], *(f"{row[n]:.3f}" if row.get(n) is not None else "" for n in names)] for row in rows]
    print_table("Brain extraction with the atlas", ("case", *names), table)
    for name, values in facts["summary"].items():
        print(name, values)


def simulated(folder: Path, modality: str, seed: int) -> list[dict]:
    """Rows of one case: turned, and turned in thick slices."""
    image = nib.as_closest_canonical(nib.load(folder / f"{modality}.nii.gz"))
    brain = np.maximum(np.asarray(image.dataobj, np.float32), 0)
    rng = np.random.default_rng([seed, MODALITIES.index(modality)])
    head, mask, before = add_head(brain, 1.0, rng, modality)
    tumour = np.zeros_like(mask)
    label = np.asarray(nib.as_closest_canonical(nib.load(folder / "seg.nii.gz")).dataobj) > 0
    tumour[tuple(slice(b, b + n) for b, n in zip(before, label.shape))] = label
    rows = []
    for slices in (None, seed % 3):
        turned, affine, truth, lesion = move(head, mask, tumour, rng, slices)
        grid = "1 mm" if slices is None else f"{('sagittal', 'coronal', 'axial')[slices]} 5 mm"
        row = judge(f"{folder.name} {modality} {grid}", turned, affine, truth, lesion, modality)
        rows.append({"kind": "simulated", "modality": modality, "thick": slices is not None, **row})
    return rows


def native(folder: Path) -> dict:
    """The row of the native T1c."""
    image = nib.load(folder / "t1c.nii.gz")
    truth = np.asarray(nib.load(folder / "t1c_brainmask.nii.gz").dataobj) > 0
    head = np.asarray(image.dataobj, np.float32)
    row = judge(f"{folder.name} t1c native", head, image.affine, truth, None, "t1c")
    return {"kind": "native", "modality": "t1c", "thick": True, **row}


def move(head, mask, tumour, rng, slices):
    """A random turn and shift: of the affine alone at 1 mm, or onto an upright grid, slices of 5 mm along an axis."""
    axis = rng.standard_normal(3)
    turn = _turn(axis / np.linalg.norm(axis), np.deg2rad(rng.uniform(0, _DEGREES)))
    shift, middle = rng.uniform(-_MM, _MM, 3), (np.array(head.shape) - 1) / 2
    affine = np.eye(4)
    if slices is None:
        affine[:3, :3], affine[:3, 3] = turn, shift - turn @ middle
        return head, affine, mask, tumour
    shape = np.array(head.shape) + 10
    shape[slices] -= shape[slices] % 5
    centre = (shape - 1) / 2

    def sample(values):
        moved = ndimage.affine_transform(
            values.astype(np.float32), turn.T, middle - turn.T @ centre, tuple(shape), order=1
        )
        moved = np.moveaxis(moved, slices, 0)
        return np.moveaxis(moved.reshape(-1, 5, *moved.shape[1:]).mean(1), 0, slices)

    affine[:3, 3] = shift - centre
    affine[slices, slices] = 5
    affine[slices, 3] += 2
    return sample(head), affine, sample(mask) > 0.5, sample(tumour) > 0.5


def judge(name: str, image, affine, truth, tumour, modality: str) -> dict:
    """One extraction against its truth."""
    start, clock = time.process_time(), time.perf_counter()
    try:
        result = brain_mask(image, affine, modality=modality, method="atlas")
    except InputError as error:
        progress(f"{name}: refused: {error}")
        return {"case": name, "refused": str(error)}
    cpu, wall = time.process_time() - start, time.perf_counter() - clock
    found, spacing = result.mask, np.linalg.norm(affine[:3, :3], axis=0)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    far = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    distances = np.concatenate([far[0][edges[1]], far[1][edges[0]]])
    row = {
        "case": name,
        "dice": float(2 * (found & truth).sum() / (found.sum() + truth.sum())),
        "mean_mm": float(distances.mean()),
        "p95_mm": float(np.percentile(distances, 95)),
        "truth_ml": float(truth.sum() * spacing.prod() / 1000),
        "volume_percent": float(100 * (found.sum() / truth.sum() - 1)),
        "missed": float((truth & ~found).sum() / truth.sum()),
        "tumour_kept": float((tumour & found).sum() / tumour.sum()) if tumour is not None and tumour.any() else None,
        "quality": result.quality,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
    }
    row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    progress(f"{name}: Dice {row['dice']:.3f}, {row['p95_mm']:.1f} mm, tumour {row['tumour_kept']}, {cpu:.0f} s")
    return row


def summarise(rows: list[dict]) -> dict:
    """Mean and worst of each group."""
    groups = {
        "simulated t1c 1 mm": [
            r for r in rows if r["kind"] == "simulated" and r["modality"] == "t1c" and not r["thick"]
        ],
        "simulated t1c 5 mm": [r for r in rows if r["kind"] == "simulated" and r["modality"] == "t1c" and r["thick"]],
        **{
            f"simulated {m}": [r for r in rows if r["kind"] == "simulated" and r["modality"] == m]
            for m in MODALITIES[1:]
        },
        "native t1c": [r for r in rows if r["kind"] == "native"],
    }
    summary = {}
    for name, group in groups.items():
        done = [r for r in group if "dice" in r]
        if not done:
            continue
        kept = [r["tumour_kept"] for r in done if r["tumour_kept"] is not None]
        summary[name] = {
            "images": len(group),
            "refused": len(group) - len(done),
            "dice_mean": round(float(np.mean([r["dice"] for r in done])), 4),
            "dice_worst": min(r["dice"] for r in done),
            "mean_mm": round(float(np.mean([r["mean_mm"] for r in done])), 2),
            "p95_mm_mean": round(float(np.mean([r["p95_mm"] for r in done])), 2),
            "volume_percent_mean": round(float(np.mean([r["volume_percent"] for r in done])), 2),
            "tumour_kept_worst": min(kept, default=None),
            "least_quality": min(r["quality"] for r in done),
            "cpu_seconds_most": max(r["cpu_seconds"] for r in done),
        }
    return summary


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    main()
