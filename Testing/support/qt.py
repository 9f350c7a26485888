"""Slicer's module `qt` for tests: PySide6 bent to the conventions of PythonQt.

In PythonQt a Qt property is an attribute (`label.text`, not `label.text()`), and the object name is also called `name`.
So it is here. What PySide6 can do and PythonQt cannot is not offered on
purpose, but cannot all be shut off: `Testing/slicer/contract` says which behaviour the tests rely on.
"""

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import QObject, SignalInstance

_read, _write = QObject.property, QObject.setProperty
# Virtual in C++: an attribute of that name would be taken for an override. Or a property since Qt 6 only.
_LEFT_ALONE = {
    "QWidget": {"sizeHint", "minimumSizeHint", "contentsMargins"},
    "QLayout": {"spacing", "contentsMargins", "sizeConstraint"},
    "QBoxLayout": {"spacing"},
    "QGridLayout": {"spacing"},
    "QFormLayout": {"spacing"},
    "QStackedLayout": {"spacing"},
    "QProgressBar": {"text"},
    "QTimer": {"singleShot"},  # PythonQt has the static function of that name
}


def _attribute(name, writable):
    def get(self):
        return _read(self, name)

    def put(self, value):
        if not writable:
            raise AttributeError(f"property {name} of {type(self).__name__} cannot be written")
        if not _write(self, name, value):
            raise TypeError(f"property {name} of {type(self).__name__} does not take {value!r}")

    return property(get, put)


def bend(cls):
    """Makes the Qt properties that `cls` itself declares into attributes."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        prop = meta.property(index)
        if prop.name() not in _LEFT_ALONE.get(cls.__name__, ()):
            setattr(cls, prop.name(), _attribute(prop.name(), prop.isWritable()))
    return cls


def _bend_all():
    for module in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name in dir(module):
            if name.startswith("_"):
                continue
            value = getattr(module, name)
            globals()[name] = value
            if isinstance(value, type) and issubclass(value, QObject) and "staticMetaObject" in value.__dict__:
                bend(value)
    QObject.name = property(lambda self: _read(self, "objectName"), lambda self, value: self.setObjectName(value))
    QObject.className = lambda self: self.metaObject().className()


def strayAttributes(root):
    """What was set on widgets below `root` that C++ does not have, e.g. `button.tooltip`: AttributeError in PythonQt.

    PySide6 takes any attribute, and its base class cannot be taught otherwise; so tests look afterwards.
    """
    stray = []
    for widget in [root, *root.findChildren(QtWidgets.QWidget)]:
        if type(widget).__module__.startswith("PySide6."):
            children = {child.objectName for child in widget.findChildren(QObject)}  # QUiLoader puts these in
            for name, value in vars(widget).items():
                if not isinstance(value, SignalInstance) and name not in children:
                    stray.append(f"{widget.objectName or widget.className()}.{name}")
    return stray


_bend_all()


class QUiLoader(QtUiTools.QUiLoader):
    """Builds Slicer's and CTK's widgets from `custom`: class name -> Python class."""

    custom = {}  # noqa: RUF012  filled by the stand-in's widgets, as Qt Designer plugins are

    def createWidget(self, className, parent=None, name=""):
        if className in self.custom:
            widget = self.custom[className](parent)
            widget.setObjectName(name)
            return widget
        if className not in self.availableWidgets() and className != "Line":
            raise RuntimeError(f"the .ui file names the class {className}, which the stand-in lacks")
        return super().createWidget(className, parent, name)
