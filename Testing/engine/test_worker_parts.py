"""Parts of the worker that need no child process: errors in plain words, clean texts, requests, published results."""

import errno
import json
import os
import shutil
from pathlib import Path, PureWindowsPath

import nibabel
import numpy as np
import pytest
import torch
from segmamba.cases.case import Source
from segmamba.errors import Cancelled, InputError
from segmamba.models.specs import InferenceSpec
from segmamba.prediction import windows as inference
from segmamba.prediction.options import PredictOptions, digest_images
from segmamba.prediction.windows import predict
from segmamba.worker.channel import Channel
from segmamba.worker.failures import ModelError, describe
from segmamba.worker.job import Job, Shelf, _are_apart, _publish, _refuse_others, remove_files
from segmamba.worker.requests import parse
from segmamba.worker.streams import Captured, LineWriter
from torch import nn


def test_images_on_grids_of_their_own_are_expected_to_be_prepared(tmp_path):
    matrix = np.diag([1.0, 2, 3, 1])
    paths = [tmp_path / f"{name}.nii" for name in ("t1n", "t1c", "t2w")]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), matrix), path)
    assert not _are_apart(paths)
    moved = matrix.copy()
    moved[0, 3] = 5
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), moved), paths[2])
    assert _are_apart(paths)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 6), np.int16), matrix), paths[2])
    assert _are_apart(paths)
    type_of_voxels = bytearray(paths[2].read_bytes())
    type_of_voxels[70:72] = b"\x0f\x27"
    damaged = {"a.nii": b"no image", "b.nii": type_of_voxels, "c.nii.gz": b"\x1f\x8b\x08" + 7 * b"\0" + 9 * b"\xff"}
    for name, data in damaged.items():
        paths[2] = tmp_path / name
        paths[2].write_bytes(data)
        assert not _are_apart(paths)  # reading it says what is wrong


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Cancelled(), "cancelled", "no files"),
        (InputError("t1c.nii: no image"), "input", "t1c.nii: no image"),
        (ModelError("damaged"), "model", "damaged"),
        (MemoryError(), "memory", "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory", "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory", "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "input", "disk of the output folder is full"),
        (PermissionError(errno.EACCES, "denied", "/home/x/y.nii"), "input", "No permission for y.nii"),
        (OSError(errno.EIO, "Input/output error", "/home/x/y.nii"), "input", "y.nii: Input/output error"),
        (ModuleNotFoundError("No module named 'torch'"), "internal", "torch"),
        (ZeroDivisionError("division by zero"), "internal", "ZeroDivisionError: division by zero"),
    ],
)
def test_errors_in_plain_words(error, kind, words):
    found, message, detail = describe(error)
    assert found == kind and words in message and "/home" not in message
    assert (detail == "") == isinstance(error, (Cancelled, InputError, ModelError))


@pytest.fixture
def channel(tmp_path):
    file = tmp_path / "events"
    number = os.open(file, os.O_WRONLY | os.O_CREAT)
    channel = Channel(number)
    channel.events = lambda: [json.loads(line) for line in file.read_text().splitlines()]
    yield channel
    os.close(number)


def test_folders_of_a_request_are_left_out_of_texts(channel, tmp_path):
    image = tmp_path / "Doe John 1970" / "t1c.nii"
    channel.hide([image])
    channel.log("info", f"{image} and {Path.home()}/lib/x.py")
    assert channel.events()[0]["message"] == "t1c.nii and ~/lib/x.py"


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/", "mean of 12/24 in /data/x.nii", "mean of 12/24 in /data/x.nii"),
        ("/home/ann", "/home/anna/x, /home/ann-b/x", "/home/anna/x, /home/ann-b/x"),
        ("/home/ann", "/home/ann.old", "/home/ann.old"),
        ("/home/ann", "/mnt/home/ann/x", "/mnt/home/ann/x"),
        ("/home/ann", "'/home/ann/x', -I/home/ann/y and file:///home/ann/z", "'~/x', -I~/y and file://~/z"),
        ("/home/ann", "no permission for /home/ann. Or '/home/ann': /home/ann", "no permission for ~. Or '~': ~"),
    ],
)
def test_the_home_folder_is_shortened_where_it_is_the_whole_beginning_of_a_path(monkeypatch, home, text, shown):
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    assert Channel(-1).clean(text) == shown


def test_folders_of_a_request_are_no_part_of_other_paths(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/data"))
    channel = Channel(-1)
    channel.hide([Path("/data/t1c.nii"), Path("/t2w.nii"), Path("t1n.nii")])
    assert channel.clean("/data/t1c.nii in /data, /opt/data/x, 1/2") == "t1c.nii in ~, /opt/data/x, 1/2"
    assert channel.clean(repr("failed:\n/data/t1c.nii")) == repr("failed:\nt1c.nii")


class WindowsPath(PureWindowsPath):
    """One on another computer."""

    def resolve(self):
        return self


def test_folders_are_left_out_however_windows_writes_them(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: PureWindowsPath("C:\\Users\\ann"))
    channel, image = Channel(-1), WindowsPath("C:\\Users\\ann\\Doe John\\t1c.nii")
    channel.hide([image, WindowsPath("D:\\t2w.nii")])
    for text in (str(image), image.as_posix(), f"{image.parent}/t1c.nii"):
        assert channel.clean(text) == "t1c.nii"
        assert channel.clean(f"no such file: {text!r}") == "no such file: 't1c.nii'"
    home = "C:\\Users\\ann\\x"
    assert channel.clean(f"{home} {home!r} D:\\x C:\\Users\\anna") == "~\\x '~\\\\x' D:\\x C:\\Users\\anna"


def test_a_folder_with_backslashes_is_left_out_of_what_repr_makes_of_it(channel, tmp_path):
    image = tmp_path / "Doe\\John" / "t1c.nii"
    channel.hide([image])
    assert channel.clean(f"{image} {str(image)!r}") == "t1c.nii 't1c.nii'"


@pytest.mark.parametrize(
    "folder", ["Doe John/model", "./Doe John//model/", "{here}/Doe John/model", "{here}//Doe John/model"]
)
def test_the_folder_of_a_model_is_left_out_of_texts(channel, tmp_path, folder):
    values = json.loads(segment_request(tmp_path)) | {"model": folder.format(here=tmp_path)}
    request = parse(json.dumps(values).encode())
    channel.hide(request.paths)
    job = Job(request, channel)
    with pytest.raises(ModelError) as raised:
        Shelf().get(request.model)
    job.fail(raised.value)
    assert "there is no model 'model'" in channel.events()[-1]["message"]


def test_the_name_of_a_model_is_no_path(channel):
    channel.hide(parse(segment_request("/out/of/one")).paths)
    assert channel.clean(f"{Path.cwd()}/x/quick") == f"{Path.cwd()}/x/quick".replace(str(Path.home()), "~")


def test_when_nobody_reads_any_more_the_channel_says_so_and_goes_on():
    read_end, write_end = os.pipe()
    os.close(read_end)
    channel = Channel(write_end)
    channel.log("info", "heard by nobody")
    assert channel.closed
    channel.log("info", "nor this")
    os.close(write_end)


def segment_request(output, image="/x.nii"):
    return json.dumps({"id": "a", "command": "segment", "images": {"t1c": str(image)}, "output": str(output)}).encode()


def test_a_request_is_answered_once_and_a_late_cancel_is_refused(channel, tmp_path):
    job = Job(parse(segment_request(tmp_path)), channel)
    job.begin_writing()
    job.commit()
    assert job.cancel() is False
    job.succeed(label_map="x")
    job.fail(ValueError("too late"))
    assert [event["event"] for event in channel.events()] == ["progress", "result"]


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_a_result_replaces_comes_back_where_one_file_cannot_be_renamed(channel, tmp_path):
    output = tmp_path / "out"
    names = {kind: f"case-{kind}" for kind in ("label_map", "uncertainty", "summary")}
    (output / "case-uncertainty").mkdir(parents=True)  # a folder, over which no file is renamed
    for path in ("case-label_map", "case-summary", "case-uncertainty/mine"):
        (output / path).write_bytes(b"before")
    before, job = content(output), Job(parse(segment_request(output)), channel)

    def publish():
        job.part.mkdir()
        for name in names.values():
            (job.part / name).write_bytes(b"new")
        try:
            return _publish(job, names)
        finally:
            remove_files(job)

    with pytest.raises(OSError):
        publish()
    assert content(output) == before
    shutil.rmtree(output / "case-uncertainty")
    assert publish() == {kind: str(output / name) for kind, name in names.items()}
    assert content(output) == dict.fromkeys(names.values(), b"new") and len(list(output.iterdir())) == 3


def test_the_result_of_other_images_is_not_written_over(tmp_path):
    image, options = tmp_path / "t1c.nii", PredictOptions(compressed=False)
    image.write_bytes(b"of one patient")
    request = parse(segment_request(tmp_path, image))
    _refuse_others(request, options)
    own = digest_images({"t1c": Source(image)})
    (tmp_path / "case-summary.json").write_text(json.dumps({"settings": {"images_sha256": own}}))
    _refuse_others(request, options)
    image.write_bytes(b"of another one")
    with pytest.raises(InputError, match=r"case-summary\.json: already exists, and is a result of other images"):
        _refuse_others(request, options)


def test_the_clock_answers_for_slow_work_unless_there_may_be_files(channel, tmp_path):
    slow, writing = (Job(parse(segment_request(tmp_path)), channel) for _ in range(2))
    writing.begin_writing()
    for job in (slow, writing):
        job.give_up_waiting(-1)
        assert not job.answered and job.cancel()
        job.give_up_waiting(-1)
    assert slow.answered and not writing.answered
    for step in (slow.begin_writing, writing.commit):
        with pytest.raises(Cancelled):
            step()


def test_captured_output_comes_in_whole_lines(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"a\r 10%\r\nhal")
    number = os.open(file, os.O_RDONLY)
    captured = Captured(number)
    assert captured.new_lines() == ["a", "10%"]
    with file.open("ab") as more:
        more.write(b"f\n\n\xff\n")
    assert captured.new_lines() == ["half", "\ufffd"]
    os.close(number)
    assert Captured(None).new_lines() == []


def test_prints_come_in_whole_lines():
    lines = []
    stream = LineWriter(1, lines.append)
    print("a", "b", end="", file=stream)
    print(" c\n\nd", file=stream)
    assert lines == ["a b c", "d"] and stream.fileno() == 1


# --- what the worker asked of the packages below


class Deep(nn.Module):
    """Ten layers; counts those that ran."""

    def __init__(self):
        super().__init__()
        self.ran = 0
        self.layers = nn.Sequential(*(nn.Identity() for _ in range(10)))
        for layer in self.layers:
            layer.register_forward_hook(self.count)

    def count(self, *_):
        self.ran += 1

    def forward(self, x):
        return self.layers(x)


def test_cancelling_is_noticed_inside_a_window_and_leaves_no_hooks():
    network = Deep()
    with pytest.raises(Cancelled):
        predict(network, torch.zeros(4, 32, 32, 32), InferenceSpec(), cancelled=lambda: network.ran == 4)
    assert network.ran == 4
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_several_windows_at_once_are_the_first_thing_to_be_given_up():
    attempts = inference._attempts(torch.device("cuda"), 2)
    tried = []

    def run(attempt):
        tried.append((attempt.run_on, attempt.accumulate_on, attempt.sw_batch_size))
        if len(tried) < 3:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return "result"

    result, notes = inference._first_that_fits(attempts, run)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert result == "result" and tried == [(cuda, cuda, 2), (cuda, cuda, 1), (cuda, cpu, 1)]
    assert "one by one" in notes[0] and "main memory" in notes[1] and len(notes) == 2
    assert inference._attempts(cpu, 2) == [inference._Attempt(cpu, cpu)]


def test_windows_at_once_change_nothing_but_the_calls():
    """On the CPU they are ignored; forced, as on a GPU, the mean is that of single windows."""
    torch.manual_seed(0)
    image, spec = torch.rand(4, 48, 32, 64), InferenceSpec(window=(32, 32, 32))
    sizes = []

    class Network(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x * 3

    alone = predict(Network(), image, spec, sw_batch_size=2)
    assert set(sizes) == {1}
    sizes.clear()
    cpu = torch.device("cpu")
    forced = inference._Attempt(cpu, cpu, sw_batch_size=2)
    with torch.inference_mode():
        both = inference._predict(Network(), image, spec, attempt=forced, flips=[()], progress=None)
    assert max(sizes) == 2 and both.passes == alone.passes == sum(sizes)
    assert torch.allclose(both.probabilities, alone.probabilities, atol=1e-6)
