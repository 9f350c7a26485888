"""What people look at: the log of a run put back in order, the curves, the table, the page, TensorBoard."""

import base64
import io
import json
import logging
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.evaluation.report import TensorBoardLog, format_table, read_log, worst_first, write_progress, write_report
from segmamba.evaluation.report.curves import moving_average
from segmamba.evaluation.report.table import format_seconds

NASTY = "<script>alert(1)</script>&\"'$\\frac{"


def step(number, loss=0.5, **more):
    values = {"learning_rate": 1e-3, "gradient_norm": 1.0, "seconds_per_step": 2.0, "stall": 0.1, "skipped": 0}
    return {"kind": "step", "step": number, "time": 1000.0 + number, "loss": loss, **values, **more}


def scores(*dices, regions=("WT", "TC", "ET"), hd95=5.0):
    return {region: {"dice": dice, "hd95": hd95} for region, dice in zip(regions, dices)}


def validation(number, mean, best=False, cases=None, seconds=7.0):
    return {
        **{"kind": "validation", "step": number, "time": 1000.5 + number, "mean": mean, "cases": cases or {}},
        **{"seconds": seconds, "best": best},
    }


def event(number, text):
    return {"kind": "event", "step": number, "time": 1000.7 + number, "text": text}


@pytest.fixture
def run(tmp_path):
    """Writes a run folder from records and raw lines; returns it."""

    def write(*lines, end="\n", **config):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "log.jsonl").write_text("\n".join(texts) + end)
        if config:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


# --- the log


def test_a_log_without_interruption_is_read_as_it_is(run):
    log = read_log(run(step(10, 0.9), step(20, 0.7), validation(20, scores(0.5, 0.4, 0.3)), event(20, "early stop")))
    assert [(entry["step"], entry["loss"]) for entry in log.steps] == [(10, 0.9), (20, 0.7)]
    assert log.validations[0]["mean"]["TC"] == {"dice": 0.4, "hd95": 5.0}
    assert [entry["text"] for entry in log.events] == ["early stop"]
    assert (log.regions, log.last_step, log.damaged) == (("WT", "TC", "ET"), 20, 0)


def test_of_a_repeated_step_the_later_line_counts(run):
    log = read_log(run(step(10, 0.9), step(20, 0.8), step(30, 0.7), step(20, 0.6), step(30, 0.5)))
    assert [(entry["step"], entry["loss"]) for entry in log.steps] == [(10, 0.9), (20, 0.6), (30, 0.5)]


def test_work_that_was_lost_does_not_stand_behind_the_step_that_was_resumed(run):
    """Killed after step 40, resumed from 20, and stopped at 30: steps 31 to 40 never happened."""
    lost = [step(20, 0.8), validation(20, scores(0.2)), step(30, 0.7), step(40, 0.6), validation(40, scores(0.9), True)]
    log = read_log(run(step(10, 0.9), *lost, event(20, "resumed after step 20"), step(30, 0.5)))
    assert [(entry["step"], entry["loss"]) for entry in log.steps] == [(10, 0.9), (20, 0.8), (30, 0.5)]
    assert [entry["step"] for entry in log.validations] == [20]
    assert log.last_step == 30


def test_of_a_repeated_validation_the_later_one_counts_and_steps_stay(run):
    log = read_log(run(step(10), validation(10, scores(0.1)), step(20), validation(10, scores(0.6))))
    assert [entry["mean"]["WT"]["dice"] for entry in log.validations] == [0.6]
    assert [entry["step"] for entry in log.steps] == [10, 20]


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_last_line_cut_in_half_is_left_out(run, cut):
    log = read_log(run(step(10), json.dumps(step(20))[:cut], end=""))
    assert ([entry["step"] for entry in log.steps], log.damaged) == ([10], 1)


def test_a_line_that_follows_half_a_line_is_not_lost(run):
    """The killed process left no line end, so the resumed one went on behind its half line."""
    log = read_log(run(step(10), json.dumps(step(20))[:33] + json.dumps(event(10, "resumed")), step(20, 0.3)))
    assert [entry["text"] for entry in log.events] == ["resumed"]
    assert log.steps[-1]["loss"] == 0.3


@pytest.mark.parametrize("line", ["[1, 2]", "null", '{"step": 3}', '{"kind": "step", "step": "x"}', "\x00\x00", "{"])
def test_lines_that_are_no_records_are_left_out(run, line):
    assert read_log(run(step(10), line, step(20))).damaged == 1


def test_values_of_the_wrong_kind_are_not_a_number(run):
    odd = {"kind": "validation", "step": 5, "mean": {"WT": {"dice": "0.5"}, "TC": None}, "cases": [1]}
    log = read_log(run(step(5, "big", stall=None), odd))
    assert math.isnan(log.steps[0]["loss"]) and math.isnan(log.steps[0]["stall"])
    assert math.isnan(log.validations[0]["mean"]["WT"]["dice"]) and log.validations[0]["cases"] == {}


def test_a_folder_without_a_log_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"log\.jsonl.*run folder"):
        read_log(tmp_path)


def test_the_best_validation_is_the_last_one_marked_else_the_highest(run):
    marked = [validation(10, scores(0.9), True), validation(20, scores(0.5), True), validation(30, scores(0.8))]
    assert read_log(run(*marked)).best["step"] == 20
    unmarked = [validation(10, scores(0.4)), validation(20, scores(0.7)), validation(30, scores(math.nan))]
    assert read_log(run(*unmarked)).best["step"] == 20
    assert read_log(run(step(1))).best is None


def test_time_is_that_of_the_steps_that_count(run):
    lines = [step(10, seconds_per_step=1.5), step(30, seconds_per_step=2.0), step(50), step(30, seconds_per_step=3.0)]
    log = read_log(run(*lines, validation(30, scores(0.5), seconds=11.0)))
    assert log.training_seconds == pytest.approx(10 * 1.5 + 20 * 3.0)
    assert log.validation_seconds == 11.0


def test_the_worst_case_comes_first():
    cases = {"good": scores(0.9, 0.8), "far": scores(0.5, 0.5, hd95=90.0), "near": scores(0.5, 0.5, hd95=3.0)}
    cases |= {"bad": scores(0.1, 0.2), "unknown": scores(math.nan, 0.9)}
    assert worst_first(cases) == ["unknown", "bad", "far", "near", "good"]


# --- the curves


def test_the_moving_average_is_that_of_the_last_finite_values():
    values = [1.0, 3.0, math.nan, 5.0, math.nan, math.nan, math.nan, 8.0]
    expected = [1.0, 2.0, 2.0, 4.0, 5.0, 5.0, math.nan, 8.0]
    np.testing.assert_allclose(moving_average(values, 3), expected)


def colours(path):
    """Every colour of a picture that covers more than a few pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int) @ (65536, 256, 1)
    found, counts = np.unique(pixels, return_counts=True)
    return {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c, count in zip(found, counts) if count > 20}


def greenish(found):
    return any(g > 1.5 * r and g > 1.5 * b for r, g, b in found)


def test_the_curves_show_the_loss_and_each_region_in_its_colour(run):
    plain = run(*(step(n, 1 / n) for n in range(1, 60)))
    assert not greenish(colours(write_progress(plain)))
    scored = run(*(step(n, 1 / n) for n in range(1, 60)), *(validation(n, scores(n / 60)) for n in (20, 40)))
    assert greenish(colours(write_progress(scored)))


def test_a_step_whose_loss_was_not_finite_is_marked_red(run):
    def red(path):
        return any(r > 1.1 * g and abs(g - b) < 0.1 * r for r, g, b in colours(path))  # the stall is orange

    assert not red(write_progress(run(*(step(n, 1.0) for n in range(1, 20)))))
    assert red(write_progress(run(*(step(n, math.nan if n == 9 else 1.0) for n in range(1, 20)))))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [step(1)],
        [step(1, math.nan)],
        [step(1, math.inf), step(2, -math.inf)],
        [step(n, None) for n in range(5)],
        [step(7, 1e30), step(8, 1e-30)],
        [validation(0, scores(0.1))],
        [validation(0, {})],
        [validation(5, scores(math.nan, math.nan, math.nan), True)],
        [step(1), validation(1, scores(0.5, 0.5, regions=(NASTY, "_hidden")))],
        [validation(1, scores(*(n / 30 for n in range(30)), regions=[f"organ {n}" for n in range(30)]))],
        [{"kind": "unheard of", "step": 1}],
    ],
)
def test_odd_logs_are_drawn_all_the_same(run, lines, caplog):
    path = write_progress(run(*lines))
    assert Image.open(path).size > (500, 300)
    assert "was not drawn" not in caplog.text


def test_a_picture_that_cannot_be_drawn_stops_no_training(tmp_path, run, caplog):
    path = write_progress(run(step(1)))
    before = path.read_bytes()
    (tmp_path / "log.jsonl").unlink()
    assert write_progress(tmp_path) == path
    assert path.read_bytes() == before
    assert "was not drawn" in caplog.text
    write_progress(tmp_path / "nowhere")


# --- the table


def test_the_table_has_the_best_step_and_the_worst_case_first(run):
    cases = {"case-b": scores(0.9, 0.8, 0.7), "case-a": scores(0.2, 0.1, 0.0, hd95=374.0)}
    mean = scores(0.55, 0.45, 0.35, hd95=189.5)
    last = validation(200, scores(0.5, 0.4, 0.3), cases=cases)
    text = format_table(run(step(100), validation(100, mean, True, cases), step(200, skipped=3), last))
    rows = [line.split() for line in text.splitlines()]
    assert ["case-a", "0.200", "0.100", "0.000", "374.00", "374.00", "374.00"] in rows
    names = [row[0] for row in rows if row]
    assert names.index("case-a") < names.index("case-b") < names.index("mean")
    assert "step 100, mean Dice 0.450 (the last one, step 200: 0.400)" in text
    assert "200 steps in 6 min 40 s, validation 14.0" not in text and "200 steps in 6 min 40 s" in text
    assert "not finite: 3" in text


def test_the_table_of_a_run_without_validation_says_so(run):
    assert format_table(run(step(3))) == "3 steps in 6.0 s, no validation"


def test_a_case_id_cannot_command_the_terminal(run):
    text = format_table(run(validation(1, scores(0.5), cases={"\x1b[2Jcase": scores(0.5)})))
    assert "\x1b" not in text and "\\x1b[2Jcase" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.26, "0.3 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h"), (math.nan, "-")],
)
def test_seconds_are_written_for_people(seconds, text):
    assert format_seconds(seconds) == text


# --- the page


class Page(HTMLParser):
    """The page as a browser would take it apart."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.texts, self.rows, self.row = [], [], [], [], None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("tr", "li"):
            self.row = []
            self.rows.append(self.row)

    def handle_endtag(self, tag):
        if tag in ("tr", "li"):
            self.row = None

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)
            if self.row is not None:
                self.row.append(data)

    @property
    def pictures(self):
        return [base64.b64decode(v.partition("base64,")[2]) for name, v in self.attributes if name == "src"]


@pytest.fixture
def nasty_run(run):
    """A run whose ids, regions, settings and events try to be HTML; returns its folder."""
    regions = ("WT", f"R{NASTY}")
    cases = {f"good{NASTY}": scores(0.9, 0.8, regions=regions), f"bad{NASTY}": scores(0.2, 0.1, regions=regions)}
    folder = run(
        *(step(n, 1 / n) for n in range(1, 9)),
        validation(8, scores(0.55, 0.45, regions=regions), True, cases),
        event(8, f"stopped{NASTY}"),
        config={"name": f"run{NASTY}", "network": {"name": "segmamba", "preset": "quick"}, "patch": [64, 48, 32]},
        versions={"torch": "2.13.0"},
        hardware={"gpu": f"gpu{NASTY}"},
        git_commit="abc123",
        cases={f"train{NASTY}": "11" * 32, "other": "22" * 32},
        held_out={f"good{NASTY}": "33" * 32, f"bad{NASTY}": "44" * 32},
    )
    (folder / "overlays").mkdir()
    Image.new("RGB", (7, 5), "red").save(folder / "overlays" / "a<b>&.png")
    return folder


def test_what_the_files_say_is_text_on_the_page_and_nothing_else(nasty_run):
    page = Page(write_report(nasty_run))
    assert not {"script", "link", "iframe", "object", "a", "form", "b", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for kind in ("run", "good", "bad", "train", "stopped", "gpu", "R"):
        assert f"{kind}{NASTY}" in " ".join(page.texts), kind


def test_the_page_needs_nothing_from_outside(nasty_run):
    page = Page(write_report(nasty_run))
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert sources and all(value.startswith("data:image/") for value in sources)
    text = write_report(nasty_run).read_text()
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text


def test_the_page_holds_the_pictures_themselves(nasty_run):
    pictures = Page(write_report(nasty_run)).pictures
    assert (nasty_run / "overlays" / "a<b>&.png").read_bytes() in pictures
    assert any(b"<svg" in picture for picture in pictures)
    assert all(b"<script" not in picture for picture in pictures)
    assert [Image.open(io.BytesIO(p)).size for p in pictures if p.startswith(b"\x89PNG")] == [(7, 5)]


def test_the_page_says_what_was_trained_on_what_and_how(nasty_run):
    page = Page(write_report(nasty_run))
    assert "segmamba quick, trained on 2 cases, 2 held out, 8 steps" in page.texts
    for row in (["patch", "64, 48, 32"], ["network.preset", "quick"], ["torch", "2.13.0"], ["git commit", "abc123"]):
        assert row in page.rows
    assert ["other", "22" * 32] in page.rows and [f"bad{NASTY}", "44" * 32] in page.rows


def test_the_page_has_the_cases_worst_first(nasty_run):
    rows = [row for row in Page(write_report(nasty_run)).rows if len(row) == 5 and row[0] != "case"]
    assert [row[0] for row in rows] == ["mean", f"bad{NASTY}", f"good{NASTY}"]
    assert rows[1][1:] == ["0.200", "0.100", "5.0", "5.0"]


def test_a_page_of_little_is_a_page(run):
    page = Page(write_report(run(step(1, math.nan))))
    assert "Curves" in page.texts and "Cases" not in page.texts


def test_ids_that_are_no_unicode_do_not_stop_the_page(run):
    write_report(run(event(1, "\ud800"), config={"name": 3, "network": None, "sources": [{"folder": "a"}, {}]}))


def test_a_broken_config_is_an_error_that_names_it(run):
    folder = run(step(1))
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        write_report(folder)


def test_the_command_writes_the_page_and_prints_the_table(nasty_run, capsys):
    assert main(["report", str(nasty_run)]) == 0
    assert (nasty_run / "report.html").stat().st_size > 5000
    assert "best validation: step 8" in capsys.readouterr().out


def test_the_command_refuses_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "log.jsonl" in capsys.readouterr().err


# --- TensorBoard


def test_without_tensorboard_it_is_said_and_nothing_happens(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        log = TensorBoardLog(tmp_path / "tb")
        log.write(step(1))
        log.close()
    assert caplog.text.count("tensorboard is not installed") == 1
    assert not (tmp_path / "tb").exists()


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path)
    for record in (step(5, 0.25), step(6, math.nan), validation(6, scores(0.5, 0.75)), event(6, "resumed")):
        log.write(record)
    log.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(5, 0.25)]
    assert [(e.step, e.value, e.wall_time) for e in found.Scalars("dice/TC")] == [(6, 0.75, 1006.5)]
    assert found.Scalars("hd95/WT")[0].value == 5.0
