"""Middle slices of volumes in a row, with their names, to choose by."""

from __future__ import annotations

import numpy as np
import qt
import slicer

MOST = 4
_EDGE = 64
_GAP = 4


def showThumbnails(label, nodes: list) -> None:
    """Puts pictures of the first of `nodes`, volumes with voxels, on `label`; hides it where there are none."""
    label.setVisible(bool(nodes))
    if not nodes:
        label.setPixmap(qt.QPixmap())
        return
    height = label.fontMetrics().height()
    pixmap = qt.QPixmap(len(nodes[:MOST]) * (_EDGE + _GAP), _EDGE + height)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(pixmap)
    try:
        painter.setPen(label.palette.color(qt.QPalette.WindowText))
        for index, node in enumerate(nodes[:MOST]):
            left = index * (_EDGE + _GAP)
            painter.drawImage(left, 0, _picture(node))
            name = label.fontMetrics().elidedText(node.GetName(), qt.Qt.ElideMiddle, _EDGE)
            painter.drawText(qt.QRect(left, _EDGE, _EDGE, height), qt.Qt.AlignCenter, name)
    finally:
        painter.end()  # left open, it takes Qt down with it
    label.setPixmap(pixmap)
    label.setToolTip("\n".join(node.GetName() for node in nodes))


def _picture(node):
    """The middle slice in the plane with the most voxels, with the head up, as a QImage of _EDGE pixels."""
    array = slicer.util.arrayFromVolume(node)
    axis = int(np.argmin(array.shape))
    plane = np.nan_to_num(np.take(array, array.shape[axis] // 2, axis).astype(float))
    low, high = np.percentile(plane, [1, 99.5])
    grey = np.clip((plane - low) / max(high - low, 1e-6) * 255, 0, 255)
    rows = np.linspace(0, plane.shape[0] - 1, _EDGE).round().astype(int)
    columns = np.linspace(0, plane.shape[1] - 1, _EDGE).round().astype(int)
    pixels = grey[rows][:, columns].astype(np.uint8)
    image = qt.QImage(_EDGE, _EDGE, qt.QImage.Format_RGB32)
    for y in range(_EDGE):
        for x in range(_EDGE):
            value = int(pixels[y, x])
            image.setPixel(x, y, 0xFF000000 | value << 16 | value << 8 | value)
    return image
