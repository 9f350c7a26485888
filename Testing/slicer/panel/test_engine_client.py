"""The client of the worker, against workers that behave well and workers that do not."""

import os
import time

import pytest
import qt
from SegMambaSlicerLib.engine.client import CANCEL_SECONDS, Engine, EngineError, explain


@pytest.fixture
def engine(choose):
    choose("well")
    engine = Engine()
    yield engine
    engine.stop()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def askToSegment(engine, folder, **callbacks):
    return engine.segment({"t1c": folder / "t1c.nii"}, folder, **callbacks)


def until(engine, condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        engine.poll()
        time.sleep(0.005)


def test_hello_tells_of_the_machine(engine):
    assert not engine.isRunning()
    answer = engine.wait(engine.hello(), 10)
    assert answer["version"] == "9.9"
    assert answer["models"][0]["name"] == "quick"
    assert engine.isRunning()
    assert not engine.isBusy()


def test_the_process_stays_for_the_next_question(engine):
    engine.wait(engine.hello(), 10)
    pid = engine.pid
    engine.wait(engine.hello(), 10)
    assert engine.pid == pid


def test_asking_does_not_wait(engine, choose):
    choose("mute")
    request = engine.hello()
    for _ in range(100):
        engine.poll()  # would hang here
    assert not request.isDone
    with pytest.raises(EngineError, match="has not answered") as raised:
        engine.wait(request, 0.2)
    assert raised.value.kind == "late"


def test_what_a_library_prints_is_no_answer(engine, choose, tmp_path):
    choose("babbling")
    heard = []
    engine._log = lambda level, text: heard.append(text)
    assert engine.wait(engine.hello(), 10)["version"] == "9.9"
    assert "Loading plug-ins..." in heard
    assert any("not text" in text for text in heard)


def test_progress_comes_before_the_result_or_error(engine, choose, tmp_path):
    choose("refusing")
    seen = []
    request = askToSegment(engine, tmp_path, onProgress=lambda event: seen.append(event["fraction"]))
    with pytest.raises(EngineError) as raised:
        engine.wait(request, 10)
    assert raised.value.kind == "input"
    assert "mend it" in raised.value.message
    assert seen == [0.1, 0.5]
    assert engine.isRunning()  # nothing is wrong with it


def test_a_dying_worker_says_its_last_words_and_another_takes_its_place(engine, choose, tmp_path):
    choose("dying")
    with pytest.raises(EngineError) as raised:
        engine.wait(askToSegment(engine, tmp_path), 10)
    assert raised.value.kind == "died"
    assert "exit code 3" in raised.value.message
    assert "not enough memory" in raised.value.message
    assert "Unable to allocate 9 GiB" in raised.value.detail
    assert not engine.isRunning()
    choose("well")
    assert engine.wait(engine.hello(), 10)["protocol"] == 1


def test_a_worker_that_failed_as_nobody_foresaw_is_ended_and_another_takes_its_place(engine, choose, tmp_path):
    """An error of CUDA lasts as long as its process, which would fail at every later request as well."""
    choose("broken-gpu")
    request = askToSegment(engine, tmp_path)
    pid = engine.pid
    with pytest.raises(EngineError, match="CUDA error") as raised:
        engine.wait(request, 10)
    assert raised.value.kind == "internal"
    assert not engine.isRunning()
    assert not alive(pid)
    choose("well")
    assert engine.wait(engine.hello(), 10)["protocol"] == 1
    assert engine.pid != pid


def test_who_asks_again_on_hearing_of_the_failure_asks_another_worker(engine, choose, tmp_path):
    choose("broken-gpu")
    pids, again = [], []

    def retry(error):
        choose("well")
        again.append(engine.hello())
        pids.append(engine.pid)

    request = askToSegment(engine, tmp_path, onError=retry)
    pids.append(engine.pid)
    until(engine, lambda: request.isDone)
    assert engine.wait(again[0], 10)["protocol"] == 1
    assert pids[0] != pids[1] == engine.pid


def test_a_worker_that_failed_is_ended_only_when_it_has_answered_what_else_was_asked(engine, choose, tmp_path):
    choose("broken-gpu")
    request, asked = askToSegment(engine, tmp_path), engine.hello()
    until(engine, lambda: request.isDone)
    assert engine.isRunning()
    assert engine.wait(asked, 10)["protocol"] == 1
    assert not engine.isRunning()


def test_a_worker_that_fails_while_it_is_cancelled_is_ended_too(engine, choose, tmp_path):
    choose("broken-gpu")
    request = askToSegment(engine, tmp_path)
    engine.cancel(request)
    with pytest.raises(EngineError) as raised:
        engine.wait(request, 10)
    assert raised.value.kind == "cancelled"
    assert not engine.isRunning()
    assert not engine.isBusy()


def test_in_the_panel_a_failure_that_would_last_is_over_with_the_next_run(ready, choose, pump):
    panel = ready
    choose("broken-gpu")
    panel.session.restart()
    panel.queryEngine()
    pump(lambda: panel.session.machine)
    before = panel.ui.stateLabel.text
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    assert "CUDA error" in panel.ui.progressLabel.text
    assert panel.ui.applyButton.isEnabled() and panel.ui.modelCombo.isEnabled()
    assert panel.ui.stateLabel.text == before and before.startswith("Ready: ")
    choose("well")  # the same engine, in another process
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    assert panel.parameters.result("Segmentation") is not None
    assert panel.session.engine.isRunning()


@pytest.mark.parametrize("behaviour", ["well", "slow"])
def test_in_the_panel_a_check_during_a_run_leaves_the_machine_known_after_it(ready, choose, pump, behaviour):
    """The worker is replaced once the run has ended, however it ends, and what the machine has is asked again."""
    panel, known = ready, ready.ui.stateLabel.text
    choose(behaviour)
    panel.session.restart()
    panel.ui.applyButton.click()
    pid = panel.session.engine.pid
    panel.onSetupChanged()  # as where Check has its answer
    assert panel.session.engine.pid == pid
    if behaviour == "slow":
        panel.ui.cancelButton.click()
    pump(lambda: not panel.session.isBusy())
    pump(lambda: panel.session.machine, 20)
    assert panel.session.engine.pid != pid and panel.ui.stateLabel.text == known


def test_in_the_panel_an_engine_that_does_not_start_after_the_run_is_said(ready, pump):
    panel = ready
    panel.ui.applyButton.click()
    panel.onSetupChanged()
    qt.QSettings().setValue("SegMamba/Python", "/nowhere/python")
    pump(lambda: not panel.session.isBusy())
    pump(lambda: "The engine did not start" in panel.ui.logText.toPlainText(), 20)
    assert panel.session.machine is None


def test_a_missing_package_is_named(engine, choose):
    choose("missing")
    with pytest.raises(EngineError, match="The Python package torch is missing"):
        engine.wait(engine.hello(), 10)


def test_a_worker_killed_between_two_questions_is_replaced(engine):
    engine.wait(engine.hello(), 10)
    before = engine.pid
    os.kill(before, 9)
    while engine._process.exitCode() is None:
        time.sleep(0.01)
    assert engine.wait(engine.hello(), 10)["protocol"] == 1
    assert engine.pid != before


def test_cancelling_is_asked_for_first(engine, choose, tmp_path):
    choose("slow")
    request = askToSegment(engine, tmp_path)
    until(engine, lambda: engine.lines)
    pid = engine.pid
    engine.cancel(request)
    with pytest.raises(EngineError) as raised:
        engine.wait(request, 10)
    assert raised.value.kind == "cancelled"
    until(engine, lambda: not engine.isBusy())
    assert engine.pid == pid  # it goes on, with its model loaded


def test_a_worker_that_does_not_listen_is_killed(engine, choose, tmp_path):
    choose("deaf")
    request = askToSegment(engine, tmp_path)
    until(engine, lambda: any("loaded" in line for line in engine.lines))
    pid = engine.pid
    started = time.monotonic()
    engine.cancel(request)
    engine.cancel(request)  # pressed twice
    with pytest.raises(EngineError) as raised:
        engine.wait(request, 10)
    assert raised.value.kind == "cancelled"
    assert time.monotonic() - started >= CANCEL_SECONDS
    assert not alive(pid)
    assert not engine.isBusy()


def test_stopping_ends_the_process_and_what_is_under_way(engine, choose, tmp_path):
    choose("slow")
    errors = []
    askToSegment(engine, tmp_path, onError=errors.append)
    until(engine, lambda: any("loaded" in line for line in engine.lines))
    pid = engine.pid
    engine.stop()
    assert not alive(pid)
    assert [error.kind for error in errors] == ["cancelled"]


def test_a_program_that_is_none_is_reported(app, tmp_path):
    qt.QSettings().setValue("SegMamba/Python", str(tmp_path / "nothing"))
    with pytest.raises(EngineError, match="is not a Python program") as raised:
        Engine().hello()
    assert raised.value.kind == "start"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ImportError: DLL load failed while importing _C", "install the packages again"),
        ("something new", ""),
    ],
)
def test_known_last_words_are_put_plainly(line, text):
    assert text in explain(["Traceback", line])
    assert bool(explain([line])) == bool(text)
