"""How a GPU is fed: processes that read for each rank, and what bench_loader makes of the seconds they take."""

import os
import sys
from pathlib import Path

import pytest
from segmamba.training.distributed import World, standing
from segmamba.training.loop import Training
from training_runs import narrow_network, small_config

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from bench_loader import share_waited


@pytest.mark.parametrize(("ranks", "workers"), [(1, 95), (4, 23), (8, 11), (96, 1), (128, 1)])
def test_ranks_share_the_cores_of_their_machine(ranks, workers, phantom_dataset, tmp_path, monkeypatch):
    """Which torchrun hides, for it gives each process one thread; two machines do not halve their cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(96)), raising=False)
    environment = {"RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": ranks, "WORLD_SIZE": 2 * ranks, "OMP_NUM_THREADS": 1}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    place = standing()
    assert (place.rank, place.size) == (1, 2 * ranks)
    with narrow_network():
        run = Training(small_config(phantom_dataset.folder, tmp_path / "cache"), tmp_path / "run", World(), "never", [])
    monkeypatch.setattr(run, "world", World(device="meta", local_size=place.local_size))  # any device but the CPU
    assert run._loader().num_workers == workers
    monkeypatch.setattr(run, "world", World())
    assert run._loader().num_workers == 0


@pytest.mark.parametrize(
    ("seconds", "workers", "share"),
    [
        (0.1, 1, 0.0),  # a batch of two in 0.2 s, a step takes 0.25 s
        (0.25, 1, 0.5),  # a batch in 0.5 s: every other quarter of a second is waited for
        (0.5, 2, 0.5),
        (0.5, 4, 0.0),
        (1.0, 4, 0.5),
        (1.0, 15, 0.0),
    ],
)
def test_the_share_of_time_that_a_gpu_waits(seconds, workers, share):
    found = share_waited([seconds], workers, batch=2, step=0.25, steps=4000, ahead=4)
    assert found == pytest.approx(share, abs=0.01)
