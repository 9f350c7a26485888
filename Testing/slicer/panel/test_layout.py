"""The panel's size: how narrow it can be whatever it says, and what fits on the first screen."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import qt
import slicer
from panels import segment

NARROWEST = 300  # of Slicer's dock, in pixels
SENTENCE = "The volumes could not be read, for something was wrong with them and with the folder that they lie in. " * 4
PATH = "/data/neuro/2026/patients/with-long-names/" + "a-folder-without-any-blank-in-its-name" * 4 + "/t1c.nii.gz"


def widgets(module, *classes):
    return [w for w in module.frame.findChildren(qt.QWidget) if w.className() in classes]


def unfold(module):
    for section in widgets(module, "ctkCollapsibleButton"):
        section.setProperty("collapsed", False)


@pytest.mark.parametrize("text", [SENTENCE, PATH])
def test_no_text_makes_the_panel_wide(module, text):
    """A section that is wider than the dock would push Slicer's window beyond the screen."""
    unfold(module)
    for label in widgets(module, "QLabel"):
        if label.wordWrap:
            label.setText(text)
            label.setVisible(True)
    for combo in widgets(module, "QComboBox"):
        combo.setItemText(combo.currentIndex, text)
    for path in widgets(module, "ctkPathLineEdit"):
        path.setCurrentPath(text)
    ui = module.widget.panel.ui
    for button in (ui.compareButton, ui.backButton):  # with the names of modalities and models
        button.setText(text[:60])
        button.setVisible(True)
    slicer.app.processEvents()
    assert module.frame.minimumSizeHint().width() <= NARROWEST


def test_volumes_button_and_result_are_on_the_first_screen(choose, module, volumes, pump):
    """At 400 x 640 pixels, with the frame's own margins; what can be done next as well."""
    choose("well")
    ui = module.widget.panel.ui
    module.widget.enter()
    pump(lambda: ui.applyButton.isEnabled() and module.widget.panel.session.machine)
    ui.applyButton.click()
    pump(lambda: not module.widget.panel.session.isBusy() and ui.volumesTable.rowCount == 5)
    module.frame.resize(400, module.frame.layout().totalHeightForWidth(400))
    module.frame.show()
    slicer.app.processEvents()
    for widget in (ui.t2fSelector, ui.stateLabel, ui.applyButton, ui.volumesTable, ui.show3DButton, ui.nextPlaceButton):
        bottom = widget.mapTo(module.frame, qt.QPoint(0, widget.height)).y()
        assert widget.isVisible() and bottom <= 640, (widget.name, bottom)


def test_the_table_of_volumes_can_be_read_in_a_narrow_dock(ready, module, pump):
    """Every number is shown whole, and of each structure enough to tell it; no row is hidden."""
    segment(ready, pump)
    table = ready.ui.volumesTable
    module.frame.resize(NARROWEST, module.frame.layout().totalHeightForWidth(NARROWEST))
    module.frame.show()
    slicer.app.processEvents()
    assert sum(table.columnWidth(column) for column in range(table.columnCount)) <= table.viewport().width
    assert table.columnWidth(0) >= table.fontMetrics().horizontalAdvance("Tumor core (TC)")
    for column in range(1, table.columnCount):
        assert table.columnWidth(column) >= table.sizeHintForColumn(column)
    last = table.visualItemRect(table.item(table.rowCount - 1, 0))
    assert last.bottom() <= table.viewport().height


def test_long_texts_are_given_the_lines_that_they_need(module):
    """A label whose width is not asked for is none the less as high as its text."""
    unfold(module)
    label = module.widget.panel.ui.setupLabel
    label.setText(SENTENCE)
    module.frame.resize(NARROWEST, module.frame.layout().totalHeightForWidth(NARROWEST))
    module.frame.show()
    slicer.app.processEvents()
    assert label.height >= label.heightForWidth(label.width) > 3 * label.fontMetrics().height()


def test_every_widget_has_a_name_of_its_own():
    """All of them are attributes of one object: a second one of a name would be the only one that is found."""
    files = sorted((Path(__file__).parents[3] / "SegMambaSlicer" / "Resources" / "UI").glob("*.ui"))
    names = [widget.get("name") for file in files for widget in ElementTree.parse(file).iter("widget")]
    assert len(names) > 100
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_folded_sections_are_headers_without_gaps(module):
    for section in widgets(module, "ctkCollapsibleButton"):
        section.setProperty("collapsed", True)
        assert section.collapsedHeight == 0, section.name
