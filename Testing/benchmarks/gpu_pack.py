"""`make gpu-pack`: one folder that a machine with a GPU and without network or images needs for `gpu-run`.

OUTPUT/cases/NAME     training cases of each data set: as many as fit, preprocessed, cropped, packed (training.packed)
OUTPUT/cases/patches  lesion crops, where there are any
OUTPUT/wheels         what such a machine lacks for the networks beside ours
OUTPUT/Training, OUTPUT/Testing   the engine and these scripts, as they are committed or not yet

    python gpu_pack.py runs/data/brats runs/data/brats_2018 --patches crops.npz --output runs/gpu-pack
    python runs/gpu-pack/Testing/benchmarks/gpu_run.py --output $OUT      # there
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure import HERE, describe, progress
from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import SPLIT, read_split, training_cases
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder
from segmamba.models.specs import PreprocessSpec
from segmamba.training.packed import Packed, write_packed
from segmamba.training.patches import prepare_patches, read_patches
from segmamba.training.plan import check_patients_apart
from segmamba.training.samples import TrainingCase, prepare

ROOT = HERE.parents[1]
MODALITIES = ("t1n", "t1c", "t2w", "t2f")
WHEELS = ("monai", "einops")  # both are Python alone
SOURCES = ("Training", "Testing/benchmarks/*.py", "Testing/engine/scan_inputs.py", "constraints.txt")
PATCHES = "patches"
PATCH_SHARE = 0.2  # of the room, at most: crops of a lesion show less than a case


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Packs cases, scripts and wheels for a machine with a GPU.")
    parser.add_argument("datasets", nargs="+", help="data sets, with dataset.json")
    parser.add_argument("--patches", help="a file of lesion crops (training.patches)")
    parser.add_argument("--fold", type=int, default=0, help="of data sets split by folds: left out, to be judged on")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm")
    parser.add_argument("--most", type=float, default=60, help="MiB of the whole folder")
    parser.add_argument("--output", default="runs/gpu-pack")
    parser.add_argument("--cache", default="runs/cache")
    parser.add_argument("--no-wheels", action="store_true", help="the machine has MONAI")
    options = parser.parse_args(arguments)
    output, cache = Path(options.output), Path(options.cache)
    if output.exists() and any(output.iterdir()):
        raise SystemExit(f"{output} is not empty; take it away, or name another --output")
    aside = output.with_name(f".{output.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a start that was killed
    try:
        make_folder(aside)
        copy_sources(aside)
        if not options.no_wheels:
            download_wheels(aside / "wheels")
        room = int(options.most * 2**20) - size_of(aside)
        spec = PreprocessSpec(modalities=MODALITIES, spacing=(options.spacing,) * 3)
        pack_cases(options, spec, cache, aside / "cases", room)
        aside.replace(output)
    except InputError as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"{output}: {size_of(output) / 2**20:.1f} MiB")
    return 0


def copy_sources(output: Path) -> None:
    line = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    for name in subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines():
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    (output / "COMMIT").write_text(f"{describe()['commit']}\n", encoding="utf-8")


def download_wheels(folder: Path) -> None:
    progress(f"wheels: {', '.join(WHEELS)}")
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    line += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder), *WHEELS]
    subprocess.run(line, check=True)


def pack_cases(options: argparse.Namespace, spec: PreprocessSpec, cache: Path, output: Path, room: int) -> None:
    """Crops first, into their share of the room; then cases of all data sets, of each as large a part as of the others.

    Raises InputError where a file is missing or wrong, and where none of a data set fits.
    """
    datasets = [read_dataset(folder) for folder in options.datasets]
    scheme = datasets[0].scheme
    if other := [dataset.name for dataset in datasets if dataset.scheme != scheme]:
        raise InputError(f"data set {other[0]} has other labels or regions than {datasets[0].name}")
    names = [PATCHES, *(Path(dataset.folder).name for dataset in datasets)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"folders of data sets are packed by their names, and {twice[0]} is there twice; rename one")
    kept = [training_of(dataset, options.fold) for dataset in datasets]
    if options.patches:
        labels = len(scheme.labels)
        file = read_patches(options.patches, labels)
        for dataset, entries in zip(datasets, kept):
            left_out = [entry for entry in dataset.cases if entry.label and entry not in entries]
            check_patients_apart("patch", str(file.path), file.ids, left_out, "left out, to be judged on")
        crops = [prepare_patches(file, np.full((1, 1, 1), i), spec, labels, cache) for i in order_by_label(file.labels)]
        room_for_crops = int(PATCH_SHARE * room)
        check_packed(write_packed(output / PATCHES, spec, scheme, crops, room_for_crops), options.patches, options.most)
        room -= size_of(output / PATCHES)
    groups: list[list[TrainingCase]] = []
    for dataset, entries in zip(datasets, kept):
        groups.append([prepare(dataset, entry, spec, cache) for entry in entries if entry.label])
    if lacking := [dataset.name for dataset, group in zip(datasets, groups) if not group]:
        raise InputError(f"data set {lacking[0]} has no labelled case to pack; leave it out")
    total = sum(case.cached.stat().st_size for group in groups for case in group)
    for dataset, group in zip(datasets, groups):
        size = sum(case.cached.stat().st_size for case in group)
        packed = write_packed(output / Path(dataset.folder).name, spec, scheme, group, int(room * size / total))
        check_packed(packed, f"data set {dataset.name}", options.most)
        print(f"{dataset.name}: {len(packed.cases)} of {len(group)} cases")


def training_of(dataset: Dataset, fold: int) -> tuple[CaseEntry, ...]:
    """All cases but what the split of a data set, where it has one, keeps for validation and test."""
    if not (Path(dataset.folder) / SPLIT).exists():
        return dataset.cases
    by_folds = read_split(dataset).folds is not None
    return training_cases(dataset, fold if by_folds else None)


def check_packed(packed: Packed, name: str, most: float) -> None:
    """Raises InputError where nothing fitted, which no training takes."""
    if not packed.cases:
        raise InputError(f"nothing of {name} fits into a pack of {most:g} MiB; raise --most, or --spacing")


def order_by_label(labels) -> list[int]:
    """Crops with the most labelled voxels first: those of small lesions are mostly padding."""
    counts = (labels > 0).sum((1, 2, 3))
    return sorted(range(len(labels)), key=lambda i: -int(counts[i]))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
