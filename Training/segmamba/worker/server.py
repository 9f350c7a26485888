"""The worker's threads: the main one works, one reads requests, one looks at the clock.

The work has the main thread, which libraries like best. The reader answers everything that needs no work, so that
`cancel` is heard while a case runs. The clock sends progress, answers for work that is slow to notice that it was
cancelled, and sees whether the parent process still lives.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time

from segmamba.worker import facts
from segmamba.worker.channel import Channel
from segmamba.worker.failures import describe
from segmamba.worker.job import Job, Shelf, remove_files, run
from segmamba.worker.requests import LONGEST_LINE, Cancel, ProtocolError, Request, Segment, parse
from segmamba.worker.streams import Streams
from segmamba.worker.timing import Record

log = logging.getLogger(__name__)

_TICK = 0.1
_PROGRESS_EVERY = 1.0
_NOTICE_CANCEL_WITHIN = 0.7  # seconds, after which the clock answers
_END_WITHIN = 1.5
_END_WRITING_WITHIN = 10.0


class Server:
    """Serves until standard input closes, standard output is gone, the parent dies, or `shutdown`.

    Example:
        `python -m segmamba.worker` runs one on its standard streams. A request is a line of JSON (PROTOCOL.md):

        >>> import json, subprocess, sys
        >>> command = [sys.executable, "-m", "segmamba.worker"]
        >>> pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        >>> with subprocess.Popen(command, **pipes) as worker:
        ...     print(json.dumps({"id": "1", "command": "hello", "protocol": 1}), file=worker.stdin, flush=True)
        ...     events = (json.loads(line) for line in worker.stdout if line.startswith("{"))
        ...     answer = next(event for event in events if event["event"] == "result")
        ...     worker.stdin.close()  # it ends
        >>> answer["id"], answer["protocol"]
        ('1', 1)
    """

    def __init__(self, streams: Streams):
        self._streams = streams
        self._channel = Channel(streams.events)
        self._channel.take_logging()
        self._record = Record()
        self._jobs: list[Job] = []  # not answered yet; all but the last are cancelled
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._news = threading.Event()
        self._libraries = threading.Event()  # loaded, or known to be missing
        self._stopping = threading.Event()
        self._idle = threading.Event()  # the main thread has nothing more to do
        self._farewell: str | None = None
        self._ended = threading.Lock()

    def run(self) -> None:
        """Never returns: the process ends."""
        for work in (self._read, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        self._load_libraries()
        shelf = Shelf()
        while (job := self._waiting.get()) is not None:
            run(job, shelf, self._record, self._news.set)
            self._forget_answered()
        self._idle.set()
        self._end()

    def _load_libraries(self) -> None:
        """In advance, while the user is still choosing."""
        try:
            import segmamba.prediction.predict  # noqa: F401

            devices, backends = facts.all_devices(self._record)
        except Exception as error:  # torch may be missing or broken in any way; a request will say it again
            log.error(describe(error)[1])
            devices, backends = [facts.cpu(self._record)], {}
        self._libraries.set()
        self._channel.send("devices", None, devices=devices, scan_backend=backends)

    # --- the reader

    def _read(self) -> None:
        data, skipping = b"", False
        while not self._stopping.is_set():
            try:
                chunk = os.read(self._streams.requests, 1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, data = (data + chunk).split(b"\n")
            for line in lines:
                if not skipping and line.strip():
                    self._handle_message(line)
                skipping = False
            if len(data) > LONGEST_LINE:
                if not skipping:
                    self._handle_message(data)  # says that it is too long
                data, skipping = b"", True
        self._stop()

    def _handle_message(self, line: bytes) -> None:
        id = None
        try:
            request = parse(line)
            id = request.id
            self._answer(request)
        except ProtocolError as error:
            self._refuse("protocol", str(error), error.id)
        except Exception as error:  # whatever it is, the worker goes on
            kind, message, detail = describe(error)
            clean = self._channel.clean
            self._channel.send("error", id, kind=kind, message=clean(message), detail=clean(detail))

    def _refuse(self, kind: str, message: str, id: str | None) -> None:
        self._channel.send("error", id, kind=kind, message=self._channel.clean(message), detail="")

    def _answer(self, request: Request) -> None:
        if isinstance(request, Segment):
            self._take(request)
        elif isinstance(request, Cancel):
            self._forget_answered()
            found = [job for job in self._jobs if job.id == request.target]
            self._channel.send("result", request.id, cancelled=any([job.cancel() for job in found]))
        elif request.command == "hello":
            self._channel.send("result", request.id, **self._hello())
        else:
            self._farewell = request.id
            self._stop()

    def _take(self, request: Segment) -> None:
        self._forget_answered()
        with self._lock:
            if any(job.id == request.id for job in self._jobs):
                raise ProtocolError(f"the id {request.id!r} belongs to a request that is running", request.id)
            if any(not job.is_cancelled() for job in self._jobs):
                self._refuse("busy", "Another case is running; ask again when it has ended", request.id)
                return
            self._channel.hide([*request.paths, request.output / "file"])
            job = Job(request, self._channel)
            self._jobs.append(job)
        self._waiting.put(job)

    def _hello(self) -> dict:
        complete = self._libraries.is_set()
        devices, backends = facts.all_devices(self._record) if complete else ([facts.cpu(self._record)], {})
        models = facts.models(self._record, [device["name"] for device in devices])
        values = {"devices": devices, "models": models, "scan_backend": backends, "complete": complete}
        values["prepare_seconds"] = round(self._record.preparation(), 1)
        return {**facts.versions(), **values}

    # --- the clock

    def _watch(self) -> None:
        parent = os.getppid()
        told = time.monotonic()
        while not self._stopping.is_set():
            new = self._news.wait(_TICK)
            self._news.clear()
            for line in self._streams.captured.new_lines():
                self._channel.log("info", line, "library")
            for job in tuple(self._jobs):
                job.give_up_waiting(_NOTICE_CANCEL_WITHIN)
            if new or time.monotonic() - told > _PROGRESS_EVERY:
                told = time.monotonic()
                for job in tuple(self._jobs):
                    job.report_progress()
            if new:
                time.sleep(_TICK)  # not more than ten a second
            # a dead parent leaves its child to another process, and on Windows closes its standard input
            if self._channel.closed or (os.name == "posix" and os.getppid() != parent):
                self._stop()

    # --- the end

    def _stop(self) -> None:
        """Ends the process: at once where nothing is going on, else when the work has noticed or the time is up."""
        self._stopping.set()
        jobs = tuple(self._jobs)
        for job in jobs:
            job.cancel()
        self._waiting.put(None)
        if not self._idle.wait(_END_WITHIN) and any(job.writing for job in jobs):
            self._idle.wait(_END_WRITING_WITHIN)
        self._end()

    def _end(self) -> None:
        """Once, whichever thread comes first. Not the interpreter's own way out, which waits for threads."""
        with self._ended:
            for job in tuple(self._jobs):
                job.give_up_waiting(-1)
                remove_files(job)
            if self._farewell is not None:
                self._channel.send("result", self._farewell)
            os._exit(0)

    def _forget_answered(self) -> None:
        with self._lock:
            self._jobs = [job for job in self._jobs if not job.answered]
