"""A worker as a child process, driven through its protocol: what the tests of the worker share."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

TRAINING = Path(__file__).resolve().parents[2] / "Training"
LONG = 240  # seconds after which a test gives up; nothing is measured by it


class Worker:
    """stdout is read by a thread into `events`; lines that are no JSON go to `foreign`."""

    def __init__(self, home: Path, *paths: Path):
        elsewhere = home / "elsewhere"  # `python -m` looks for modules in its folder first
        elsewhere.mkdir(exist_ok=True)
        environment = {**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONPATH": os.pathsep.join(map(str, paths))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "segmamba.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=elsewhere,
            env=environment,
        )
        self.seen, self.foreign = [], []
        self._events = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self._events.put(json.loads(line))
            except ValueError:
                self.foreign.append(line)
        self._events.put(None)

    def write(self, data: bytes):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ask(self, id, command, **values):
        self.write(json.dumps({"id": id, "command": command, **values}).encode() + b"\n")

    def until(self, wanted):
        """The next event for which wanted(event) is true; the ones before are in `seen`."""
        while True:
            event = self._events.get(timeout=LONG)
            if event is None:
                code, words = self.process.wait(LONG), self.process.stderr.read().decode()
                raise AssertionError(f"the worker ended with {code}: {self.seen[-3:]} {self.foreign} {words}")
            self.seen.append(event)
            if wanted(event):
                return event

    def answer(self, id):
        return self.until(lambda event: event["event"] in ("result", "error") and event["id"] == id)

    def rest(self):
        """Waits for the end of the process; -> its exit code. What it still said is in `seen`."""
        code = self.process.wait(LONG)
        while (event := self._events.get(timeout=LONG)) is not None:
            self.seen.append(event)
        return code

    def logs(self):
        return [event["message"] for event in self.seen if event["event"] == "log"]

    def close(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
