"""The folder of a site small enough for tests: three sent corrections, old data and a model at 4 mm; and processes that
work on it. Models have random weights: `narrow` ones are fast, but only what runs under narrow_network() knows them.
"""

import os
import time
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
from correction_runs import edited, send
from training_runs import narrow_network, single_precision, without_curves


def save_model(folder: Path, narrow: bool = True, name: str = "old", seed: int = 5) -> Path:
    import torch
    from segmamba.cases.case import MODALITIES
    from segmamba.models.package import Manifest, save_package
    from segmamba.models.specs import InferenceSpec, PreprocessSpec
    from segmamba.networks.choice import NetworkChoice, build

    with narrow_network() if narrow else nullcontext():
        config = NetworkChoice(preset="quick").resolve(4, 4, (48, 48, 48))
    torch.manual_seed(seed)
    manifest = Manifest(
        id=name,
        network=config,
        preprocess=PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0)),
        inference=InferenceSpec(window=(48, 64, 64)),
        training={"config": {"patch": [48, 48, 48]}},
    )
    save_package(folder, build(config), manifest, f"# {name}\n")
    return folder


def shrunk(voxels: np.ndarray) -> np.ndarray:
    """A correction that stays inside the head: the first layer of oedema along X taken away."""
    return np.where((voxels == 2) & (np.roll(voxels, 1, 0) == 0), 0, voxels)


def build_site(site: Path, cases: Path, make_dataset) -> Path:
    """Corrections of the phantoms in `cases`, each of a patient of its own, one old case and two anchor cases; beside
    it the model `old`."""
    from segmamba.cases.case import find_label
    from segmamba.datasets.phantom import make_phantom, save_phantom

    for name, seeds in (("replay", (9,)), ("anchor", (11, 12))):
        for seed in seeds:
            folder = site / name / f"{name}-{seed}"
            folder.mkdir(parents=True)
            save_phantom(make_phantom(seed, spacing=(4, 4, 4), enhancing=True), folder, folder.name)
        make_dataset(site / name)
    for number, case in enumerate(sorted(path for path in cases.iterdir() if path.is_dir())):
        labels = edited(find_label(case), site.with_name(f"{number}.nii.gz"), shrunk)
        send(site / "corrections", case, labels=labels, subject=f"patient {number}")
    save_model(site.with_name("old"))
    return site


@contextmanager
def without_pictures():
    """Neither curves nor overlays, nor those of the gate."""
    with ExitStack() as stack:
        stack.enter_context(without_curves())
        for name in ("training.loop.draw_worst", "learning.gate.save_picture"):
            stack.enter_context(mock.patch(f"segmamba.{name}"))
        yield


def improve(site: Path, run: str | None, options: dict) -> None:
    """The process ends with 0, with 3 where it was stopped, with 1 for an InputError."""
    import torch
    from segmamba.errors import InputError, Stopped
    from segmamba.learning.site import Site
    from segmamba.learning.site import improve as work

    torch.set_num_threads(1)
    with narrow_network(), single_precision(), without_pictures():
        try:
            work(Site(site), run, **options)
        except Stopped:
            os._exit(3)
        except InputError as error:
            print(error, flush=True)
            os._exit(1)


def pretend_to_work(site: Path, run: str) -> None:
    """Holds what an improvement holds, says that it trains, and does nothing."""
    from segmamba.learning.site import Site
    from segmamba.learning.site.improvement import _alone
    from segmamba.learning.site.status import StatusWriter

    place = Site(site).run(run)
    with _alone(Site(site), place), StatusWriter(place, "finetune") as writer:
        writer.begin("training", "pretending", steps=100)
        writer.go_on(1, 100, "pretending", step=1, loss=float("nan"))
        time.sleep(600)


def wait_for(sign, process=None, seconds: float = 240):
    """Until `sign()` gives something true, which is returned; fails where the process ended before, or time is over."""
    until = time.monotonic() + seconds
    while not (found := sign()):
        assert time.monotonic() < until, "it took too long"
        assert process is None or process.is_alive() or sign(), f"ended with {process.exitcode}"
        time.sleep(0.05)
    return found


def tree(folder):
    """Every path below with its time and its bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }
