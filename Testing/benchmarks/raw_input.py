#!/usr/bin/env python3
"""What preparing raw images costs, and what it changes in the result.

    python Testing/benchmarks/raw_input.py --data FOLDER [--model quick] [--cases NAME ...]

FOLDER has raw/TCGA-FG-6692 (native series of one patient: skull on, 5.5 mm slices, four grids, not registered), its
prepared pair raw/TCGA-FG-6692_preprocessed, and brats/ (see the README beside the data). Measured are

raw     the native series through `segmamba predict`, with the brain mask that was found and with the one that came with
        the data, against the pair through the same model, and both against the pair's labels (fused from algorithms):
        Dice and shift of the centres of the regions, in the pair's space; seconds and memory of each step.
thick   BraTS cases whose four images are sampled anew in slices of 5 mm, axial, sagittal and coronal, each image on a
        grid of its own after a small move, T1c as well: Dice of the result against that of the case as it is, and of
        both against the expert's labels.

Writes results/raw_input.json and prints tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
import zlib
from pathlib import Path

import measure
import numpy as np
import registration
from segmamba.cases.case import Source, find_case, load_label_map, read_images, save_image
from segmamba.cases.labels import GLIOMA, to_regions
from segmamba.images.image_io import read_image
from segmamba.models.package import find_model, load_package
from segmamba.prediction.predict import PredictOptions, predict_case
from segmamba.preparation.grids import Grid, resample
from segmamba.preparation.plan import make_plan
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.register import register
from segmamba.preparation.run import prepare

PATIENT = "TCGA-FG-6692"
PLANES = {"axial": (1, 1, 5), "sagittal": (5, 1, 1), "coronal": (1, 5, 1)}


def compare(labels, others, affine):
    """Two label maps (X, Y, Z) on one grid -> Dice and mm between the centres, by region; None where one is empty."""
    found = {}
    for name, one in to_regions(labels).items():
        other = to_regions(others)[name]
        sizes = np.count_nonzero(one), np.count_nonzero(other)
        centres = [np.argwhere(region).mean(0) @ affine[:3, :3].T for region in (one, other) if region.any()]
        found[name] = {
            "dice": round(2 * np.count_nonzero(one & other) / sum(sizes), 4) if sum(sizes) else None,
            "shift_mm": round(float(np.linalg.norm(centres[0] - centres[1])), 2) if len(centres) == 2 else None,
            "ml": [round(size * abs(np.linalg.det(affine[:3, :3])) / 1000, 2) for size in sizes],
        }
    return found


def carried(labels, affine, grid, transform):
    """A label map on another grid, through its labels' shares: (X, Y, Z) uint8."""
    return (
        np.stack([resample(labels == value, affine, grid, transform) for value in range(4)]).argmax(0).astype(np.uint8)
    )


def run(model, sources, folder, name, **options):
    """-> label map (X, Y, Z), affine, summary."""
    summary = predict_case(model, sources, folder, name, PredictOptions(**options))
    image = read_image(folder / summary["files"]["label_map"])
    return np.asarray(image.array), image.affine, summary


class Peak:
    """Largest resident memory while something runs, in MB above what was there before."""

    def __enter__(self):
        self._going, self.mb = True, 0.0
        self._before = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._going = False
        self._thread.join()

    def _watch(self):
        while self._going:
            self.mb = max(self.mb, self._now() - self._before)
            time.sleep(0.01)

    @staticmethod
    def _now():
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6


def costs(sources, mask):
    """Processor seconds and memory of reading, planning and preparing."""
    found, images, plan = {}, None, None

    def measured(name, work):
        begin = time.process_time()
        with Peak() as peak:
            result = work()
        found[name] = {"cpu_seconds": round(time.process_time() - begin, 2), "peak_mb": round(peak.mb)}
        return result

    images = measured("read", lambda: read_images(sources))
    plan = measured("plan", lambda: make_plan(images, brain_given=mask is not None))
    done = measured("prepare", lambda: prepare(images, sources, "case", plan, mask=mask))
    found["steps"] = [step.as_json() for step in done.steps]
    found["actions"] = plan.as_json()["actions"]
    return found


def raw(model, data, folder):
    sources, pair = find_case_without_mask(data / "raw" / PATIENT), data / "raw" / f"{PATIENT}_preprocessed"
    mask = data / "raw" / PATIENT / "t1c_brainmask.nii.gz"
    labels, affine, summary = run(model, find_case(pair), folder, "pair")
    grid = Grid(labels.shape, affine)
    fused = load_label_map(pair / "seg.nii.gz", "brats2021", None)
    facts = {"pair_volumes_ml": summary["volumes_ml"], "pair_against_seg": compare(labels, fused, affine)}
    t1c, prepared_t1c = read_image(sources["t1c"]), read_image(pair / "t1c.nii.gz")
    there = register(make_levels(prepared_t1c.array, affine), make_levels(t1c.array, t1c.affine)).transform
    for name, given in (("brain mask of the data", mask), ("brain found", None)):
        measure.progress(f"raw: {name}")
        own, own_affine, summary = run(model, sources, folder, "raw", brain_mask=given)
        here = carried(own, own_affine, grid, there)
        facts[name] = {
            "against_pair": compare(here, labels, affine),
            "against_seg": compare(here, fused, affine),
            "volumes_ml": summary["volumes_ml"],
            "seconds": summary["seconds"],
            "notes": summary["notes"],
            "costs": costs(sources, read_image(given) if given else None),
        }
    return facts


def find_case_without_mask(folder):
    return {m: Source(folder / f"{m}.nii.gz") for m in ("t1n", "t1c", "t2w", "t2f")}


def thick(model, folder, case, out):
    """Rows for one case, one a plane."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    sources = {m: Source(case / f"{m}.nii.gz") for m in ("t1n", "t1c", "t2w", "t2f")}
    images, brain, affine = registration.read_case(case)
    expert = load_label_map(case / "seg.nii.gz", "brats2021", None)
    grid = Grid(brain.shape, affine)
    centre = np.argwhere(brain).mean(0) @ affine[:3, :3].T + affine[:3, 3]
    as_it_is, _, summary = run(model, sources, out, case.name)
    rows = []
    for plane, voxels in PLANES.items():
        measure.progress(f"{case.name} {plane}")
        made = {}
        for modality, image in images.items():
            move = np.eye(4) if modality == "t1c" else registration.draw_move(centre, rng, most=(8, 8))
            values, own = registration.scan(image, affine, move, centre, voxels, 180, rng)
            made[modality] = folder / f"{case.name}-{modality}.nii.gz"
            save_image(values, own, made[modality], np.float32)
        labels, own, summary = run(model, {m: Source(made[m]) for m in images}, out, f"{case.name}-{plane}")
        back = carried(labels, own, grid, np.eye(4))
        rows.append(
            {
                "case": case.name,
                "plane": plane,
                "against_as_it_is": compare(back, as_it_is, affine),
                "against_expert": compare(back, expert, affine),
                "as_it_is_against_expert": compare(as_it_is, expert, affine),
                "seconds": summary["seconds"],
                "notes": summary["notes"],
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="quick")
    parser.add_argument("--cases", nargs="*", help="these BraTS cases only")
    parser.add_argument("--only", choices=("raw", "thick"))
    options = parser.parse_args()
    model = load_package(find_model(options.model))
    facts = {**measure.describe(), "model": model.manifest.id}
    earlier = measure.RESULTS / "raw_input.json"
    if options.only and earlier.exists():
        facts = {**json.loads(earlier.read_text()), **facts}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.only != "thick":
            facts["raw"] = raw(model, options.data, folder)
            measure.write_results("raw_input", facts)
        if options.only != "raw":
            cases = sorted(f for f in (options.data / "brats").iterdir() if f.is_dir())
            cases = [f for f in cases if f.name not in registration.SKIPPED]
            cases = [f for f in cases if not options.cases or f.name in options.cases]
            facts["thick"] = []
            for case in cases:
                facts["thick"] += thick(model, folder, case, folder)
                measure.write_results("raw_input", facts)
    show(facts)


def show(facts):
    if "raw" in facts:
        rows = []
        for name in ("brain mask of the data", "brain found"):
            found = facts["raw"][name]["against_pair"]
            rows.append([name, *(f"{found[r]['dice']} / {found[r]['shift_mm']} mm" for r in GLIOMA.regions)])
        measure.print_table("Raw against prepared pair: Dice / shift", ["brain", *GLIOMA.regions], rows)
    if "thick" in facts:
        rows = []
        for plane in PLANES:
            here = [row for row in facts["thick"] if row["plane"] == plane]
            cells = [plane]
            for key in ("against_as_it_is", "against_expert", "as_it_is_against_expert"):
                for region in GLIOMA.regions:
                    values = [row[key][region]["dice"] for row in here]
                    values = [value for value in values if value is not None]
                    cells.append(f"{np.mean(values):.3f}" if values else "")
            rows.append(cells)
        header = [f"{who} {region}" for who in ("same", "expert", "expert, 1 mm") for region in GLIOMA.regions]
        measure.print_table("5 mm slices: mean Dice", ["plane", *header], rows)


if __name__ == "__main__":
    main()
