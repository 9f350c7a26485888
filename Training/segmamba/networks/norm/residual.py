"""How a second tensor joins in with the instance norm."""

from __future__ import annotations

from enum import IntEnum


class Residual(IntEnum):
    """Where the residual is added, and whether it is normalized first. The kernels know each by its number."""

    NONE = 0
    """There is none."""
    BEFORE_ACT = 1
    """To the norm, before the nonlinearity."""
    NORMED_BEFORE_ACT = 2
    """Its own norm to the norm, before the nonlinearity."""
    AFTER_ACT = 3
    """To what the nonlinearity gives."""

    @property
    def is_before_act(self) -> bool:
        """Whether the nonlinearity sees it."""
        return self in (Residual.BEFORE_ACT, Residual.NORMED_BEFORE_ACT)
