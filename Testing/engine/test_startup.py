"""What a command and the worker load: names of modules in real child processes, after a real case.

MONAI loads all of itself on import, and with it ignite, scikit-learn, pandas, matplotlib and what else is installed:
4300 modules and three quarters of the time until a case begins. Nothing on the way of a case needs it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from segmamba.cases.case import find_case

TRAINING = Path(__file__).resolve().parents[2] / "Training"
NOT_FOR_A_CASE = {
    *("monai", "ignite", "skimage", "sklearn", "pandas", "matplotlib", "tensorboard", "einops"),
    *("segmamba.training", "segmamba.learning", "segmamba.export", "segmamba.evaluation", "segmamba.datasets"),
    *("scipy.spatial", "scipy.stats", "scipy.optimize", "scipy.signal", "torch.utils.tensorboard", "torch._dynamo"),
}
NOT_FOR_A_CASE |= {"torch.distributed.fsdp", "torch.distributed.tensor"}  # torch alone loads others of its own
MOST = 2400  # modules; 2000 where pydicom is there, which nibabel loads then


def modules_after(code, *arguments):
    """The names in sys.modules when `code` has run in a Python of its own."""
    code = f"import json, os, sys\n{code}\njson.dump(list(sys.modules), open(os.environ['NAMES'], 'w'))"
    names = Path(os.environ["NAMES"])
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TRAINING)},
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(names.read_text()))


@pytest.fixture(autouse=True)
def names(tmp_path, monkeypatch):
    monkeypatch.setenv("NAMES", str(tmp_path / "names.json"))


def test_the_list_is_of_modules_that_are_there():
    """Else it would find nothing to complain of, whatever is loaded."""
    loaded = modules_after("import monai, torch.distributed.fsdp, segmamba.learning")
    assert {"monai", "skimage", "matplotlib", "torch.distributed.fsdp", "scipy.stats", "segmamba.learning"} <= loaded
    assert len(loaded) > MOST


def test_predict_loads_what_a_case_needs(phantom_cases, tmp_path):
    code = "from segmamba.cli import main\nassert main(sys.argv[1:]) == 0"
    loaded = modules_after(code, "predict", phantom_cases / "phantom-1", "-o", tmp_path, "--device", "cpu", "--json")
    assert (tmp_path / "phantom-1-seg.nii.gz").is_file()
    assert {"torch", "numba", "SimpleITK", "segmamba.prediction.predict"} <= loaded
    assert sorted(loaded & NOT_FOR_A_CASE) == []
    assert len(loaded) < MOST


def test_the_worker_loads_what_a_case_needs(phantom_cases, tmp_path):
    """Its own process reads requests until its standard input closes; here what it does with one, step by step."""
    images = {m: str(source.path) for m, source in find_case(phantom_cases / "phantom-1").items()}
    request = {"id": "s", "command": "segment", "images": images, "output": str(tmp_path), "device": "cpu"}
    code = """
from pathlib import Path
from segmamba.worker import facts
from segmamba.worker.channel import Channel
from segmamba.worker.job import Job, Shelf, run
from segmamba.worker.requests import parse
from segmamba.worker.timing import Record
record, said = Record(Path(sys.argv[2])), open(sys.argv[3], "wb", buffering=0)
facts.all_devices(record)
run(Job(parse(sys.argv[1].encode()), Channel(said.fileno())), Shelf(), record, lambda: None)
"""
    said = tmp_path / "said.txt"
    loaded = modules_after(code, json.dumps(request), tmp_path / "times.json", said)
    assert any(json.loads(line)["event"] == "result" for line in said.read_text().splitlines()), said.read_text()
    assert sorted(loaded & NOT_FOR_A_CASE) == []
    assert len(loaded) < MOST
