"""One process of `bench.py`: a worker as the panel starts it. Prints JSON: seconds until it says hello, until its
libraries are loaded, of a case that finds nothing loaded, of one that finds the model loaded, and of a mirrored one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from segmamba.cases.case import find_case


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=Path)
    parser.add_argument("model")
    options = parser.parse_args()
    images = {modality: str(source.path.absolute()) for modality, source in find_case(options.case).items()}
    start = time.perf_counter()
    command = [sys.executable, "-m", "segmamba.worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _ask(worker, "hello", "hello", protocol=1)
        seen = {"hello_s": lambda e: e["event"] == "result" and e["id"] == "hello"}
        seen["ready_s"] = lambda e: e["event"] == "devices"
        found = _times(worker, seen, start)
        for name, mirrorings in (("first_case_s", 0), ("warm_case_s", 0), ("mirrored_case_s", 7)):
            with tempfile.TemporaryDirectory() as output:
                begin = time.perf_counter()
                request = {"images": images, "output": output, "model": options.model, "device": "cpu"}
                _ask(worker, name, "segment", **request, mirrorings=mirrorings)
                found |= _times(worker, {name: lambda e, name=name: e["event"] == "result" and e["id"] == name}, begin)
        _ask(worker, "bye", "shutdown")
        worker.wait(60)
    finally:
        worker.kill()
    print(json.dumps(found))


def _ask(worker: subprocess.Popen, id: str, command: str, **values) -> None:
    worker.stdin.write(json.dumps({"id": id, "command": command, **values}) + "\n")
    worker.stdin.flush()


def _times(worker: subprocess.Popen, signs: dict[str, Callable[[dict], bool]], start: float) -> dict[str, float]:
    """Name -> seconds from `start` to the first event for which its sign is true; until all have been."""
    found: dict[str, float] = {}
    for line in worker.stdout:
        if not line.strip():  # means nothing (PROTOCOL.md)
            continue
        event = json.loads(line)
        if event["event"] == "error":
            raise SystemExit(f"the worker answered with an error: {event['message']}")
        found |= {
            name: time.perf_counter() - start for name, sign in signs.items() if name not in found and sign(event)
        }
        if len(found) == len(signs):
            return found
    raise SystemExit("the worker ended before it had answered")


if __name__ == "__main__":
    main()
