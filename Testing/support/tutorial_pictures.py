"""The tutorial's pictures of the panel, from a real run on the sample case: python Testing/support/tutorial_pictures.py

Takes minutes, and longer on a busy machine, whose times are then in the pictures; needs what the panel's tests need.
Into each picture goes what the panel's open sections said when it was taken, so that a test can tell when the panel has
become another one: then take them anew.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "Resources" / "Screenshots" / "tutorial"
KEY = "Panel"  # of the text in a picture
WIDTH, TALL, MARGIN = 400, 1000, 8
PATIENCE = 3000  # seconds


def sectionsOf(frame) -> dict:
    """Name -> widget of the panel's sections."""
    import ctk

    return {widget.objectName: widget for widget in frame.findChildren(ctk.ctkCollapsibleButton)}


def wordsOf(frame) -> dict[str, list[str]]:
    """Section -> what its labels and buttons say in a panel that nothing was done with yet."""
    import qt

    def words(section):
        parts = [*section.findChildren(qt.QLabel), *section.findChildren(qt.QAbstractButton)]
        return sorted({part.text for part in parts if part.text and not part.objectName.endswith("HelpText")})

    return {name: [section.text, *words(section)] for name, section in sectionsOf(frame).items()}


def readWords(path: Path) -> dict[str, list[str]]:
    """What `wordsOf` said of the open sections of a picture when it was taken."""
    import qt

    return json.loads(qt.QImage(str(path)).text(KEY))


class Photographer:
    def __init__(self, loaded, words):
        self._frame, self._words = loaded.frame, words
        self._frame.show()

    def take(self, name: str, *sections: str) -> Path:
        """A picture of the panel with these sections open."""
        import qt

        for other, section in sectionsOf(self._frame).items():
            section.setCollapsed(other not in sections)
        self._frame.resize(WIDTH, TALL)
        pump(lambda: False, 0.5)
        folded = sectionsOf(self._frame).values()
        bottom = max(s.mapTo(self._frame, qt.QPoint(0, 0)).y() + s.height for s in folded if s.isVisible())
        image = self._frame.grab(qt.QRect(0, 0, WIDTH, bottom + MARGIN)).toImage()
        image.setText(KEY, json.dumps({name: self._words[name] for name in sections}))
        path = FOLDER / f"{name}.png"
        if not image.save(str(path)):
            raise OSError(f"{path} cannot be written")
        print(path, image.width(), "x", image.height())
        return path


def pump(condition, seconds: float) -> bool:
    import slicer

    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    return condition()


def wait(condition) -> None:
    if not pump(condition, PATIENCE):
        raise TimeoutError("the panel did not come to what was waited for")


def main() -> None:
    """The raw sample case from a click to corrected segments."""
    sys.path[:0] = [str(ROOT / "SegMambaSlicer"), str(ROOT / "Testing" / "support")]
    import standin_app

    standin_app.install()
    import numpy as np
    import qt
    from editor import Editor
    from SegMambaSlicerLib.results.segments import labelArray

    FOLDER.mkdir(parents=True, exist_ok=True)
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    loaded = standin_app.loadModule()
    camera = Photographer(loaded, wordsOf(loaded.frame))
    panel, ui = loaded.widget.panel, loaded.widget.panel.ui
    loaded.widget.enter()
    wait(lambda: panel.session.machine and ui.sampleMenuButton.isEnabled())
    ui.sampleMenuButton.menu().actions()[1].trigger()
    wait(lambda: not panel.session.isBusy() and ui.applyButton.isEnabled())
    camera.take("volumes", "inputsSection", "runSection")
    ui.applyButton.click()
    wait(lambda: ui.progressBar.value > 300 or not panel.session.isBusy())
    camera.take("running", "runSection")
    wait(lambda: not panel.session.isBusy())
    segmentation = panel.parameters.result("Segmentation")
    if segmentation is None:
        raise RuntimeError(ui.progressLabel.text)
    wait(lambda: ui.volumesTable.rowCount == 5)
    camera.take("result", "resultSection")
    labels, _notes = labelArray(segmentation)
    stroke = np.zeros(labels.shape, bool)
    middle = np.argwhere(labels == 2)[len(np.argwhere(labels == 2)) // 2]
    stroke[tuple(slice(x - 2, x + 3) for x in middle)] = True
    Editor(segmentation, panel.parameters.volume("t1c")).paint("ET", stroke)
    pump(lambda: False, 2)
    camera.take("corrections", "correctionsSection")
    loaded.widget.cleanup()


if __name__ == "__main__":
    main()
