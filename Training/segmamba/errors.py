"""The error that users see."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a folder, a value, a configuration.

    The text names the file or value at fault, what was expected, and what to do next.
    """


class Cancelled(Exception):
    """The caller asked to stop; nothing was written."""
