"""The colors of states can be read on Slicer's light and on its dark palette."""

import re
from pathlib import Path

import pytest
import qt
import slicer
from SegMambaSlicerLib.panel.colors import STRIP, colorOf, makeStrip, paint, painted

PANEL = Path(__file__).resolve().parents[3] / "SegMambaSlicer" / "SegMambaSlicerLib" / "panel"
# of the styles "Light Slicer" and "Dark Slicer": windows, text fields, every other row of a table
GROUNDS = {"light": ("#efefef", "#ffffff", "#f7f7f7"), "dark": ("#323232", "#1e1e1e", "#323232")}
STATES = ("good", "doubtful", "wrong")


def luminance(color):
    """As WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(params=GROUNDS)
def grounds(app, request):
    """The colors behind texts, while the application has that palette."""
    before, palette = qt.QApplication.palette(), qt.QApplication.palette()
    window, base, other = GROUNDS[request.param]
    text = "#000000" if request.param == "light" else "#ffffff"
    for role, color in (("Window", window), ("Base", base), ("AlternateBase", other), ("WindowText", text)):
        palette.setColor(getattr(qt.QPalette, role), qt.QColor(color))
    qt.QApplication.setPalette(palette)
    yield GROUNDS[request.param]
    qt.QApplication.setPalette(before)


def test_black_on_white_has_the_contrast_that_the_definition_gives():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("state", STATES)
def test_states_can_be_read(grounds, state):
    label = qt.QLabel("text")
    for ground in grounds:
        assert contrast(colorOf(state, label), ground) >= 4.5, (state, ground)
    assert f"color: {colorOf(state, label)}" in painted("a < b", state, label)
    assert "a &lt; b" in painted("a < b", state, label)


def test_a_strip_can_be_read_on_its_own_ground(grounds):
    label = qt.QLabel("text")
    makeStrip(label)
    assert all(color in label.styleSheet for color in STRIP)
    assert contrast(*STRIP) >= 7


def test_a_label_goes_back_to_the_color_of_the_palette(grounds):
    label = qt.QLabel("text")
    paint(label, "wrong")
    assert colorOf("wrong", label) in label.styleSheet
    paint(label, "good")  # its own color is not mistaken for its ground
    assert label.styleSheet == f"color: {colorOf('good', label)}"
    paint(label)
    assert label.styleSheet == ""


def test_a_label_that_was_painted_follows_another_palette(app):
    """As after a choice of another style in Slicer's settings."""
    frame, before = qt.QWidget(), qt.QApplication.palette()
    label = qt.QLabel("text", frame)
    frame.show()
    paint(label, "doubtful")
    app.processEvents()
    dark = qt.QPalette(before)
    dark.setColor(qt.QPalette.Window, qt.QColor("#323232"))
    qt.QApplication.setPalette(dark)
    app.processEvents()
    paint(label, "doubtful")
    color = re.search(r"#[0-9a-f]{6}", label.styleSheet)[0]
    qt.QApplication.setPalette(before)
    assert contrast(color, "#323232") >= 4.5


def test_colors_of_texts_are_named_nowhere_else():
    """But in the curve, which is drawn on paper of its own."""
    for path in PANEL.glob("*.py"):
        if path.name not in ("colors.py", "curve.py"):
            assert not re.search(r"#[0-9a-fA-F]{6}\b", path.read_text(encoding="utf-8")), path.name
    for path in (PANEL.parents[1] / "Resources" / "UI").glob("*.ui"):
        assert "styleSheet" not in path.read_text(encoding="utf-8"), path.name


def test_the_panel_paints_on_a_dark_ground(grounds, module, choose, pump):
    """A run that fails says so in the color of that palette."""
    from SegMambaSlicerLib.engine.client import EngineError

    panel = module.widget.panel
    panel.onError(EngineError("internal", "It did not work."))
    color = re.search(r"#[0-9a-f]{6}", panel.ui.progressLabel.styleSheet)[0]
    assert contrast(color, grounds[0]) >= 4.5
    slicer.app.processEvents()
