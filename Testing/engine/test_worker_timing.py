"""How long the worker says that a case will take: estimates, the record of what was measured, guesses by manifests."""

import json
from pathlib import Path

import pytest
from segmamba.worker import facts
from segmamba.worker.timing import STAGES, Estimate, Record

EXPECTED = {"load": 4.0, "preprocess": 1.0, "inference": 10.0, "postprocess": 2.0, "write": 1.0}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_before_anything_is_measured_the_expectation_counts(clock):
    estimate = Estimate(EXPECTED, clock)
    assert estimate.now() == (0, 18)
    clock.now += 3
    assert estimate.now() == (pytest.approx(3 / 18), 15)
    estimate.enter("preprocess")  # a second earlier than expected
    assert estimate.now() == (pytest.approx(3 / 17), 14)


def test_windows_that_were_measured_replace_the_expectation(clock):
    estimate = Estimate(EXPECTED, clock)
    estimate.enter("inference")
    clock.now += 5
    estimate.report(0.125)  # 5 s for one window of 8: 35 more, then 2 + 1
    assert estimate.now() == (pytest.approx(5 / 43), 38)
    clock.now += 3
    assert estimate.now()[1] == 35
    clock.now += 3
    estimate.report(0.25)  # 11 s for two: 33 more
    assert estimate.now()[1] == pytest.approx(36)


def test_where_the_expectation_has_long_passed_nothing_is_promised(clock):
    estimate = Estimate(EXPECTED, clock)
    clock.now += 11
    fraction, left = estimate.now()
    assert left is None and fraction == 0
    estimate.enter("preprocess")
    assert estimate.now() == (pytest.approx(11 / 25), 14)


def test_the_fraction_never_falls_and_work_that_begins_anew_is_measured_anew(clock):
    estimate = Estimate(EXPECTED, clock)
    estimate.enter("inference")
    clock.now += 10
    estimate.report(0.5)
    before, _ = estimate.now()
    estimate.report(0.0)  # on the CPU now
    clock.now += 2
    estimate.report(0.01)
    after, left = estimate.now()
    assert after == before and left == pytest.approx(2 * 99 + 3)


def test_the_seconds_of_the_stages_add_up(clock):
    estimate = Estimate(EXPECTED, clock)
    for stage, seconds in zip(STAGES, (1, 2, 4, 8, 16, 32), strict=True):
        estimate.enter(stage)
        clock.now += seconds
    assert estimate.finish() == dict(zip(STAGES, (1, 2, 4, 8, 16, 32)))


MANIFEST = {
    "id": "m",
    "network": {"full_features": 16},
    "preprocess": {"spacing": [2, 2, 2]},
    "inference": {"window": [112, 128, 112], "overlap": 0.5},
}


def test_the_record_is_kept_and_scales_with_the_mirrorings(tmp_path):
    file = tmp_path / "a" / "times.json"
    record = Record(file)
    assert record.expect(MANIFEST, "cpu", 0)[1] is False
    seconds = {"load": 8.0, "preprocess": 1.0, "inference": 24.0, "postprocess": 2.0, "write": 0.5}
    record.add("m", "cpu", seconds, passes=8, mirrorings=1, cold=True)
    stages, measured = Record(file).expect(MANIFEST, "cpu", 3)
    assert measured and stages == {**seconds, "inference": 3.0 * 4 * 4}
    record.add("m", "cpu", {**seconds, "load": 0.1, "inference": 4.0}, passes=4, mirrorings=0, cold=False)
    stages, _ = Record(file).expect(MANIFEST, "cpu", 0)
    assert stages["load"] == 8 and stages["inference"] == pytest.approx(2.0 * 4)
    assert Record(file).expect(MANIFEST, "cuda:0", 0)[1] is False


def test_what_preparing_took_is_kept_apart_from_the_models(tmp_path):
    """Only of runs that had something to prepare: a look at images that are ready takes a moment."""
    file = tmp_path / "times.json"
    record = Record(file)
    guess = record.preparation()
    seconds = {"load": 8.0, "prepare": 2.0, "preprocess": 1.0, "inference": 24.0, "postprocess": 2.0, "write": 0.5}
    record.add("m", "cpu", seconds, passes=8, mirrorings=0, cold=True)
    assert Record(file).preparation() == guess
    record.add("m", "cpu", {**seconds, "prepare": 40.0}, passes=8, mirrorings=0, cold=False, prepared=True)
    assert Record(file).preparation() == 40
    record.add("other", "cuda:0", {**seconds, "prepare": 20.0}, passes=8, mirrorings=0, cold=False, prepared=True)
    assert Record(file).preparation() == 30
    assert "prepare" not in Record(file).expect(MANIFEST, "cpu", 0)[0]


def test_a_guess_promises_nothing_until_windows_were_measured(clock):
    """The guess for an unknown machine is off by a factor; the bar moves all the same."""
    estimate = Estimate(EXPECTED, clock, measured=False)
    clock.now += 3
    fraction, left = estimate.now()
    assert fraction == pytest.approx(3 / 18) and left is None
    estimate.enter("inference")
    clock.now += 1
    assert estimate.now()[1] is None
    estimate.report(0.5)
    assert estimate.now()[1] == pytest.approx(1 + 2 + 1)  # as long again, then what is expected
    estimate.enter("postprocess")
    assert estimate.now()[1] == pytest.approx(2 + 1)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"runs": {"m | cpu": {"load": -1}}}', '{"runs": {"m | cpu": {"load": NaN}}}']
)
def test_a_broken_record_is_begun_anew(tmp_path, text):
    file = tmp_path / "times.json"
    file.write_text(text)
    assert Record(file).expect(MANIFEST, "cpu", 0)[1] is False


def test_a_guess_grows_with_windows_width_and_mirrorings():
    record = Record(Path("/nowhere/times.json"))
    plain = record.expect(MANIFEST, "cpu", 0)[0]["inference"]
    fine = record.expect({**MANIFEST, "preprocess": {"spacing": [1, 1, 1]}}, "cpu", 0)[0]["inference"]
    wide = record.expect({**MANIFEST, "network": {"full_features": 48}}, "cpu", 0)[0]["inference"]
    assert fine > 4 * plain and wide == pytest.approx(9 * plain)
    assert record.expect(MANIFEST, "cpu", 7)[0]["inference"] == pytest.approx(8 * plain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": None},
        {"network": {"full_features": 1e300}},
        {"network": {"full_features": "48"}},
        {"preprocess": {"modalities": ["t1c"], "spacing": [1e-320, 2, 2]}},
        {"preprocess": {"modalities": ["t1c"], "spacing": [1e-300] * 3}},
        {"preprocess": []},
        {"inference": {"window": [112, float("inf"), 112]}},
        {"inference": {"window": 128}},
        {"inference": {"overlap": float("nan")}},
    ],
    ids=str,
)
def test_a_manifest_without_sizes_is_listed_with_its_problem(tmp_path, monkeypatch, wrong):
    """`hello` is answered: the first model is that of the devices too."""
    record = Record(tmp_path / "times.json")
    sound = {**MANIFEST, "preprocess": {"modalities": ["t1c"], "spacing": [2, 2, 2]}}
    for name, manifest in (("a", {**sound, **wrong}), ("b", sound)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(facts, "_MODELS", tmp_path)
    good, bad = facts.models(record, ["cpu"])
    assert (good["name"], bad["name"]) == ("b", "a") and "problem" not in good
    assert bad["problem"] == "model.json cannot be read (InputError): fetch it again"
    assert facts.cpu(record)["expected_seconds"]["0"] > 0
