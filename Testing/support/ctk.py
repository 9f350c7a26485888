"""Slicer's module `ctk` for tests: the few CTK widgets that the panel uses, with the properties that it uses."""

import qt
from PySide6.QtCore import Property, Signal


class ctkCollapsibleButton(qt.QWidget):
    """A header that folds its contents away."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        self._collapsed, self._header = False, None
        super().__init__(parent)
        self._header = qt.QPushButton(self)
        self._header.setStyleSheet(
            "text-align: left; font-weight: bold; padding: 4px; border: none; background: #d7dde5"
        )
        self._header.clicked.connect(self._toggle)
        self._title = ""
        self.setContentsMargins(0, 26, 0, 0)

    def resizeEvent(self, event):
        self._header.setGeometry(0, 0, self.width, 24)
        super().resizeEvent(event)

    def _toggle(self, checked=False):
        self._set_collapsed(not self._collapsed)

    def _draw(self):
        self._header.setText(("\u25b8  " if self._collapsed else "\u25be  ") + self._title)
        for child in self.children():
            if isinstance(child, qt.QWidget) and child is not self._header:
                child.setVisible(not self._collapsed)
        self.setMaximumHeight(26 if self._collapsed else 16777215)

    def childEvent(self, event):
        super().childEvent(event)
        if self._header is not None and self._collapsed:
            self._draw()

    def _get_text(self):
        return self._title

    def _set_text(self, text):
        self._title = text
        self._draw()

    def _get_collapsed(self):
        return self._collapsed

    def _set_collapsed(self, value):
        changed = value != self._collapsed
        self._collapsed = value
        self._draw()
        if changed:
            self.contentsCollapsed.emit(value)

    def setCollapsed(self, value):
        self._set_collapsed(value)

    def setText(self, text):
        self._set_text(text)

    text = Property(str, _get_text, _set_text)
    collapsed = Property(bool, _get_collapsed, _set_collapsed)


class ctkPathLineEdit(qt.QWidget):
    """A line for the path of a file or folder, with a button that opens a dialog."""

    Files, Dirs = 0x2, 0x1
    currentPathChanged = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._line = qt.QLineEdit(self)
        self._line.textChanged.connect(self.currentPathChanged)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        layout.addWidget(qt.QToolButton(self))
        self._settingKey, self._filters = "", 0

    def _get_path(self):
        return self._line.text

    def setCurrentPath(self, path):
        self._line.setText(path)

    currentPath = Property(str, _get_path, setCurrentPath)
    filters = Property(int, lambda self: self._filters, lambda self, value: setattr(self, "_filters", value))


qt.QUiLoader.custom.update(ctkCollapsibleButton=ctkCollapsibleButton, ctkPathLineEdit=ctkPathLineEdit)
