"""Slicer's module `ctk` for tests: the few CTK widgets that the panel uses, with the properties that it uses."""

import qt
from PySide6.QtCore import Property, QEvent, Signal


class ctkCollapsibleButton(qt.QAbstractButton):
    """A header that folds its contents away.

    Like CTK's own: its width may not go below its size hint (policy Minimum), what it holds is hidden while it is
    folded, and what was hidden by others stays hidden when it is unfolded.
    """

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        self._collapsed, self._folded, self._forcing = False, 10, False
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._header().height(), 0, 0)
        self.setBackgroundRole(qt.QPalette.Window)
        self.toggled.connect(self._collapse)

    def _header(self):
        style, option = self.style(), qt.QStyleOptionButton()
        option.initFrom(self)
        metric = [
            style.pixelMetric(name, option, self)
            for name in (qt.QStyle.PM_IndicatorWidth, qt.QStyle.PM_IndicatorHeight, qt.QStyle.PM_CheckBoxLabelSpacing)
        ]
        text = self.fontMetrics().size(qt.Qt.TextShowMnemonic, self.text or "XXXX")
        size = qt.QSize(metric[0] + metric[2] + text.width(), max(metric[1], text.height()))
        return style.sizeFromContents(qt.QStyle.CT_PushButton, option, size, self)

    def sizeHint(self):
        header = self._header()
        folded = header + qt.QSize(0, self._folded)
        layout = self.layout()
        return folded if self._collapsed or layout is None else layout.totalSizeHint().expandedTo(folded)

    def minimumSizeHint(self):
        header, layout = self._header(), self.layout()
        if self._collapsed:
            return header + qt.QSize(0, self._folded)
        return header if layout is None else layout.totalMinimumSize().expandedTo(header)

    def hitButton(self, position):
        return position.y() < self._header().height()

    def paintEvent(self, event):
        painter, option = qt.QPainter(self), qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._header().height())
        option.state |= qt.QStyle.State_Raised
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        height, arrow = option.rect.height(), qt.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = qt.QRect((height - 13) // 2, (height - 13) // 2, 13, 13)
        kind = qt.QStyle.PE_IndicatorArrowDown if self._collapsed else qt.QStyle.PE_IndicatorArrowUp
        self.style().drawPrimitive(kind, arrow, painter, self)
        where = qt.QRect(height, 0, self.width - height, height)
        flags = int(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        self.style().drawItemText(painter, where, flags, self.palette, True, self.text, qt.QPalette.ButtonText)
        painter.end()

    def _collapse(self, checked):
        self._collapsed = not checked
        self.setMaximumHeight(self.sizeHint().height() if self._collapsed else 16777215)
        for child in self.children():
            if isinstance(child, qt.QWidget):
                self._place(child)
        self.updateGeometry()
        self.contentsCollapsed.emit(self._collapsed)

    def _place(self, child):
        wanted = child.property("visibilityToParent")
        self._forcing = True
        child.setVisible(not self._collapsed and wanted is not False)
        self._forcing = False
        if wanted is not False:
            child.setAttribute(qt.Qt.WA_WState_ExplicitShowHide, False)

    def childEvent(self, event):
        if event.type() == QEvent.ChildAdded and event.child().isWidgetType():
            event.child().installEventFilter(self)
            self._place(event.child())
        super().childEvent(event)

    def setVisible(self, visible):
        self._forcing = True
        super().setVisible(visible)
        self._forcing = False

    def eventFilter(self, child, event):
        if not self._forcing and event.type() == QEvent.ShowToParent:
            child.setProperty("visibilityToParent", True)
            self._place(child)
        elif not self._forcing and event.type() == QEvent.HideToParent:
            child.setProperty("visibilityToParent", False)
        return False

    def event(self, event):
        if event.type() in (QEvent.StyleChange, QEvent.FontChange):
            self.setContentsMargins(0, self._header().height(), 0, 0)
            if self._collapsed:
                self.setMaximumHeight(self.sizeHint().height())
        return super().event(event)

    def _setCollapsed(self, value):
        self.setChecked(not value)

    def setCollapsed(self, value):
        self._setCollapsed(value)

    def _setFolded(self, value):
        self._folded = value
        self.updateGeometry()

    collapsed = Property(bool, lambda self: self._collapsed, _setCollapsed)
    collapsedHeight = Property(int, lambda self: self._folded, _setFolded)


class ctkPathLineEdit(qt.QWidget):
    """A line for the path of a file or folder, with a button that opens a dialog.

    As wide as the path is long, unless it has a minimumContentsLength.
    """

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
        self._settingKey, self._filters, self._length = "", 0, 0
        self.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)

    def sizeHint(self):
        return self._hint(True)

    def minimumSizeHint(self):
        return self._hint(self._length == 0)

    def _hint(self, wholePath):
        metrics = self.fontMetrics()
        width = metrics.horizontalAdvance(self._line.text or "xxxxxxx") + 8 if wholePath else 0
        width = max(width, self._length * metrics.horizontalAdvance("X"))
        return qt.QSize(width + 40, self._line.sizeHint().height())

    def _get_path(self):
        return self._line.text

    def setCurrentPath(self, path):
        self._line.setText(path)

    def _setLength(self, value):
        self._length = value
        self.updateGeometry()

    currentPath = Property(str, _get_path, setCurrentPath)
    filters = Property(int, lambda self: self._filters, lambda self, value: setattr(self, "_filters", value))
    minimumContentsLength = Property(int, lambda self: self._length, _setLength)


qt.QUiLoader.custom.update(ctkCollapsibleButton=ctkCollapsibleButton, ctkPathLineEdit=ctkPathLineEdit)
