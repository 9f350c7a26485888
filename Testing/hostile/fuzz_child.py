"""`python fuzz_child.py KIND COUNT SEED FOLDER`: reads damaged files in a process that may die; prints what came of it.

{"read": n, "refused": n, "wrong": [why, ...], "peak_mb": n}. The seed that is at work stands in FOLDER/at.
"""

import json
import resource
import signal
import sys
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "engine")]
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # a last resort: what is asserted is the peak

import mutations  # noqa: E402
import numpy as np  # noqa: E402
from segmamba import limits  # noqa: E402
from segmamba.errors import InputError  # noqa: E402

PATIENCE = 300  # seconds after which a read counts as endless, also on a machine that is busy


def images(folder: Path, suffix: str):
    import nibabel as nib
    import SimpleITK as sitk
    from image_files import AFFINE, noise, write
    from segmamba.images.image_io import read_image

    path = folder / f"a{suffix}"
    plain = folder / "plain.nii"
    write(plain, noise(1).astype(np.int16), AFFINE)
    if suffix in (".nii", ".nii.gz"):
        image = nib.load(plain)
        image.set_sform(AFFINE, 1)
        image.set_qform(AFFINE, 1)
        sound = image.to_bytes()
        damage = mutations.damage_nifti if suffix == ".nii" else mutations.damage_gzip
    else:
        sitk.WriteImage(sitk.ReadImage(str(plain)), str(path))
        sound = path.read_bytes()
        end = b"LOCAL\n" if suffix == ".mha" else b"\n\n"

        def damage(rng, data):
            return mutations.damage_header(rng, data, end)

    def attempt(rng):
        path.write_bytes(damage(rng, sound))
        image = read_image(path)
        assert np.isfinite(image.affine).all() and image.array.ndim == 3 and image.array.size <= limits.VOXELS

    return attempt, [str(path)]


def dicom(folder: Path):
    from image_files import AFFINE, noise, write_dicom
    from segmamba.images.sources import read_source

    series = folder / "series"
    write_dicom(series, noise(2, (12, 10, 6)), AFFINE)
    sound = {path: path.read_bytes() for path in sorted(series.iterdir())}

    def attempt(rng):
        for path, data in sound.items():
            path.write_bytes(mutations.damage_bytes(rng, data, 900) if rng.random() < 0.4 else data)
        image = read_source(series)
        assert np.isfinite(image.affine).all() and image.array.size <= limits.VOXELS

    return attempt, [str(series)]


def tables(folder: Path):
    """Every JSON and TOML file of ours in turn, by the function that reads it."""
    import tables

    kinds = tables.kinds(folder)

    def attempt(rng):
        path, values, read = kinds[int(rng.integers(len(kinds)))]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tables.damaged(rng, path, values))
        try:
            read()
        except InputError:
            raise
        except Exception as error:
            raise AssertionError(f"{path.name}: {type(error).__name__}: {error}") from error
        finally:
            tables.restore(path, values)

    return attempt, []


def main(kind: str, count: int, seed: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    attempt, named = tables(folder) if kind == "tables" else dicom(folder) if kind == "dicom" else images(folder, kind)
    counts = {"read": 0, "refused": 0, "wrong": []}
    for number in range(seed, seed + count):
        (folder / "at").write_text(str(number))
        signal.alarm(PATIENCE)
        try:
            attempt(np.random.default_rng(number))
            counts["read"] += 1
        except InputError as error:
            counts["refused"] += 1
            if not all(name in str(error) for name in named) or len(str(error)) > 4000:
                counts["wrong"].append(f"seed {number}: {error}"[:400])
        except Exception as error:
            counts["wrong"].append(f"seed {number}: {type(error).__name__}: {error}"[:400])
        signal.alarm(0)
    counts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
