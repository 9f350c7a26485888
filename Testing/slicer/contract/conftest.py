"""The contract tests on the stand-in; a real Slicer runs the same files without this one."""

import os

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
try:
    import slicer  # noqa: F401
    import vtk  # noqa: F401
    from PySide6 import QtWidgets  # noqa: F401
except ImportError as error:
    pytest.skip(f"needs slicer-core, PySide6-Essentials==6.11.3 and their libraries: {error}", allow_module_level=True)

import standin_app

standin_app.install()
