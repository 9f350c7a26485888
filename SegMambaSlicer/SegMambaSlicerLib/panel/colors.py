"""The colors of states, in one place: those of a light or a dark palette, on its windows as on its text fields."""

from __future__ import annotations

import html

import qt

# state -> on a light ground, on a dark one; each with a contrast of 4.5 or more
_COLORS = {
    "good": ("#2e6b34", "#7fcf8a"),
    "doubtful": ("#8a4f00", "#f0b65a"),
    "wrong": ("#a02020", "#ff9a94"),
}
STRIP = ("#201800", "#ffd479")  # text and ground of a warning that is to be seen, whatever the palette
_MIDDLE = 128  # of a lightness from 0 to 255


def colorOf(state: str, widget) -> str:
    """The color of "good", "doubtful" or "wrong" on the ground of `widget`, as in "#2e6b34"."""
    window = widget.window().palette  # a label that was painted keeps the palette that it was painted on
    isDark = window.color(qt.QPalette.Window).lightness() < _MIDDLE
    return _COLORS[state][isDark]


def paint(label, state: str = "") -> None:
    """Writes `label` in the color of `state`; "" for that of the palette."""
    label.setStyleSheet(f"color: {colorOf(state, label)}" if state else "")


def makeStrip(label) -> None:
    """Gives `label` a ground of its own: a warning that cannot be overlooked."""
    text, ground = STRIP
    border = "border: 1px solid #b06f00; border-radius: 3px; padding: 5px"
    label.setStyleSheet(f"background: {ground}; color: {text}; {border}")


def painted(text: str, state: str, widget) -> str:
    """Plain text as rich text for `widget`, in the color of `state`."""
    return f'<span style="color: {colorOf(state, widget)}">{html.escape(text)}</span>'
