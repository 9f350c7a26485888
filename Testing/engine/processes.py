"""Processes for tests, started from one server that has imported the libraries: twenty cost little more than one.

A test run has one such server. Whoever asks first starts it, so it imports what any test needs.
"""

import multiprocessing
import os
import signal

SERVER = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
# With what these import, torch and numba among it. A name that is not there would be passed over without a word.
PRELOADED = (
    "segmamba.learning.registry.change",
    "segmamba.learning.site.improvement",
    "segmamba.learning.submissions.intake",
    "segmamba.networks.norm.kernels",
    "segmamba.networks.scan.jit",
    "segmamba.prediction.segment",
    "segmamba.training.augment",
    "segmamba.training.intensity",
    "segmamba.training.loop",
    "torch._dynamo",  # with which torch makes an optimizer; two seconds
)


def in_process(do, *arguments):
    """A started process that does `do(*arguments)`, a function of a module."""
    if os.name == "posix":
        SERVER.set_forkserver_preload(list(PRELOADED))
    process = SERVER.Process(target=do, args=arguments)
    process.start()
    return process


def kill(process) -> bool:
    """Whether it had not ended by itself just before."""
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0
