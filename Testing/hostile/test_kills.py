"""Writers killed at random moments: what had its name before has it afterwards, whole, and nothing is half."""

import json
import os
import signal
import time

import numpy as np
import pytest
from segmamba.files.atomic import write_aside
from segmamba.images.image_io import read_image, save_image
from segmamba.settings import read_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children that have the libraries already")


def write_tables(folder):
    number = 0
    while True:
        number += 1
        write_aside(folder / "a.json", json.dumps({"number": number, "filling": "x" * 200_000}).encode())
        (folder / "said").write_text(str(number))


def write_images(folder):
    number = 0
    while True:
        number += 1
        save_image(np.full((40, 41, 42), number % 250, np.uint8), np.eye(4), folder / "a.nii.gz", np.uint8)
        (folder / "said").write_text(str(number % 250))


def number_of(folder):
    if (folder / "a.json").exists():
        return read_json(folder / "a.json")["number"]
    values = np.unique(read_image(folder / "a.nii.gz").array)
    assert len(values) == 1
    return int(values[0])


@pytest.mark.parametrize("write", [write_tables, write_images])
def test_killed_writers_leave_whole_files(tmp_path, write, many, tell):
    rng = np.random.default_rng(5)
    kills, half = many(20), 0
    for kill in range(kills):
        folder = tmp_path / str(kill)
        folder.mkdir()
        child = os.fork()
        if not child:
            try:
                write(folder)
            finally:
                os._exit(1)
        while not (folder / "said").exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        said = (folder / "said").read_text()
        found = number_of(folder)
        if said:  # cut short itself otherwise: what was said before it was written
            assert found in (int(said), (int(said) + 1) % 250 if write is write_images else int(said) + 1)
        half += any(path.name.startswith(".") for path in folder.iterdir())
    tell(f"{write.__name__}: {kills} kills, {half} in the middle of a file, 0 lost")
