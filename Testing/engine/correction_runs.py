"""Folders of corrections for tests, and what processes do that write into one until they are killed."""

import time
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from processes import kill
from segmamba.cases.case import find_case, find_label


def kill_at_work(process, sign: Path, delay: float) -> None:
    """Once it has made the file `sign`, and `delay` seconds later."""
    until = time.monotonic() + 300
    while not sign.exists() and time.monotonic() < until:
        time.sleep(0.005)
    sign.unlink()
    time.sleep(delay)
    assert kill(process)


def edited(label: Path, output: Path, edit) -> Path:
    """A label map file with its voxels (X, Y, Z) gone through `edit`."""
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.asarray(edit(np.asarray(image.dataobj)), np.uint8), image.affine), output)
    return output


def grown(voxels: np.ndarray) -> np.ndarray:
    """A correction: oedema one voxel further along X."""
    further = np.roll(voxels > 0, 1, 0) & (voxels == 0)
    return np.where(further, 2, voxels)


def corrected(case: Path, folder: Path) -> Path:
    """The label map of a case, corrected, as a file in `folder`."""
    return edited(find_label(case), folder / f"{case.name}-corrected.nii.gz", grown)


def small_case(folder: Path, seed: int = 0) -> Path:
    """Four random images of 9 x 11 x 7 voxels and a label map: enough to be written, not to be believed."""
    rng = np.random.default_rng(seed)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    folder.mkdir(parents=True)
    for name in ("t1n", "t1c", "t2w", "t2f"):
        voxels = rng.integers(1, 1000, (9, 11, 7)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"x-{name}.nii.gz")
    labels = np.zeros((9, 11, 7), np.uint8)
    labels[3:6, 4:8, 2:5] = 2
    nib.save(nib.Nifti1Image(labels, affine), folder / "x-seg.nii.gz")
    return folder


def send(folder: Path, case: Path, *, labels: Path | None = None, subject: str | None = None, **options) -> Path:
    """A case folder as `write_case` sends it; its own label map is the proposal."""
    from segmamba.learning.submissions.write import write_case

    proposal = options.pop("proposal", find_label(case))
    images = options.pop("images", find_case(case))
    return write_case(folder, images, labels or find_label(case), proposal, subject=subject, consent=True, **options)


def send_under_two_patients(folder: Path, case: Path, tmp_path: Path) -> list[Path]:
    """One examination, and again with another FLAIR as of patient B: two cases, in the order of their names."""
    first = send(folder, case, labels=corrected(case, tmp_path), subject="A")
    t2f = edited(find_case(case)["t2f"].path, tmp_path / "t2f.nii.gz", lambda voxels: np.clip(voxels // 9, 0, 255))
    images = {**find_case(case), "t2f": t2f}
    return sorted([first, send(folder, case, images=images, labels=corrected(case, tmp_path), subject="B")])


def send_for_ever(folder: Path, case: Path, sign: Path) -> None:
    send(folder, case)
    sign.touch()
    while True:
        send(folder, case)


def send_times(folder: Path, case: Path, times: int) -> None:
    for _ in range(times):
        send(folder, case)


def change_for_ever(folder: Path, models: list[Path], seed: int, sign: Path) -> None:
    """Adopts one model after the other, goes back at times, refuses at times."""
    from segmamba.errors import InputError

    change_times(folder, models, seed, 1)
    rng = np.random.default_rng(seed)
    sign.touch()
    while True:
        with suppress(InputError):  # in use already, or nothing to go back to
            change_once(folder, models, rng)


def change_times(folder: Path, models: list[Path], seed: int, times: int) -> None:
    from segmamba.errors import InputError

    rng = np.random.default_rng(seed)
    done = 0
    while done < times:
        with suppress(InputError):
            change_once(folder, models, rng)
            done += 1


def change_once(folder: Path, models: list[Path], rng) -> None:
    from segmamba.learning.registry import change

    model = models[rng.integers(len(models))]
    do = rng.integers(3)
    if do == 0:
        change.rollback(folder, "a test")
    elif do == 1:
        change.adopt(folder, model, f"reason {rng.integers(1000)}")
    else:
        change.refuse(folder, model, "a test")
