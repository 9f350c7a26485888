"""The error that users see."""


class InputError(ValueError):
    """Something in the scene or on disk is not as it must be.

    The text names the volume, segment or file at fault, what was expected, and what to do next.
    """
