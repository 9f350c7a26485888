"""`segmamba report RUN`: everything about a training on one page that needs nothing but a browser, or a printer.

Case ids, regions, settings and events come from files and are taken as text: all of it is escaped, pictures are
embedded as data, and the page forbids scripts and links to anything outside of itself.
"""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from segmamba import __version__
from segmamba.errors import InputError
from segmamba.evaluation.report.colours import region_colours, to_hex
from segmamba.evaluation.report.curves import draw_curves
from segmamba.evaluation.report.log import RunLog, mean_dice, read_log, worst_first
from segmamba.evaluation.report.style import STYLE
from segmamba.evaluation.report.table import format_score, format_seconds
from segmamba.files.atomic import write_aside
from segmamba.settings import read_json

REPORT = "report.html"
CONFIG = "config.json"
OVERLAYS = "overlays"
_MAX_EVENTS, _MAX_OVERLAYS = 500, 12


def write_report(run: Path | str) -> Path:
    """Writes run/report.html and returns its path.

    Raises InputError where run/log.jsonl cannot be read, or run/config.json is there but no JSON; whatever else is
    missing is left out.
    """
    run = Path(run)
    log, record = read_log(run), _read_record(run)
    config = _table_of(record, "config")
    name = str(config.get("name") or run.resolve().name)
    body = [
        _header(name, log, record),
        _tiles(log),
        _section("Curves", _picture(draw_curves(log, "svg"), "svg+xml", "loss, Dice, learning rate, seconds per step")),
        _cases(log),
        _overlays(run / OVERLAYS),
        _events(log),
        _section("Settings", _settings(config)),
        _section("Hardware and versions", _origin(record)),
        _hashes(record),
    ]
    page = _PAGE.format(title=escape(name), style=STYLE, body="\n".join(part for part in body if part))
    path = run / REPORT
    write_aside(path, page.encode("utf-8", "replace"))  # a lone surrogate in an id is no text
    return path


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _read_record(run: Path) -> dict:
    path = run / CONFIG
    record = read_json(path, "record", optional=True)
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise InputError(f"{path}: expected a JSON object with the run's settings")
    return record


def _header(name: str, log: RunLog, record: dict) -> str:
    cases, held_out = (len(_table_of(record, key)) for key in ("cases", "held_out"))
    network = _network(_table_of(record, "config").get("network"))
    facts = [network, f"trained on {cases} cases" if cases else "", f"{held_out} held out" if held_out else ""]
    facts.append(f"{log.last_step} steps")
    times = [entry["time"] for entry in (*log.steps, *log.validations, *log.events) if math.isfinite(entry["time"])]
    when = f"{_date(min(times))} to {_date(max(times))}" if times else ""
    return (
        f'<header><p class="kind">Training report</p><h1>{escape(name)}</h1>'
        f"<p>{escape(', '.join(fact for fact in facts if fact))}</p>"
        f'<p class="faint">{escape(when)}{" &middot; " if when else ""}'
        "research use only, not a medical device</p></header>"
    )


def _table_of(record: dict, key: str) -> dict:
    """record[key], or an empty table where the record has something else there."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _network(network: object) -> str:
    if not isinstance(network, dict):
        return str(network or "")
    return " ".join(str(network[key]) for key in ("name", "preset", "form") if network.get(key))


def _tiles(log: RunLog) -> str:
    best = log.best
    tiles = []
    if best is not None:
        for region, colour in region_colours(best["mean"]).items():
            scores = best["mean"][region]
            tiles.append(
                f'<div class="tile" style="border-color:{to_hex(colour)}"><p>Dice {escape(region)}</p>'
                f"<strong>{format_score(scores['dice'])}</strong>"
                f"<p>HD95 {format_score(scores['hd95'], 1)} mm</p></div>"
            )
        tiles.append(
            _tile("Best validation", f"step {best['step']}", f"mean Dice {format_score(mean_dice(best['mean']))}")
        )
    validation = f"and {format_seconds(log.validation_seconds)} of validation" if log.validations else "no validation"
    tiles.append(_tile("Training", format_seconds(log.training_seconds), validation))
    stalls = [entry["stall"] for entry in log.steps if math.isfinite(entry["stall"])]
    if stalls:
        tiles.append(_tile("Waiting for data", f"{100 * sum(stalls) / len(stalls):.0f} %", "of the training's time"))
    skipped = log.steps[-1]["skipped"] if log.steps else math.nan
    if skipped > 0:
        tiles.append(_tile("Skipped steps", f"{skipped:.0f}", "the loss was not finite"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(head: str, value: str, foot: str) -> str:
    return f'<div class="tile"><p>{escape(head)}</p><strong>{escape(value)}</strong><p>{escape(foot)}</p></div>'


def _section(title: str, content: str, remark: str = "") -> str:
    if not content:
        return ""
    note = f'<p class="faint">{escape(remark)}</p>' if remark else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content}</section>"


def _cases(log: RunLog) -> str:
    best = log.best
    if best is None or not best["cases"]:
        return ""
    colours = region_colours(log.regions)
    names = "".join(f"<th>{escape(region)}</th>" for region in colours)
    span = len(colours)
    head = f'<tr><th></th><th colspan="{span}">Dice</th><th colspan="{span}">HD95, mm</th></tr>'
    head += f"<tr><th>case</th>{names}{names}</tr>"
    rows = [("mean", best["mean"], ' class="mean"')]
    rows += [(case, best["cases"][case], "") for case in worst_first(best["cases"])]
    lines = []
    for case, scores, kind in rows:
        dice = "".join(_bar(scores.get(region, {}).get("dice", math.nan), colour) for region, colour in colours.items())
        values = (scores.get(region, {}).get("hd95", math.nan) for region in colours)
        hd95 = "".join(f"<td>{format_score(value, 1)}</td>" for value in values)
        lines.append(f"<tr{kind}><td>{escape(case)}</td>{dice}{hd95}</tr>")
    table = f'<table class="scores"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>'
    remark = f"Validation at step {best['step']}, whole volumes on the cases' own grids, the worst first."
    return _section("Cases", table, remark)


def _bar(value: float, colour: Any) -> str:
    """A cell with the number, and a bar as long as it is large."""
    if not math.isfinite(value):
        return "<td>-</td>"
    width = 100 * min(1.0, max(0.0, value))
    bar = f'<i style="width:{width:.1f}%;background:{to_hex(colour)}"></i>'
    return f"<td>{format_score(value)}<span>{bar}</span></td>"


def _overlays(folder: Path) -> str:
    figures = []
    for path in sorted(folder.glob("*.png"))[:_MAX_OVERLAYS]:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        figures.append(
            f"<figure>{_picture(data, 'png', path.stem)}<figcaption>{escape(path.stem)}</figcaption></figure>"
        )
    return _section(
        "The worst validation cases", "".join(figures), "Radiological view: the patient's right is on the left."
    )


def _picture(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _events(log: RunLog) -> str:
    shown = log.events[-_MAX_EVENTS:]
    rows = [(_date(entry["time"]), str(entry["step"]), entry["text"]) for entry in shown]
    remark = f"The last {len(shown)} of {len(log.events)}." if len(shown) < len(log.events) else ""
    return _section("Events", _table(("time", "step", "what"), rows, "events") if rows else "", remark)


def _settings(config: Mapping) -> str:
    return _pairs(_flat(config))


def _flat(values: object, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings -> (dotted name, value) of every leaf; a list of plain values is one leaf."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list) and any(isinstance(value, dict | list) for value in values):
        for number, value in enumerate(values):
            yield from _flat(value, f"{name}.{number}")
    elif isinstance(values, list):
        yield name, ", ".join(map(str, values))
    else:
        yield name, "" if values is None or values == {} else str(values)


def _origin(record: dict) -> str:
    rows = [*_flat(record.get("hardware") or {}), *_flat(record.get("versions") or {})]
    if record.get("git_commit"):
        rows.append(("git commit", str(record["git_commit"])))
    rows.append(("this page by segmamba", __version__))
    return _pairs(rows)


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<li><span>{escape(name)}</span><span>{escape(value)}</span></li>" for name, value in rows)
    return f'<ul class="pairs">{items}</ul>' if items else ""


def _hashes(record: dict) -> str:
    parts = []
    for key, title in (("cases", "Trained on"), ("held_out", "Held out")):
        cases = record.get(key)
        if isinstance(cases, dict) and cases:
            rows = [(str(case), str(digest)) for case, digest in cases.items()]
            parts.append(f"<h3>{title}, {len(rows)} cases</h3>{_table(None, rows, 'hashes')}")
    return _section("Data", "".join(parts), "sha256 over the files of each case, as they were read.")


def _table(head: tuple[str, ...] | None, rows: Iterable[tuple[str, ...]], kind: str) -> str:
    top = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}">{top}<tbody>{lines}</tbody></table>'


def _date(seconds: float) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""
