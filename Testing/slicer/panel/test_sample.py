"""The sample case: made by the engine, shown in the panel, and offered to Slicer's Sample Data."""

import sys
import types
from pathlib import Path

import pytest
import qt
import slicer
import synth
from SegMambaSlicerLib import sample
from SegMambaSlicerLib.engine import interpreter
from SegMambaSlicerLib.engine.client import EngineError


def test_a_sample_that_fails_says_why(app, python, tmp_path, pump, temporaryFiles):
    script = tmp_path / "noisy"
    script.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'nilearn'\" >&2\nexit 1\n")
    script.chmod(0o755)
    maker = sample.SampleMaker(interpreter=lambda: interpreter.Interpreter(str(script), "override", {}))
    pump(maker.poll)
    with pytest.raises(EngineError, match="nilearn is missing"):
        maker.load()
    assert temporaryFiles() == []


def test_slicer_is_drawn_while_sample_data_waits_for_the_case(app, tmp_path):
    """Half a minute without an event, and Windows calls Slicer "not responding"."""
    script, drawn = tmp_path / "python", []
    script.write_text("#!/bin/sh\nsleep 0.5\nexit 1\n")
    script.chmod(0o755)
    qt.QSettings().setValue("SegMamba/Python", str(script))
    timer = qt.QTimer()
    timer.timeout.connect(lambda: drawn.append(True))
    timer.start(10)
    with pytest.raises(EngineError, match="was not made"):
        sample.makeSample()
    assert drawn


def test_a_sample_without_a_place_or_an_engine_is_said(module, choose, tmp_path, monkeypatch, temporaryFiles):
    choose("well")
    ui = module.widget.panel.ui
    with monkeypatch.context() as changed:
        changed.setattr(slicer.app, "temporaryPath", str(tmp_path / "gone"))
        ui.sampleButton.click()
    assert "A temporary folder could not be created" in ui.progressLabel.text and ui.progressBar.isHidden()
    with monkeypatch.context() as changed:
        changed.setattr(interpreter, "_HERE", tmp_path / "SegMambaSlicerLib")
        with pytest.raises(EngineError, match="The engine is not in"):
            sample.SampleMaker(interpreter=lambda: interpreter.Interpreter("python", "override", {}))
    assert temporaryFiles() == [] and not module.widget.panel.session.isBusy()


def test_the_sample_is_offered_to_sample_data(app, module, monkeypatch):
    """With the signature of Slicer's own function."""
    offered = {}

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(
            category="Custom", sampleName=None, uris=None, fileNames=None, nodeNames=None, customDownloader=None,
            thumbnailFileName=None, loadFileType=None, loadFiles=None, loadFileProperties=None, checksums=None,
        ):  # fmt: skip
            assert Path(thumbnailFileName).is_file()
            offered[sampleName] = customDownloader

    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    assert slicer.app.started  # the module asked to be told when Slicer has started
    sample.registerSampleData()
    assert list(offered) == [sample.NAME, sample.RAW_NAME]
    made, asked = {"t1c": synth.addVolume("sample", "oblique-left")}, []
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    monkeypatch.setattr(sample, "makeSample", lambda raw: asked.append(raw) or made)
    for name, download in offered.items():
        assert download(types.SimpleNamespace(sampleName=name)) == [made["t1c"]]
    assert asked == [False, True]
    assert composite.GetBackgroundVolumeID() == made["t1c"].GetID()
    monkeypatch.setitem(sys.modules, "SampleData", None)
    sample.registerSampleData()  # Slicer without that module: nothing happens
