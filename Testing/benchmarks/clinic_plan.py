"""What clinic_curve.py has to do: its pieces, which of them are done, and about how long the rest takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from clinic_cases import CaseOf

ROW = "row.json"
# CPU minutes: of an improvement and of each of its steps, of a case that is sent, and that is scored
_IMPROVING, _STEP, _SENDING, _SCORING = 3.0, 0.035, 0.4, 0.1


@dataclass(frozen=True)
class Piece:
    """One improvement, with what has to be sent before and scored after it."""

    order: int
    damage: str
    damaged: float
    sent: int
    work: Path

    @property
    def name(self) -> str:
        return self.work.name

    @property
    def row(self) -> Path:
        return self.work / f"after{self.sent}" / ROW

    def __str__(self) -> str:
        return f"{self.name}, {self.sent} corrections"


def pieces(options) -> Iterator[Piece]:
    """All that were asked for, those of one site one after the other."""
    for damage in options.damage:
        share = 0.0 if damage == "sound" else options.damaged
        for order in options.orders:
            name = f"order{order}" + ("" if damage == "sound" else f"-{damage.replace(' ', '-')}-{share:g}")
            for count in sorted(set(options.after)):
                yield Piece(order, damage, share, count, options.work / name)


def is_done(options, piece: Piece) -> bool:
    if not piece.row.exists():
        return False
    shares = json.loads(piece.row.read_text(encoding="utf-8")).get("shares", {})
    return piece.damage != "sound" or all(f"{part:g}" in shares for part in options.shares)


def minutes_of(options, piece: Piece, scored: dict[str, list[CaseOf]]) -> float:
    """About how long a piece takes, in minutes of one CPU core: by rule of thumb, corrected by what is done already."""
    steps = options.steps or min(400, 50 + 50 * math.ceil(0.8 * piece.sent))
    known = [row for row in read_rows(options.work) if row.get("cpu_minutes")]
    pace = median([row["cpu_minutes"] / (_IMPROVING + _STEP * row["steps"]) for row in known]) if known else 1.0
    cases = _SCORING * sum(map(len, scored.values()))
    shares = json.loads(piece.row.read_text(encoding="utf-8"))["shares"] if piece.row.exists() else {}
    scoring = sum(f"{part:g}" not in shares for part in options.shares) * cases if piece.damage == "sound" else 0.0
    if piece.row.exists():
        return pace * scoring
    scoring += cases if piece.damage == "sound" else 0.0
    here = [p for p in pieces(options) if p.work == piece.work and p.sent < piece.sent]
    sent = max([count_sent(piece.work / "site"), *(p.sent for p in here if not p.row.exists())])
    return pace * (_IMPROVING + _STEP * steps + scoring + _SENDING * max(0, piece.sent - sent))


def say_what_is_left(options, scored: dict[str, list[CaseOf]]) -> None:
    left = [
        (str(piece), minutes_of(options, piece, scored)) for piece in pieces(options) if not is_done(options, piece)
    ]
    for name, minutes in left:
        print(f"left: {name}: about {minutes:.0f} min of one core")
    print(f"{len(left)} pieces left, about {sum(minutes for _, minutes in left):.0f} min of one core", flush=True)


def count_sent(site: Path) -> int:
    """Cases that were sent; one that was sent twice, for a kill came between, counts once."""
    incoming = site / "corrections" / "incoming"
    return len({path.name.rpartition("-v")[0] for path in incoming.glob("[!.]*-v*")}) if incoming.is_dir() else 0


def keep(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def read_rows(work: Path) -> Iterator[dict]:
    for path in sorted(work.glob(f"order*/after*/{ROW}")):
        yield json.loads(path.read_text(encoding="utf-8"))
