#!/usr/bin/env python3
"""Whether the registration's limits tell right from wrong on images that they were not set on.

    python Testing/benchmarks/registration_limit.py --brats FOLDER --raw FOLDER

The limits of preparation.register were set on the runs of registration.py. Here are the cases that it leaves out
(badly registered as distributed, by up to 3 mm), another patient's native series in FOLDER (registered by nobody) and
their prepared pair beside them (FOLDER_preprocessed), with other random numbers. Right: the same head, moved by a known
amount. Wrong, and to be refused: another patient's head, a mirrored image, one that is upside down or turned over, and
noise.

Adds the section "limit" to results/registration.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from pathlib import Path

import measure
import numpy as np
from registration import MOVING, SETTINGS, SKIPPED, draw_move, find_layers, put_head_around, read_case, scan
from scipy import ndimage
from segmamba.images.image_io import read_image
from segmamba.preparation.grids import resample, upright
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.register import _LEAST_AGREEING, _LEAST_QUALITY, register

SEED = 7_390_211  # of none of registration.py's runs
RIGHT, STRANGER, MIRRORED, OVER, NOISE = "same head", "other patient", "mirrored", "upside down or turned over", "noise"
PAIR, NATIVE = "prepared pair", "native series"


class Heads:
    """The cases: by name, images with a simulated head around the brain, and bare; and the native series."""

    def __init__(self, brats: Path, raw: Path):
        self.rng = np.random.default_rng(SEED)
        self.bare, self.heads, self.brain, self.affine = {}, {}, {}, {}
        folders = {name: brats / name for name in SKIPPED} | {PAIR: raw.with_name(f"{raw.name}_preprocessed")}
        for name, folder in folders.items():
            own = np.random.default_rng(SEED + zlib.crc32(name.encode()))
            self.bare[name], self.brain[name], self.affine[name] = read_case(folder)
            layers = find_layers(self.brain[name], own)
            images = self.bare[name].items()
            self.heads[name] = {m: put_head_around(i, self.brain[name], layers, m, own) for m, i in images}
        files = {m: read_image(raw / f"{m}.nii.gz") for m in (*MOVING, "t1c")}
        self.native = {m: (np.asarray(f.array, np.float32), f.affine) for m, f in files.items()}
        mask = read_image(raw / "t1c_brainmask.nii.gz")
        self.native_brain = np.asarray(mask.array, np.float32), mask.affine

    def centre(self, name):
        """RAS mm of the middle of the brain, and some points in it."""
        brain, affine = self.native_brain if name == NATIVE else (self.brain[name], self.affine[name])
        points = np.argwhere(brain > 0)[::200] @ affine[:3, :3].T + affine[:3, 3]
        return points.mean(0), points

    def fixed(self, name, bare=False):
        """T1c, and the brain mask on it."""
        if name == NATIVE:
            return self.native["t1c"], self.native_brain
        images = self.bare if bare else self.heads
        brain = None if bare else (self.brain[name].astype(np.float32), self.affine[name])
        return (images[name]["t1c"], self.affine[name]), brain

    def moving(self, name, modality, voxels, bare=False, far=False):
        """-> (image, affine), and how it was moved."""
        centre, _ = self.centre(name)
        move = draw_move(centre, self.rng, far=far)
        if name == NATIVE:  # the grid goes with the head
            array, affine = self.native[modality]
            return (array, move @ affine), move
        image = (self.bare if bare else self.heads)[name][modality]
        return scan(image, self.affine[name], move, centre, voxels, 180, self.rng), move


def onto_t1c(heads):
    """modality -> where the native series lies on the native T1c, as the pair says, which another program registered:
    each is registered onto its prepared self, which is the same image."""
    ways = {}
    for modality in (*MOVING, "t1c"):
        levels = make_levels(heads.bare[PAIR][modality], heads.affine[PAIR])
        ways[modality] = register(levels, make_levels(*heads.native[modality])).transform
    return {m: np.linalg.inv(ways["t1c"]) @ way for m, way in ways.items()}


def flipped(image, axis):
    """As if the header had that axis (0: left to right, 2: down to up) the wrong way round."""
    array, affine = upright(*image)
    return np.ascontiguousarray(np.flip(array, axis)), affine


def runs(heads):
    """(kind, what, fixed, brain, moving, truth: moving to fixed, or None, points of the brain)."""
    thick, sagittal, coronal = (SETTINGS[f"5 mm {way}"][0] for way in ("axial", "sagittal", "coronal"))

    def of(kind, name, modality, voxels=thick, bare=False, source=None, far=False, flip=None):
        fixed, brain = heads.fixed(name, bare)
        moving, move = heads.moving(source or name, modality, voxels, bare, far)
        truth = np.linalg.inv(move) if kind == RIGHT else None
        what = f"{name} {modality}" + (f" of {source}" if source else "") + (", bare brain" if bare else "")
        if flip is not None:
            moving = flipped(moving, flip)
        return kind, what, fixed, brain, moving, truth, heads.centre(name)[1]

    one, other = SKIPPED
    native_ways = onto_t1c(heads)
    for modality in MOVING:
        for name in SKIPPED:
            yield of(RIGHT, name, modality)
            yield of(RIGHT, name, modality, sagittal, bare=True)
        yield of(RIGHT, PAIR, modality, coronal)
        fixed, brain = heads.fixed(NATIVE)
        points, way = heads.centre(NATIVE)[1], native_ways[modality]
        yield RIGHT, f"{NATIVE} {modality}, as taken", fixed, brain, heads.native[modality], way, points
        kind, what, fixed, brain, moving, truth, points = of(RIGHT, NATIVE, modality)
        yield kind, f"{what}, moved", fixed, brain, moving, way @ truth, points
    for modality in MOVING:
        yield of(STRANGER, one, modality, source=other)
        yield of(STRANGER, other, modality, source=PAIR)
        yield of(STRANGER, NATIVE, modality, source=one)
    yield of(STRANGER, one, "t2f", sagittal, bare=True, source=other)
    yield of(STRANGER, PAIR, "t1n", coronal, bare=True, source=one)
    for name, modality in ((one, "t2w"), (other, "t2f"), (PAIR, "t1n"), (NATIVE, "t2f"), (NATIVE, "t2w")):
        yield of(MIRRORED, name, modality, flip=0)
    for name, modality in ((one, "t1n"), (NATIVE, "t2w")):
        yield of(OVER, name, modality, flip=2)
    for name, modality in ((other, "t2w"), (NATIVE, "t1n")):
        yield of(OVER, name, modality, far=True)
    for name, sigma in ((NATIVE, 3), (PAIR, 6)):
        fixed, brain = heads.fixed(name)
        noise = ndimage.gaussian_filter(heads.rng.standard_normal((110, 110, 60)), (sigma, sigma, sigma / 2))
        affine = np.diag([2.0, 2.0, 3.0, 1])
        affine[:3, 3] = heads.centre(name)[0] - (110, 110, 90)
        yield NOISE, f"{name} and noise", fixed, brain, ((noise - noise.min()).astype(np.float32), affine), None, None


def one_run(kind, what, fixed, brain, moving, truth, points):
    begin = time.process_time()
    levels, other = make_levels(*fixed), make_levels(*moving)
    within = None if brain is None else [resample(*brain, level.grid) > 0.5 for level in levels]
    found = register(levels, other, within=within)
    error = None
    if truth is not None:  # over the brain, in the moving image's space
        difference = np.linalg.inv(found.transform) - np.linalg.inv(truth)
        error = round(float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean()), 2)
    return {
        "kind": kind,
        "what": what,
        "error_mm": error,
        **{name: round(float(getattr(found, name)), 3) for name in ("quality", "overlap", "seen", "moved_mm")},
        "agreeing": found.agreeing,
        "starts": found.starts,
        "problem": found.problem,
        "seconds": round(time.process_time() - begin, 1),
    }


def summarise(rows):
    errors = [row["error_mm"] for row in rows if row["error_mm"] is not None]
    quality = [row["quality"] for row in rows]
    summary = {"runs": len(rows), "refused": sum(row["problem"] is not None for row in rows)}
    summary |= {"quality_from": min(quality), "quality_to": max(quality)}
    return summary | ({"largest_error_mm": max(errors)} if errors else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--brats", type=Path, required=True, help="folder of the BraTS case folders")
    parser.add_argument("--raw", type=Path, required=True, help="folder of a patient's native series, pair beside it")
    options = parser.parse_args()
    facts, rows = measure.describe(), []
    for arguments in runs(Heads(options.brats, options.raw)):
        rows.append(one_run(*arguments))
        row = rows[-1]
        measure.progress(f"{row['kind']}, {row['what']}: {row['error_mm']} mm, {row['quality']} {row['problem'] or ''}")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    summary = {kind: summarise([row for row in rows if row["kind"] == kind]) for kind in kinds}
    limits = {"quality": _LEAST_QUALITY, "agreeing": _LEAST_AGREEING}
    file = measure.RESULTS / "registration.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    section = {**facts, "limits": limits, "summary": summary, "runs": rows}
    measure.write_results("registration", {**before, "limit": section})
    cells = [[kind, *(str(values.get(key, "")) for key in list(summary[RIGHT]))] for kind, values in summary.items()]
    measure.print_table("Registration: what is let pass", ["images", *summary[RIGHT]], cells)


if __name__ == "__main__":
    main()
