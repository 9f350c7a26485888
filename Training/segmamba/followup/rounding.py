"""How many decimals a number is printed with beside a limit: so many that the text does not contradict the rule."""

from __future__ import annotations

from collections.abc import Callable

_MOST = 12


def beside(value: float, limit: float, decimals: int, slack: float = 1e-9, sign: str = "") -> str:
    """A number as text, with more decimals where it would be on another side of a limit.

    Args:
        value: the number.
        limit: that it is compared with.
        decimals: as many as it has elsewhere.
        slack: by which it may miss the limit and is still on it.
        sign: "+" for one in front of positive numbers.

    Returns:
        The number, rounded.
    """
    digits = decimals_beside(value, limit, decimals, lambda count: round(value, count), slack)
    return f"{value:{sign}.{digits}f}"


def decimals_beside(
    value: float, limit: float, decimals: int, shown: Callable[[int], float], slack: float = 1e-9
) -> int:
    """The least number of decimals with which a text says of a value what is so: below a limit, on it, or above.

    Args:
        value: the number.
        limit: that it is compared with.
        decimals: as many as there are elsewhere.
        shown: number of decimals -> what a reader takes the value for.
        slack: by which it may miss the limit and is still on it.

    Returns:
        `decimals` or more.
    """

    def side(number: float) -> float:
        away = number - limit
        return 0.0 if abs(away) <= slack else away / abs(away)  # of nan nan, which is no side

    return next((count for count in range(decimals, _MOST) if side(shown(count)) == side(value)), _MOST)
