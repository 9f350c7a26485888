"""What tests do with the panel again and again."""

from __future__ import annotations


def segment(panel, pump):
    """Presses the button, waits for the end, and returns the segmentation, or None."""
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    return panel.parameters.result("Segmentation")


def cells(table) -> list[list[str]]:
    """The texts of a table widget, row by row."""
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]
