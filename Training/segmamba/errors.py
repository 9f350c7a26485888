"""The error that users see."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a folder, a value, a configuration.

    The text names the file or value at fault, what was expected, and what to do next.
    """


class Cancelled(Exception):
    """The caller asked to stop; nothing was written."""


class Stopped(Exception):
    """A training was asked to end by a signal, and has saved its state after `step`."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped after step {step} by signal {int(signal_number)}")
        self.step = step
        self.signal_number = int(signal_number)
