"""A run of a site that others look at: alive or lost, one at a time, in the background, and its verdict in words."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import in_process
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.files.shares import exclusive
from segmamba.learning.site import Site, ask_to_stop, summarise
from segmamba.learning.site.improvement import _alone
from segmamba.learning.site.layout import LOCK, STATUS
from segmamba.learning.site.status import RunStatus, StatusWriter, in_words, read_status
from segmamba.learning.site.words import verdict_text
from segmamba.training.run_folder import append_log
from site_runs import pretend_to_work, save_model, tree, wait_for

# --- alive, lost, alone


@pytest.fixture
def worker(site):
    process = in_process(pretend_to_work, site.folder, "other")
    place = site.run("other")
    wait_for(lambda: (s := read_status(place)) and s.state == "training", process)
    yield process
    process.kill()
    process.join(60)


def test_one_improvement_at_a_time(site, worker, capsys):
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"], run["loss"]) == ("training", True, None)
    before = tree(site.folder)
    for arguments in ([], ["--run", "other"], ["--run", "mine"], ["--detach", "--json"]):
        assert main(["improve", str(site.folder), *arguments]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: run other is at work") and "--stop other" in last
    assert {path for path in tree(site.folder)} == set(before)
    assert main(["improve", str(site.folder), "--stop", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "other", "folder": str(site.run("other"))}
    assert (site.run("other") / "stop").exists()


def test_who_comes_second_to_the_lock_leaves_no_empty_run(site):
    """Both looked before either held it; what was in a folder already stays there."""
    begun = site.new_run("finetune")
    (begun / "improve.json").write_text("{}")
    with exclusive(site.lock):
        for folder in (begun, site.new_run("finetune"), site.run("named")):
            with pytest.raises(InputError, match="another program is at work"), _alone(site, folder):
                pytest.fail("two at once")
    assert site.run_folders() == [begun] and (begun / "improve.json").exists()


def test_a_run_that_was_ended_from_outside_is_lost(site, worker):
    worker.kill()
    worker.join(60)
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"], run["text"]) == ("lost", False, "was ended from outside; resume it")
    with pytest.raises(InputError, match="not at work"):
        ask_to_stop(site, "other")


def test_of_another_machine_nothing_is_known(site, worker):
    worker.kill()
    worker.join(60)
    for minutes in (0, 9, -60):  # the last: its clock is ahead
        said_elsewhere(site, minutes)
        (run,) = summarise(site)["runs"]
        assert (run["state"], run["alive"]) == ("training", None)


def said_elsewhere(site, minutes):
    """As if the run were one of another machine, which wrote its status that long ago."""
    place = site.run("other") / STATUS
    changes = {"host": "elsewhere", "updated": time.time() - 60 * minutes}
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


def test_a_run_of_another_machine_that_is_silent_for_long_is_lost(site, worker):
    """Its lock is not always seen over a share: where it is, the run is not over."""
    worker.kill()
    worker.join(60)
    said_elsewhere(site, 11)
    with exclusive(site.run("other") / LOCK):
        (run,) = summarise(site)["runs"]
        assert (run["state"], run["alive"]) == ("training", None)
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"], run["text"]) == ("lost", False, "was ended from outside; resume it")
    with pytest.raises(InputError, match="not at work"):
        ask_to_stop(site, "other")
    with _alone(site, site.run("other")), StatusWriter(site.run("other"), "finetune"):  # resumed here
        (run,) = summarise(site)["runs"]
        assert (run["state"], run["alive"]) == ("preparing", True)


def test_a_run_that_was_resumed_elsewhere_meanwhile_ends_here(site, worker, monkeypatch):
    """A computer wakes up whose run another one took over."""
    worker.kill()
    worker.join(60)
    monkeypatch.setattr("segmamba.learning.site.status._EVERY", 0.05)
    folder = site.run("other")
    with pytest.raises(InputError, match="run other was resumed on elsewhere"), StatusWriter(folder, "finetune") as own:
        for step in range(200):
            said_elsewhere(site, 0)
            time.sleep(0.05)
            own.go_on(step, 200, f"step {step}", step=step)
    status = read_status(folder)
    assert (status.host, status.state) == ("elsewhere", "preparing")


def test_the_time_left_is_that_of_a_steady_pace(tmp_path, monkeypatch):
    from segmamba.learning.site import status as module

    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with StatusWriter(tmp_path, "finetune") as writer:
        for step in (10, 11, 20):  # resumed at 10; 2 s a step
            now[0] = 100 + 2 * (step - 10)
            writer.go_on(step, 100, f"step {step}", step=step)
        assert writer.status.seconds_left == 160 and writer.status.text == "step 20, about 3 min left"
        writer.begin("judging", "next")
        assert writer.status.seconds_left is None and writer.status.step == 20
    assert read_status(tmp_path) == writer.status


def test_lengths_of_time_in_words():
    words = {0.2: "about 1 s", 61: "about 61 s", 100: "about 2 min", 3600: "about 60 min", 3 * 3600: "about 3.0 h"}
    assert {seconds: in_words(seconds) for seconds in words} == words


def test_a_status_that_is_broken_or_of_another_version_is_none(tmp_path):
    assert read_status(tmp_path) is None
    for text in ("{", '{"schema": 1, "strange": 2}', "[]"):
        (tmp_path / STATUS).write_text(text)
        assert read_status(tmp_path) is None


def test_lines_of_lost_work_are_left_out(site):
    run = site.run("r")
    run.mkdir(parents=True)
    steps = [("step", 1), ("step", 2), ("validation", 2), ("step", 3), ("event", 3), ("step", 2), ("validation", 2)]
    lines = [json.dumps({"kind": kind, "step": step, "number": n}) for n, (kind, step) in enumerate(steps)]
    (run / "log.jsonl").write_text("\n".join([*lines[:4], '{"kind": "st', *lines[4:]]) + "\n")
    assert [line["number"] for line in summarise(site, "r")["log"]] == [0, 4, 5, 6]


def test_the_log_of_a_run_is_printed_too(tmp_path, capsys):
    site = Site(tmp_path)
    folder = site.new_run("finetune")
    append_log(folder, "step", step=25, loss=0.51234, seconds_per_step=1.5)
    append_log(
        folder, "validation", step=25, mean={"WT": {"dice": 0.81, "hd95": 4}, "ET": {"dice": None, "hd95": None}}
    )
    append_log(folder, "event", step=30, text="stopped after step 30")
    assert main(["status", str(tmp_path)]) == 0
    plain = capsys.readouterr().out
    assert main(["status", str(tmp_path), "--run", folder.name]) == 0
    assert capsys.readouterr().out == (
        f"{plain}step 25: loss 0.512\nstep 25: Dice WT 0.810, ET -\nstep 30: stopped after step 30\n"
    )


# --- the evidence in words


def report(verdict, **failed):
    checks = [{"name": "anchor Dice WT", "holds": True, "text": "fine"}]
    checks += [{"name": name, "holds": False, "text": text} for name, text in failed.items()]
    cases = {"anchor": {"cases": {"a": "", "b": ""}}, "local": {"cases": {"c": ""}}}
    return {"verdict": verdict, "checks": checks, "low_evidence": ["2 anchor cases: few"], **cases}


def test_what_follows_half_a_line_is_not_lost(site):
    """A kill or a full disk left the half; the training that goes on says so first of all."""
    folder = site.new_run("finetune")
    append_log(folder, "step", step=25)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"kind": "st')
    append_log(folder, "event", step=20, text="resumed after step 20")
    assert [line["kind"] for line in summarise(site, folder.name)["log"]] == ["step", "event"]
    assert b"" not in (folder / "log.jsonl").read_bytes().splitlines()


def test_a_verdict_in_words_says_what_it_is_worth():
    text = verdict_text(report("refuse", worse="0.9 to 0.1"), shipped=True)
    assert "should not be taken: worse: 0.9 to 0.1." in text and "fine" not in text
    assert "1 corrected case(s)" in text and "2 anchor cases that come with the program" in text
    assert "not how it does on new patients" in text
    assert "Low evidence: 2 anchor cases: few" in text
    text = verdict_text({**report("promote"), "low_evidence": []}, shipped=False)
    assert (
        text.startswith("Better: the new model is recommended.")
        and "come with the program" not in text
        and "Low evidence" not in text
    )
    looks = [{"part": "local", "case": "c", "text": "Dice ET 0.9 -> 0.7"}]
    text = verdict_text({**report("confirm", worst="x"), "look_first": looks}, shipped=False)
    assert "Not worse: a person decides." in text and "Look first at c (Dice ET 0.9 -> 0.7)." in text


def test_fields_of_a_status_have_one_home():
    """SITE.md names every field."""
    text = (Path(sys.modules["segmamba.learning.site"].__file__).parent / "SITE.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in RunStatus.__dataclass_fields__)


# --- it outlives who started it


def test_a_detached_run_outlives_its_parent_and_stops_by_a_file(site, tmp_path):
    model = save_model(tmp_path / "wide", narrow=False)
    line = [sys.executable, "-m", "segmamba", "improve", str(site.folder), "--model", str(model)]
    line += ["--device", "cpu", "--steps", "10000", "--detach", "--json"]
    started = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert started.returncode == 0, started.stderr  # the parent is gone
    folder = site.run("finetune-0001")
    assert json.loads(started.stdout) == {"run": "finetune-0001", "folder": str(folder)}
    (run,) = summarise(site)["runs"]
    assert run["alive"] is True
    try:
        wait_for(lambda: (read_status(folder) or run).step >= 1)
        if os.name == "posix":
            assert os.getsid(run["pid"]) == run["pid"] != os.getsid(0)
    finally:
        assert main(["improve", str(site.folder), "--stop", "finetune-0001"]) == 0
    wait_for(lambda: read_status(folder).state == "stopped")
    wait_for(lambda: summarise(site)["runs"][0]["alive"] is False)
    status = read_status(folder)
    assert "stopped after step" in (folder / "output.txt").read_text() and not (folder / "stop").exists()
    assert f"stopped after step {status.step}" in (folder / "log.jsonl").read_text()


@pytest.mark.parametrize("may_leave", [True, False], ids=["free", "in a job that lets nobody out"])
def test_on_windows_a_detached_run_has_a_console_that_nobody_sees(monkeypatch, may_leave):
    """Without one each console program that it starts would open a window. Windows is not there: its flags alone."""
    from segmamba.learning.site import detached

    names = ("CREATE_NO_WINDOW", "CREATE_NEW_PROCESS_GROUP", "CREATE_BREAKAWAY_FROM_JOB", "DETACHED_PROCESS")
    flags = dict(zip(names, (0x8000000, 0x200, 0x1000000, 0x8)))
    begun = []

    def start(command, *, creationflags, **shared):
        if creationflags & flags["CREATE_BREAKAWAY_FROM_JOB"] and not may_leave:
            raise PermissionError(13, "Access is denied")
        begun.append((command, creationflags))

    monkeypatch.setattr(detached, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(detached, "subprocess", SimpleNamespace(Popen=start, DEVNULL=-3, STDOUT=-2, **flags))
    detached._start(["improve"], None)
    assert begun == [(["improve"], 0x8000200 | (0x1000000 if may_leave else 0))]


def test_a_detached_run_that_ends_at_once_says_why(site, capsys, monkeypatch):
    from segmamba.learning.site import improvement as module

    monkeypatch.setattr(module, "free_or_refuse", lambda site: None)  # as when another one begins at this moment
    process = in_process(pretend_to_work, site.folder, "other")
    try:
        wait_for(lambda: read_status(site.run("other")), process)
        assert main(["improve", str(site.folder), "--detach"]) == 1
        assert "error: run other is at work" in capsys.readouterr().err
        assert [path.name for path in site.run_folders()] == ["other"]
    finally:
        process.kill()
        process.join(60)
