"""The worker as its clients see it: a real child process, the real quick model, a phantom."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import MODALITIES, find_case
from segmamba.models.package import find_model, read_manifest, shipped_models
from worker_client import LONG, TRAINING, Worker

MODEL_ID = read_manifest(find_model("quick")).id
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The four images of a phantom, uncompressed, in a folder with a space and letters beyond ASCII; the truth."""
    from segmamba.datasets.phantom import make_phantom, save_phantom

    folder = tmp_path_factory.mktemp("Müller Łukasz 脳")
    save_phantom(make_phantom(3, spacing=(2, 2, 2), enhancing=True), folder, "p")
    return {m: str(source.path) for m, source in find_case(folder).items()}, folder / "p-seg.nii.gz"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def worker(home):
    """One for all tests that leave it as it was."""
    worker = Worker(home)
    yield worker
    worker.close()


@pytest.fixture
def fresh(home):
    made = []

    def make(*paths):
        made.append(Worker(home, *paths))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def running(worker, id):
    worker.until(lambda event: event["event"] == "progress" and event["id"] == id and event["stage"] == "inference")


# --- what it answers


def test_hello_answers_before_the_libraries_are_loaded_and_completes_it_later(fresh):
    worker = fresh()
    worker.ask("h", "hello", protocol=1)
    hello = worker.answer("h")
    assert hello["protocol"] == 1 and hello["packages"]["torch"] and not hello["complete"]
    assert [device["name"] for device in hello["devices"]] == ["cpu"]
    assert {model["name"]: model["folder"] for model in hello["models"]} == {
        name: str(folder) for name, folder in shipped_models().items()
    }
    quick = next(model for model in hello["models"] if model["name"] == "quick")
    assert quick["modalities"] == list(MODALITIES) and quick["regions"]["TC"] == ["NCR", "ET"]
    assert not any(event["event"] == "devices" for event in worker.seen)
    devices = worker.until(lambda event: event["event"] == "devices")
    worker.ask("again", "hello", protocol=1)
    again = worker.answer("again")
    assert again["complete"] and again["scan_backend"] == devices["scan_backend"] and "cpu" in again["scan_backend"]
    for device in again["devices"]:
        seconds = [device["expected_seconds"][n] for n in "0137"]
        assert seconds == sorted(seconds) and 0 < seconds[0] < seconds[-1]
        assert 0 < device["free_bytes"] <= device["total_bytes"]


def test_a_case_and_a_second_one_with_the_model_still_loaded(worker, images, tmp_path):
    sources, truth = images
    output = tmp_path / "été 2"
    output.mkdir()
    worker.ask("a", "segment", images=sources, output=str(output), model="quick", mirrorings=1, device="cpu")
    result = worker.answer("a")
    assert result["event"] == "result", result
    label_map, expected = nib.load(result["label_map"]), nib.load(truth)
    assert label_map.shape == expected.shape and np.allclose(label_map.affine, expected.affine, atol=1e-4)
    labels = np.asarray(label_map.dataobj)
    # the quick model on phantoms: WT Dice 0.6 in the mean; nothing at all, or the wrong grid, is near 0
    assert dice(labels > 0, np.asarray(expected.dataobj) > 0) > 0.4
    voxel_ml = abs(np.linalg.det(label_map.affine[:3, :3])) / 1000
    assert result["volumes_ml"]["WT"] == pytest.approx(np.count_nonzero(labels) * voxel_ml, abs=2e-3)
    uncertainty = nib.load(result["uncertainty"]).get_fdata()
    assert uncertainty.shape == labels.shape and uncertainty.min() >= 0 and 0.1 < uncertainty.max() <= 1
    assert (result["model"], result["device"], result["mirrorings"]) == (MODEL_ID, "cpu", 1)
    assert result["probabilities"] is None and not any("voxels of" in text for text in result["warnings"])
    assert sorted(path.name for path in output.iterdir()) == [
        "case-seg.nii",
        "case-summary.json",
        "case-uncertainty.nii",
    ]

    steps = [event for event in worker.seen if event["event"] == "progress" and event["id"] == "a"]
    fractions = [event["fraction"] for event in steps]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and fractions[0] < 0.2
    assert all(event["seconds_left"] is None or event["seconds_left"] >= 0 for event in steps)
    stages = list(dict.fromkeys(event["stage"] for event in steps))
    order = ["load", "prepare", "preprocess", "inference", "postprocess", "write"]
    assert stages == [stage for stage in order if stage in stages] and {"load", "inference"} <= set(stages)
    assert f"model {MODEL_ID} was loaded" in worker.logs()

    before = len(worker.seen)
    worker.ask("b", "segment", images=sources, output=str(output), mirrorings=1, probabilities=True)
    again = worker.answer("b")
    assert f"model {MODEL_ID} is loaded already" in [event.get("message") for event in worker.seen[before:]]
    np.testing.assert_array_equal(np.asarray(nib.load(again["label_map"]).dataobj), labels)
    assert nib.load(again["probabilities"]).shape == (*labels.shape, 4)
    worker.ask("h", "hello", protocol=1)
    assert next(device for device in worker.answer("h")["devices"] if device["name"] == "cpu")["measured"]


def test_no_folder_of_a_request_is_shown(worker, images, tmp_path):
    sources, _ = images
    folder = tmp_path / "Mueller Anna"
    folder.mkdir()
    Path(folder / "t1c.nii").write_bytes(b"no image")
    before = len(worker.seen)
    worker.ask("secret", "segment", images={**sources, "t1c": str(folder / "t1c.nii")}, output=str(tmp_path))
    error = worker.answer("secret")
    assert error["kind"] == "input" and "t1c.nii" in error["message"]
    assert "Mueller" not in json.dumps(worker.seen[before:])


def test_busy_and_cancel(worker, images, tmp_path):
    sources, _ = images
    worker.ask("long", "segment", images=sources, output=str(tmp_path), mirrorings=7, device="cpu")
    running(worker, "long")
    worker.ask("second", "segment", images=sources, output=str(tmp_path))
    assert worker.answer("second")["kind"] == "busy"
    worker.ask("c", "cancel", target="long")
    assert worker.answer("c")["cancelled"] is True
    assert worker.answer("long")["kind"] == "cancelled"
    assert list(tmp_path.iterdir()) == []
    worker.ask("late", "cancel", target="long")
    assert worker.answer("late")["cancelled"] is False
    worker.ask("next", "segment", images=sources, output=str(tmp_path))
    assert worker.answer("next")["event"] == "result"


def test_cancel_is_heard_while_the_libraries_are_loading(fresh, images, tmp_path):
    worker = fresh()
    worker.ask("early", "segment", images=images[0], output=str(tmp_path))
    worker.ask("c", "cancel", target="early")
    assert worker.answer("early")["kind"] == "cancelled"
    assert not any(event["event"] == "devices" for event in worker.seen)
    assert list(tmp_path.iterdir()) == []


# --- what it refuses


@pytest.mark.parametrize(
    ("line", "id", "words"),
    [
        (b"garbage", None, "no JSON"),
        (b'"\xff\xfe"', None, "no JSON in UTF-8"),
        (b"[1]", None, "list"),
        (b'{"command": "hello"}', None, "id"),
        (b'{"id": "x", "command": "explode"}', "x", "hello, segment, cancel, shutdown"),
        (b'{"id": "x", "command": ["hello"]}', "x", "unknown command"),
        (b'{"id": "x", "command": "hello", "protocol": 2}', "x", "speaks 1"),
        (b'{"id": "x", "command": "cancel", "targets": "a"}', "x", "missing target"),
        (b'{"id": "x", "command": "cancel", "target": "a", "tarket": 1}', "x", "did you mean target"),
        (b'{"id": "x", "command": "segment", "images": {"t1c": "a.nii"}, "output": "/tmp"}', "x", "absolute"),
        (b'{"id": "x", "command": "segment", "images": {}, "output": "/tmp"}', "x", "images"),
        (
            b'{"id": "x", "command": "segment", "images": {"t1c": "/a"}, "output": "/b", "mirrorings": 2}',
            "x",
            "0, 1, 3",
        ),
        (b'{"id": "x", "pad": "' + b"x" * (1 << 20) + b'"}', None, "bytes"),
    ],
)
def test_a_line_that_is_no_request_is_refused_and_the_worker_goes_on(worker, line, id, words):
    worker.write(line + b"\r\n\n")
    error = worker.until(lambda event: event["event"] == "error")
    assert (error["kind"], error["id"]) == ("protocol", id) and words in error["message"]
    worker.ask("still", "cancel", target="nobody")
    assert worker.answer("still")["cancelled"] is False


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"model": "quik"}, "model", "nor one of quick"),
        ({"device": "cuda:99"}, "input", "cuda:99"),
        ({"output": "/nowhere/at all"}, "input", "no such output folder"),
        ({"images": {"t1c": "/nowhere/t1c.nii"}}, "input", "no image for t1n, t2w, t2f"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(worker, images, tmp_path, change, kind, words):
    worker.ask("wrong", "segment", **{"images": images[0], "output": str(tmp_path), **change})
    error = worker.answer("wrong")
    assert (error["kind"], error["detail"]) == (kind, "") and words in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_an_error_of_the_model(worker, images, tmp_path):
    folder = tmp_path / "Doe John" / "damaged"
    shutil.copytree(shipped_models()["quick"], folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    worker.ask("damaged", "segment", images=images[0], output=str(tmp_path), model=str(folder))
    error = worker.answer("damaged")
    assert error["kind"] == "model" and "sha256" in error["message"]
    assert "Doe John" not in "".join(map(str, worker.seen))


@posix
def test_a_full_disk(fresh, images, tmp_path):
    """The limit on a file's size lets the label map through and stops the map of uncertainty."""
    import resource

    size = nib.load(images[1]).shape
    limit = int(np.prod(size)) * 2

    worker = fresh()
    worker.until(lambda event: event["event"] == "devices")
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    left = tmp_path / ".segmamba-part-0123"
    left.mkdir()
    (left / "half.nii").write_bytes(b"of a worker that was killed")
    worker.ask("full", "segment", images=images[0], output=str(tmp_path))
    error = worker.answer("full")
    assert error["kind"] == "input" and "disk" in error["message"] and "full" in error["message"]
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(worker, images, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    worker.ask("locked", "segment", images=images[0], output=str(folder))
    error = worker.answer("locked")
    assert error["kind"] == "input" and "No permission for locked" in error["message"]


# --- what others print


def test_what_libraries_print_becomes_log_events(fresh, home, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        "print('before the worker', end='', flush=True)\n"
        "class Noisy:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'nibabel':\n"
        '            print(\'{"event": "result", "id": "h"}\')\n'
        "            os.write(1, b'from C\\nhalf a line')\n"
        "            os.write(2, b' and its end\\r\\xff\\n')\n"
        "            os.write(1, b'x' * 300_000 + b'\\n')\n"
        "            os.system('echo from a child; cat')\n"
        "            print('to stderr', file=sys.stderr)\n"
        "sys.meta_path.insert(0, Noisy())\n"
    )
    worker = fresh(site)
    worker.until(lambda event: event["event"] == "devices")
    wanted = {'{"event": "result", "id": "h"}', "from C", "half a line and its end", "from a child", "to stderr"}
    while not wanted <= set(worker.logs()):
        worker.until(lambda event: event["event"] == "log")
    worker.ask("h", "hello", protocol=1)
    assert worker.answer("h")["version"]
    assert [line.strip() for line in worker.foreign if line.strip()] == [b"before the worker"]


def test_it_runs_from_its_folder_without_being_installed(home):
    """-S leaves out what an installation adds; the libraries come by PYTHONPATH."""
    code = "import segmamba, sys; sys.exit(0 if 'Training' in segmamba.__file__ else 1)"
    environment = {**os.environ, "PYTHONPATH": str(TRAINING), "XDG_CACHE_HOME": str(home)}
    assert subprocess.run([sys.executable, "-S", "-c", code], env=environment, cwd=home).returncode == 0
    request = b'{"id": "h", "command": "hello", "protocol": 1}\n{"id": "s", "command": "shutdown"}\n'
    done = subprocess.run(
        [sys.executable, "-S", "-m", "segmamba.worker"],
        input=request,
        capture_output=True,
        env={**environment, "PYTHONPATH": ""},
        cwd=TRAINING,
        timeout=LONG,
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert done.returncode == 0 and done.stderr == b""
    results = [event for event in events if event["event"] == "result"]
    assert [event["id"] for event in results] == ["h", "s"]
    assert results[0]["packages"]["torch"] is None  # without site-packages there is none, and it says so


# --- how it ends


def test_it_ends_when_its_standard_input_closes(fresh, images, tmp_path):
    worker = fresh()
    worker.ask("a", "segment", images=images[0], output=str(tmp_path), mirrorings=7, device="cpu")
    running(worker, "a")
    worker.process.stdin.close()
    assert worker.rest() == 0
    assert worker.seen[-1]["id"] == "a" and worker.seen[-1]["kind"] == "cancelled"
    assert list(tmp_path.iterdir()) == [] and worker.process.stderr.read() == b""


def test_shutdown_answers_and_ends(fresh):
    worker = fresh()
    worker.ask("bye", "shutdown")
    assert worker.rest() == 0
    assert worker.seen[-1] == {"event": "result", "id": "bye"}


@posix
def test_it_ends_when_its_parent_dies_though_its_standard_input_stays_open(tmp_path):
    """Another process, this one, holds the pipe open; the parent is killed."""
    read_end, write_end = os.pipe()
    code = (
        "import subprocess, sys, time\n"
        "worker = [sys.executable, '-m', 'segmamba.worker']\n"
        f"child = subprocess.Popen(worker, stdin={read_end}, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(999)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[read_end], cwd=tmp_path)
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    end = time.monotonic() + LONG
    while time.monotonic() < end and alive(pid):
        time.sleep(0.1)
    os.close(write_end)
    assert not alive(pid)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def half_written(folder):
    try:
        return list(folder.glob(".segmamba-part-*/*"))
    except FileNotFoundError:  # a folder that was made to see whether one can be
        return []


@posix
@pytest.mark.parametrize("stage", ["load", "inference", "write"])
def test_a_killed_worker_leaves_no_result(fresh, images, tmp_path, stage):
    worker = fresh()
    worker.ask("a", "segment", images=images[0], output=str(tmp_path), device="cpu")
    if stage == "write":  # from the moment when there is a file at all
        while not half_written(tmp_path):
            assert worker.process.poll() is None
    else:
        worker.until(lambda event: event["event"] == "progress" and event["stage"] == stage)
    worker.process.send_signal(signal.SIGKILL)
    assert worker.rest() == -signal.SIGKILL
    assert not any(event["event"] == "result" for event in worker.seen)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".segmamba-part-")] == []
