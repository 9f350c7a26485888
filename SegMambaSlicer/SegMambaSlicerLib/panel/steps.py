"""Work in steps between which Slicer draws and listens: a generator, gone on with when Qt has nothing else to do."""

from __future__ import annotations

import qt


class Steps:
    """One piece of work at a time; another one takes its place."""

    def __init__(self):
        self._work, self._done = None, None
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._next)

    @property
    def isRunning(self) -> bool:
        return self._work is not None

    def run(self, work, done=None) -> None:
        """work: a generator, or None for nothing. done: called at its end."""
        self._work, self._done = work, done
        if work is None:
            self._timer.stop()
        else:
            self._timer.start()

    def stop(self) -> None:
        self.run(None)

    def _next(self) -> None:
        work = self._work
        try:
            next(work)
        except StopIteration:
            if self._work is work:
                done, self._done = self._done, None
                self.stop()
                if done:
                    done()
        except Exception:
            self.stop()
            raise
