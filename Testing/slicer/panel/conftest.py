"""What the tests of the panel share: Slicer's application as a stand-in, the module in it, and workers to order.

They need PySide6-Essentials 6.11 (6.12 crashes on Python 3.11) and, on Linux, the libraries libEGL, libGL,
libxkbcommon, libfontconfig, libglib-2.0 and libdbus-1. In Debian: libegl1 libgl1 libxkbcommon0 libfontconfig1
libglib2.0-0 libdbus-1-3.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[3]
SUPPORT = ROOT / "Testing" / "support"

try:
    import slicer
    import vtk  # noqa: F401
    from PySide6 import QtWidgets  # noqa: F401
except ImportError as error:  # the package, or one of the libraries above
    pytest.skip(f"needs slicer-core, PySide6-Essentials==6.11.3 and their libraries: {error}", allow_module_level=True)

import standin_app  # noqa: E402

standin_app.install()

import fake_commands  # noqa: E402
import fake_worker  # noqa: E402
import qt  # noqa: E402
import synth  # noqa: E402


@pytest.fixture
def app(scene):
    """slicer.app, with an empty scene and empty settings."""
    qt.QSettings().clear()
    yield slicer.app
    qt.QSettings().clear()


@pytest.fixture(autouse=True)
def slotErrors():
    """Exceptions in slots and observers, which Qt and VTK print and forget; a test fails on them."""
    raised, before = [], sys.excepthook
    sys.excepthook = lambda kind, error, trace: (raised.append(error), before(kind, error, trace))
    yield raised
    sys.excepthook = before
    assert not raised


@pytest.fixture
def pump(app):
    """pump(condition, seconds): lets Qt's events run until the condition holds; fails where it never does."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            app.processEvents()
            time.sleep(0.003)
        app.processEvents()

    return wait


@pytest.fixture
def python(tmp_path):
    """python(behaviour): a program like Python, but whose `-m segmamba.worker` is the fake worker of that behaviour."""
    if sys.platform == "win32":
        pytest.skip("the fake worker is started by a shell script")

    def make(behaviour="well"):
        assert behaviour in fake_worker.BEHAVIOURS
        program = tmp_path / f"python {behaviour} \u00fc"
        program.write_text(
            f'#!/bin/sh\nreal="{sys.executable}"\n'
            f'if [ "$2" = segmamba.worker ]; then exec "$real" "{fake_worker.__file__}" {behaviour}; fi\n'
            'exec "$real" "$@"\n'
        )
        program.chmod(0o755)
        return program

    return make


@pytest.fixture
def choose(app, python):
    """choose(behaviour): the settings name the fake worker's program."""

    def set_(behaviour="well"):
        qt.QSettings().setValue("SegMamba/Python", str(python(behaviour)))

    return set_


@pytest.fixture
def volumes(scene):
    """Four volumes on one left-handed oblique grid, named as a scanner might."""
    names = {"t1n": "AX T1", "t1c": "AX T1 +C", "t2w": "AX T2", "t2f": "AX T2 FLAIR"}
    return {
        modality: synth.addVolume(name, "oblique-left", seed=seed)
        for seed, (modality, name) in enumerate(names.items())
    }


@pytest.fixture
def module(app):
    """The module as loaded by Slicer; checked afterwards for what real widgets would not have taken."""
    loaded = standin_app.loadModule()
    yield loaded
    stray = qt.strayAttributes(loaded.frame)
    loaded.widget.cleanup()
    loaded.frame.close()
    loaded.frame.deleteLater()
    qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    assert not stray


@pytest.fixture
def panel(choose, module):
    """The panel, with a worker that answers at once; the module is not opened yet."""
    choose("well")
    return module.widget.panel


@pytest.fixture
def ready(panel, module, volumes, pump):
    """The panel, opened on four volumes, with the worker's answers in."""
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled() and panel.session.machine)
    return panel


@pytest.fixture
def temporaryFiles(app):
    """The names in Slicer's temporary folder."""
    return lambda: sorted(path.name for path in Path(slicer.app.temporaryPath).iterdir())


@pytest.fixture
def sampleTruth(monkeypatch):
    """sampleTruth(volume): the exact labels of the sample case on the grid of `volume`; its voxels are 2 mm wide."""
    import nibabel
    from SegMambaSlicerLib import sample
    from SegMambaSlicerLib.volumes.scene import toVolumeGrid

    truths = []

    def loadCase(folder, name, load=sample.loadCase):
        image = nibabel.load(next(folder.glob("*seg.nii*")))
        truths.append((np.asarray(image.dataobj), image.affine))
        return load(folder, name)

    for spacing in ("SPACING", "RAW_SPACING"):
        monkeypatch.setattr(sample, spacing, 2.0)  # the same case on fewer voxels
    monkeypatch.setattr(sample, "loadCase", loadCase)

    def onGrid(volume):
        array, affine = truths[0]
        return toVolumeGrid(array.transpose(2, 1, 0), affine, volume).astype(np.uint8)

    return onGrid


@pytest.fixture
def site(app, tmp_path):
    """A site folder that the settings name."""
    folder = tmp_path / "the site"
    folder.mkdir()
    qt.QSettings().setValue("SegMamba/Site", str(folder))
    return folder


@pytest.fixture
def commands(site, module, monkeypatch):
    """The module, whose questions to the engine are answered by the test; .panel is its panel."""
    asked = fake_commands.Commands(module.widget.panel.session, monkeypatch)
    asked.panel = module.widget.panel
    return asked


@pytest.fixture
def ssh(monkeypatch):
    """The imitation of ssh instead of the system's."""
    if sys.platform == "win32":
        pytest.skip("the imitation of ssh is a shell script")
    folder = SUPPORT / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="session")
def head(tmp_path_factory):
    """T1c of a synthetic case of 4 mm voxels."""
    import nibabel
    from segmamba.datasets.phantom import make_phantom, save_phantom

    folder = tmp_path_factory.mktemp("head")
    save_phantom(make_phantom(0, spacing=(4, 4, 4), enhancing=True), folder, "head")
    return nibabel.load(folder / "head-t1c.nii.gz")


@pytest.fixture
def views(scene):
    """Red and Yellow as Slicer has them, and the layout."""
    for name in ("Red", "Yellow"):
        view = scene.CreateNodeByClass("vtkMRMLSliceNode")
        composite = scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
        view.SetOrientation("Axial")
        for node in (view, composite):
            node.UnRegister(None)
            node.SetSingletonTag(name)
            node.SetLayoutName(name)
            scene.AddNode(node)
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    return lambda name: scene.GetNodeByID(f"vtkMRMLSliceNode{name}")
