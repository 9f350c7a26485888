"""Site folders for tests of the panel, written as the engine writes them: runs with their files, evidence of a gate."""

import json
import os
import platform
import struct
import time
import zlib
from pathlib import Path

REGIONS = ("WT", "TC", "ET")

COUNTS = {
    "sent": 9, "train": 5, "validation": 2, "refused": 1, "waiting": 1, "doubtful": 0, "replaced": 0, "new": 0,
    "rows": [],
}  # fmt: skip
MODELS = {"champion": None, "folder": None, "id": None, "parents": [], "previous": None, "states": {}, "history": []}


def answer(*runs, **changes):
    """What `segmamba status` says of a site that has no models."""
    runs = [{"alive": True, **run} for run in runs]
    return {"schema": 1, "corrections": COUNTS, "models": MODELS, "runs": runs, **changes}


def addRun(site: Path, name: str, **status) -> Path:
    """SITE/runs/NAME with a status.json; returns the folder. Not said: a training of this process, under way."""
    folder = site / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    now = round(time.time(), 1)
    whole = {
        "schema": 1, "run": name, "way": "finetune", "state": "training", "text": "", "step": 0, "steps": 100,
        "seconds_left": None, "loss": None, "candidate": None, "verdict": None, "pid": os.getpid(),
        "host": platform.node(), "started": now, "updated": now, "gate": None, **status,
    }  # fmt: skip
    aside = folder / ".status.tmp"
    aside.write_text(json.dumps(whole))
    aside.replace(folder / "status.json")
    return folder


def addToLog(run: Path, *lines: dict) -> None:
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def course(steps: int = 100, every: int = 10) -> list[dict]:
    """Lines of a log: a loss that falls, a Dice that rises."""
    lines = []
    for step in range(every, steps + 1, every):
        lines.append({"kind": "step", "step": step, "loss": 0.2 + 0.8 / (1 + step / 15)})
        if step % (2 * every) == 0:
            mean = {region: {"dice": 0.9 - 0.1 * k - 0.4 / (1 + step / 20)} for k, region in enumerate(REGIONS)}
            lines.append({"kind": "validation", "step": step, "mean": mean})
    return lines


def scores(cases: int, dice: float, seed: int) -> dict:
    """Scores of one model on cases that have the same names whatever the seed."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return {
        f"case-{n:02d}": {
            "dice": {region: float(np.clip(rng.normal(dice, 0.05), 0, 1)) for region in REGIONS},
            "false_positives": {region: float(rng.integers(0, 2)) for region in REGIONS},
        }
        for n in range(cases)
    }


def gateReport(verdict: str = "promote", champion: str = "quick-2", candidate: str = "tuned", **changes) -> dict:
    """As segmamba.learning.gate writes gate.json; the comparison is the engine's own, of scores made up."""
    from segmamba.evaluation.compare import compare_scores

    parts = {}
    for name, cases, seed in (("anchor", 12, 0), ("local", 4, 50)):
        one, other = scores(cases, 0.85, seed), scores(cases, 0.88, seed + 1)
        parts[name] = {
            "dataset": name,
            "cases": dict.fromkeys(one, "0" * 64),
            "comparison": compare_scores(one, other),
            "champion": one,
            "candidate": other,
        }
    holds = verdict == "promote"
    checks = [
        {"name": "finite", "holds": True, "otherwise": "refuse", "text": "all probabilities are finite"},
        {"name": "local Dice", "holds": verdict != "refuse", "otherwise": "refuse", "text": "change of the mean +0.03"},
        {"name": "worst case", "holds": holds, "otherwise": "confirm", "text": "case-03 ET 0.900 -> 0.700"},
    ]
    return {
        "schema": 1,
        "verdict": verdict,
        "low_evidence": ["12 anchor cases: below 25 even a harmless candidate fails by chance at times"],
        "checks": checks,
        "criteria": {"margin": 0.02},
        "settings": {"device": "cpu", "mirrorings": 0},
        "notes": ["the champion was trained on 2 case(s) of anchor, which favours it"],
        "segmamba": "0",
        "champion": {"id": champion, "weights_sha256": "1" * 64, "parent": None},
        "candidate": {"id": candidate, "weights_sha256": "2" * 64, "parent": champion},
        **parts,
        **changes,
    }


def writePicture(path: Path, width: int = 700, height: int = 330) -> None:
    """A PNG of grey stripes."""
    rows = b"".join(b"\0" + bytes((x // 50 + y // 60) % 2 * 120 + 60 for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
