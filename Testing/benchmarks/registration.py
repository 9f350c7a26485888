#!/usr/bin/env python3
"""How well the images of a case are registered: known rigid moves of real images onto T1c.

    python Testing/benchmarks/registration.py --brats FOLDER [--moves 6] [--cases NAME ...]

Each t1n, t2w and t2f of the BraTS cases in FOLDER is moved by up to 30 mm and 30 degrees and sampled on another,
tilted grid, stored in a random order of axes: at 1 mm, in slices of 5 mm along each axis, with T1c in thick slices
too, and cut to a slab of 70 mm. Once as the bare brain that the files hold, once with a simulated skull and scalp
around it, which move with it. The error is the mean distance in mm, over the brain, between where a point was put and
where it was found; seconds are processor time. What cannot succeed is tried too, and ought to be refused: heads turned
over by more than 100 degrees, and the head of another patient. Cases that are badly registered as distributed are named
in SKIPPED and left out.

Writes results/registration.json and prints a table. The file's section "limit" is registration_limit.py's and stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import zlib
from pathlib import Path

import measure
import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from segmamba.images.image_io import read_image
from segmamba.preparation.grids import blocks, resample
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.register import register

SKIPPED = ("BraTS2021_01480", "BraTS2021_01481")  # 1.4 to 3 mm off in z as distributed
MOVING = ("t1n", "t2w", "t2f")
# name -> voxels of the moving image, voxels of T1c (None: as it is), mm of the field of view along the slices
SETTINGS = {
    "1 mm": ((1, 1, 1), None, 180),
    "5 mm axial": ((0.9, 0.9, 5), None, 180),
    "5 mm sagittal": ((5, 0.9, 0.9), None, 180),
    "5 mm coronal": ((0.9, 5, 0.9), None, 180),
    "both thick": ((0.9, 5, 0.9), (0.9, 0.9, 5.5), 180),
    "slab of 70 mm": ((0.9, 0.9, 5), None, 70),
}
OVER, STRANGER = "turned over", "other patient"
# brightness against the median of the brain: (fluid, bone, scalp)
AROUND = {"t1n": (0.35, 0.12, 1.6), "t1c": (0.35, 0.14, 1.5), "t2w": (1.8, 0.1, 0.9), "t2f": (0.3, 0.1, 1.2)}


def put_head_around(image, brain, layers, modality, rng):
    """(X, Y, Z) of a bare brain -> with fluid, bone and scalp, and with noise in the air."""
    level = float(np.median(image[brain]))
    result = image / level
    for part, brightness in zip(layers, AROUND[modality]):
        result[part] = brightness * (1 + 0.15 * rng.standard_normal(np.count_nonzero(part), dtype=np.float32))
    noise = 0.03 * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.hypot(result + noise[0] * ~brain, noise[1] * ~brain)


def find_layers(brain, rng):
    """Where fluid, bone and scalp of uneven thickness lie around a brain."""
    distance = ndimage.distance_transform_edt(~brain)
    rough = ndimage.zoom(rng.standard_normal((3, *(n // 24 + 2 for n in brain.shape))), (1, 24, 24, 24), order=1)
    rough = rough[(slice(None), *(slice(n) for n in brain.shape))]
    ends, start = [], np.zeros(brain.shape, np.float32)
    for thickness, uneven in zip((2.5, 6.0, 6.0), rough):
        start = start + np.clip(thickness * (1 + 0.35 * uneven), 0.5, None)
        ends.append(start)
    within = [(distance > 0) & (distance <= end) for end in ends]
    return within[0], within[1] & ~within[0], within[2] & ~within[1]


def draw_move(centre, rng, far=False, most=(30, 30)):
    """A turn by 0 to 30 degrees, or, far, by 100 to 180, and a shift of 0 to 30 mm, about `centre`; (4, 4) RAS mm.

    most: other degrees and mm than 30.
    """
    axis, way = rng.standard_normal((2, 3))
    turn = Rotation.from_rotvec(
        np.radians(rng.uniform(*((100, 180) if far else (0, most[0])))) * axis / np.linalg.norm(axis)
    ).as_matrix()
    move = np.eye(4)
    move[:3, :3] = turn
    move[:3, 3] = centre - turn @ centre + rng.uniform(0, most[1]) * way / np.linalg.norm(way)
    return move


def scan(image, affine, move, centre, voxels, slab, rng):
    """The moved image as a scanner might store it: tilted, its middle off by some mm, axes in any order.

    A voxel is the mean over its extent, which matters for thick slices.
    """
    voxels = np.array(voxels, float)
    extent = np.array([220.0, 230.0, slab])
    axis = rng.standard_normal(3)
    tilt = Rotation.from_rotvec(np.radians(rng.uniform(0, 10)) * axis / np.linalg.norm(axis)).as_matrix()
    count = np.ceil(extent / voxels).astype(int)
    parts = np.maximum(np.rint(voxels).astype(int), 1)
    fine = np.eye(4)
    fine[:3, :3] = tilt @ np.diag(voxels / parts)
    fine[:3, 3] = centre + rng.uniform(-8, 8, 3) - fine[:3, :3] @ ((count * parts - 1) / 2)
    # moved by the affine, in one interpolation that is not that of the code under test
    index = np.linalg.inv(move @ affine) @ fine
    values = ndimage.affine_transform(
        image, index[:3, :3], index[:3, 3], tuple(count * parts), order=1, mode="constant", output=np.float32
    )
    grid = fine.copy()
    grid[:3, :3] *= parts
    grid[:3, 3] += fine[:3, :3] @ ((parts - 1) / 2)
    order = np.stack([rng.permutation(3), rng.choice([-1, 1], 3)], 1).astype(float)
    values = blocks(values, parts)
    stored = np.ascontiguousarray(nib.orientations.apply_orientation(values, order))
    return stored, grid @ nib.orientations.inv_ornt_aff(order, values.shape)


def one_run(images, brain, affine, modality, setting, with_head, rng):
    """-> a row of the result file."""
    points = np.argwhere(brain)[::200] @ affine[:3, :3].T + affine[:3, 3]
    centre = points.mean(0)
    voxels, fixed_voxels, slab = SETTINGS.get(setting, SETTINGS["5 mm axial"])
    move = draw_move(centre, rng, far=setting == OVER)
    moving = scan(images[modality], affine, move, centre, voxels, slab, rng)
    fixed = (images["t1c"], affine)
    if fixed_voxels:
        fixed = scan(*fixed, np.eye(4), centre, fixed_voxels, slab, rng)
    begin = time.process_time()
    levels, other = make_levels(*fixed), make_levels(*moving)
    within = None
    if with_head:  # a brain mask is there before the registration
        within = [resample(brain, affine, level.grid) > 0.5 for level in levels]
    found = register(levels, other, within=within)
    seconds = time.process_time() - begin

    def error(transform):
        difference = np.linalg.inv(transform) - move
        return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())

    return {
        "modality": modality,
        "setting": setting,
        "head": with_head,
        "moved_mm": round(float(np.linalg.norm(points @ (move - np.eye(4))[:3, :3].T + move[:3, 3], axis=1).mean()), 2),
        "error_mm": round(error(found.transform), 3),
        "seconds": round(seconds, 2),
        **{name: round(float(getattr(found, name)), 4) for name in ("quality", "information", "overlap", "seen")},
        "agreeing": found.agreeing,
        "starts": found.starts,
        "problem": found.problem,
    }


def read_case(folder):
    files = {m: read_image(folder / f"{m}.nii.gz") for m in (*MOVING, "t1c")}
    images = {m: np.asarray(image.array, np.float32) for m, image in files.items()}
    return images, images["t1c"] > 0, files["t1c"].affine


def summarise(rows):
    errors = np.array([row["error_mm"] for row in rows])
    return {
        "runs": len(rows),
        "under_1_mm": round(float((errors < 1).mean()), 4),
        "under_2_mm": round(float((errors < 2).mean()), 4),
        "median_mm": round(float(np.median(errors)), 3),
        "largest_mm": round(float(errors.max()), 2),
        "refused": sum(row["problem"] is not None for row in rows),
        "median_seconds": round(float(np.median([row["seconds"] for row in rows])), 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--brats", type=Path, required=True, help="folder of the BraTS case folders")
    parser.add_argument("--moves", type=int, default=6, help="of each image with a head; half as many bare")
    parser.add_argument("--cases", nargs="*", help="these case folders only")
    parser.add_argument("--name", default="registration", help="of the result file")
    options = parser.parse_args()
    folders = sorted(f for f in options.brats.iterdir() if f.is_dir() and f.name not in SKIPPED)
    folders = [f for f in folders if not options.cases or f.name in options.cases]
    facts, rows, before = measure.describe(), [], None
    for folder in folders:
        rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
        bare, brain, affine = read_case(folder)
        layers = find_layers(brain, rng)
        heads = {m: put_head_around(image, brain, layers, m, rng) for m, image in bare.items()}
        for modality, (setting, with_head) in itertools.product(MOVING, runs(options.moves)):
            images = heads if with_head else bare
            if setting == STRANGER:
                if before is None:
                    continue
                images = {**heads, modality: before[modality]}
            row = one_run(images, brain, affine, modality, setting, with_head, rng)
            rows.append({"case": folder.name, **row})
            measure.progress(
                f"{folder.name} {modality} {setting}, {with_head=}: {row['error_mm']} mm {row['problem'] or ''}"
            )
        before = heads
        write(options.name, facts, rows)
    show(rows)


def runs(moves):
    """(setting, whether there is a head) of each image."""
    names = [list(SETTINGS)[number % len(SETTINGS)] for number in range(moves)]
    return [(n, True) for n in names] + [(n, False) for n in names[::2]] + [(OVER, True), (STRANGER, True)]


def write(name, facts, rows):
    groups = {"all": [row for row in rows if row["setting"] in SETTINGS]}
    groups |= {setting: [row for row in rows if row["setting"] == setting] for setting in (OVER, STRANGER)}
    for with_head in (True, False):
        here = [row for row in groups["all"] if row["head"] == with_head]
        groups["head" if with_head else "bare brain"] = here
        for setting in SETTINGS:
            groups[f"{'head' if with_head else 'bare brain'}, {setting}"] = [r for r in here if r["setting"] == setting]
    summary = {title: summarise(group) for title, group in groups.items() if group}
    file = measure.RESULTS / f"{name}.json"
    limit = json.loads(file.read_text(encoding="utf-8")).get("limit") if file.is_file() else None
    facts = {**facts, "left_out": list(SKIPPED), "summary": summary, "runs": rows}
    measure.write_results(name, facts | ({"limit": limit} if limit else {}))


def show(rows):
    cells = []
    for with_head, setting in itertools.product((True, False), (*SETTINGS, OVER, STRANGER)):
        here = [row for row in rows if row["head"] == with_head and row["setting"] == setting]
        if here:
            values = [str(value) for value in summarise(here).values()]
            cells.append([f"{'head' if with_head else 'bare brain'}, {setting}", *values])
    header = ["images", "runs", "< 1 mm", "< 2 mm", "median mm", "largest mm", "refused", "seconds"]
    measure.print_table("Registration onto T1c: mean error over the brain", header, cells)


if __name__ == "__main__":
    main()
