"""Signals that ask for an end: noted, the same when they come twice at once, obeyed when they come again later."""

import signal

import pytest
from segmamba.training import stop_signals as module
from segmamba.training.stop_signals import StopRequests, stop_signals


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_twice_at_once_is_told_once(clock, number):
    with stop_signals() as caught:
        signal.raise_signal(number)
        clock[0] += 9
        signal.raise_signal(number)  # does not end this process
        assert set(caught) == {number}


def test_told_again_later_ends_as_always(clock):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with stop_signals() as caught:
            signal.raise_signal(signal.SIGINT)
            clock[0] += 10
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert caught == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_kind_says_nothing_of_the_other_and_handlers_come_back(clock):
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        clock[0] += 60
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_file_asks_too_and_is_looked_for_once_a_second(clock, tmp_path):
    stop = StopRequests([], tmp_path)
    assert not stop
    (tmp_path / "stop").touch()
    clock[0] += 0.9
    assert not stop
    clock[0] += 0.1
    assert stop and stop.number == signal.SIGTERM
    (tmp_path / "stop").unlink()
    assert stop  # what was asked stays asked


def test_a_signal_needs_no_file(clock, tmp_path):
    caught: list[int] = []
    stop = StopRequests(caught, tmp_path)
    assert not stop
    caught.append(signal.SIGINT)
    assert stop and stop.number == signal.SIGINT
