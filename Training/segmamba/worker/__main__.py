"""`python -m segmamba.worker`: takes over the standard streams, then serves until its standard input closes."""

import contextlib
import os
import signal
import sys

from segmamba.worker.server import Server
from segmamba.worker.streams import take_over


def main() -> None:
    """Runs the worker on the standard streams until they are closed."""
    streams = take_over()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large tensors in huge pages, as segmamba.cli has it
    with contextlib.suppress(AttributeError, OSError):  # Windows has no nice; there the parent sets the priority
        os.nice(5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the parent's terminal is for the parent
    Server(streams).run()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("segmamba.worker takes no arguments; it reads requests from its standard input, see PROTOCOL.md")
    main()
