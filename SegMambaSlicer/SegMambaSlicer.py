"""SegMamba in 3D Slicer: brain tumors from four MRI volumes as editable segments, with one click."""

import logging
import weakref

import slicer
import vtk
from SegMambaSlicerLib.learning import corrections
from SegMambaSlicerLib.parameters import Parameters
from SegMambaSlicerLib.run import Options
from SegMambaSlicerLib.sample import registerSampleData
from SegMambaSlicerLib.session import Session
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# of the panel, in their order above Setup; each has a .ui file, with SegMambaSlicer before its name
SECTIONS = ("FollowUp", "Corrections", "Training", "Models")


class SegMambaSlicer(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SegMamba Brain Tumor Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SegMambaSlicer contributors"]
        self.parent.helpText = _(
            "Segments brain tumors (necrotic core, edema, enhancing tumor) in T1, contrast-enhanced T1, T2 and FLAIR "
            "volumes with SegMamba, a state space network. For research; not a medical device."
        )
        self.parent.acknowledgementText = _(
            "The network is described in Xing et al., SegMamba: Long-range Sequential Modeling Mamba For 3D Medical "
            "Image Segmentation, MICCAI 2024."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class SegMambaSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Ties the parts of the panel to the parameter node and the logic."""

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)  # without a parent it calls setup

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from SegMambaSlicerLib.panel.help import addHelp
        from SegMambaSlicerLib.panel.panel import Panel
        from SegMambaSlicerLib.panel.widgets import addInto, addSection

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SegMambaSlicer.ui"))
        ui = slicer.util.childWidgetVariables(uiWidget)
        for section in SECTIONS:
            addSection(uiWidget, self.resourcePath(f"UI/SegMambaSlicer{section}.ui"), before=ui.setupSection)
        addInto(ui.resultSection, self.resourcePath("UI/SegMambaSlicerResult.ui"), 1)
        addHelp(uiWidget)
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SegMambaSlicerLogic()
        self.panel = Panel(slicer.util.childWidgetVariables(uiWidget), self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        for event in (scene.StartCloseEvent, scene.StartImportEvent, scene.StartRestoreEvent):
            self.addObserver(scene, event, self.onSceneUnsettled)
        for event in (scene.EndCloseEvent, scene.EndImportEvent, scene.EndRestoreEvent):
            # after the node selectors, which empty themselves on these events and say so
            self.addObserver(scene, event, self.onSceneReplaced, priority=-20.0)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.panel.onNodeAboutToBeRemoved)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, self.panel.onSceneChanged)
        self.initializeParameterNode()
        if self.parent.isVisible():  # after Reload the module is in view, and nobody enters it
            self.enter()

    def enter(self):
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self):
        self.panel.exit()

    def cleanup(self):
        self.removeObservers()
        if self.panel is not None:
            self.panel.release()
        if self.logic is not None:
            self.logic.session.stop()

    def initializeParameterNode(self):
        node = self.logic.getParameterNode()
        if self.panel.setParameterNode(node):
            self.removeObservers(self.onParametersModified)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)

    def onParametersModified(self, caller=None, event=None):
        self.panel.onParametersModified()

    def onSceneStartClose(self, caller=None, event=None):
        self.removeObservers(self.onParametersModified)
        self.panel.onSceneStartClose()

    def onSceneUnsettled(self, caller=None, event=None):
        self.panel.setSettled(False)

    def onSceneReplaced(self, caller=None, event=None):
        self.panel.setSettled(True)
        self.panel.parameters = None  # a loaded scene writes into the same node, piece by piece: look at it again
        self.initializeParameterNode()

    def onReload(self):
        """Developers' Reload executes this file alone anew; the library behind it has to be forgotten."""
        import sys

        self.cleanup()
        for name in [name for name in sys.modules if name.partition(".")[0] == "SegMambaSlicerLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class SegMambaSlicerLogic(ScriptedLoadableModuleLogic):
    """Segments from Python, without the panel: SegMambaSlicerLogic().segment({"t1n": node, ...}).

    For several cases keep one of these: the model stays loaded until it goes.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = Session()
        # with Slicer itself it ends anyway, when its input is closed
        weakref.finalize(self, self.session.leave).atexit = False

    def parameters(self):
        """The module's state in the scene."""
        return Parameters(self.getParameterNode())

    def segment(
        self,
        volumes,
        model="",
        mirrorings=0,
        device="auto",
        mode="labels",
        previous=None,
        wait=True,
        onProgress=None,
        onDone=None,
        onError=None,
        prepare="auto",
        postprocess="auto",
    ):
        """Segments the four volumes {"t1n", "t1c", "t2w", "t2f"} (nodes) in the worker process.

        One that is missing is None; InputError is raised where the model needs it.
        model: name or folder, "" for the first there is. mirrorings: 0 (fast), 1, 3 or 7 (best). mode: "labels" or
        "regions". previous: a segmentation that the new one takes the place of; it is kept, hidden.
        prepare: "auto" registers volumes on other grids to T1c and cuts out the brain where the skull is on; the result
        lies on T1c's own grid. "never" expects volumes on one grid, registered and skull-stripped.
        postprocess: "auto" leaves out what the model calls too small, "never" nothing.
        With wait it blocks and returns a SegMambaSlicerLib.run.Result; without, it returns a Run at once (`cancel` it),
        and onProgress(event), onDone(Result) or onError(EngineError) are called from a timer.
        Raises InputError for volumes that cannot be used, EngineError where the engine fails; the scene is then as it
        was.
        """
        options = Options(model, int(mirrorings), device, mode, prepare, postprocess)
        return self.session.segment(volumes, options, previous, wait, onProgress, onDone, onError)

    def addCorrectedCase(
        self,
        segmentation,
        site,
        subject="",
        role="",
        confirmedEmpty=(),
        consent=False,
        volumes=None,
        wait=True,
        onDone=None,
        onError=None,
    ):
        """Adds a result of `segment`, as it was corrected, to the cases in the folder `site`, to train on.

        subject: whatever names the patient here; only a salted hash of it is written. role: of who corrected, no name.
        confirmedEmpty: labels ("NCR", "ED", "ET") that a person says are truly absent. consent: True says that a
        person agreed to learning.corrections.consentText. volumes: modality -> node, where they are others
        than those that the result was made from. Sending a case again makes its next version.
        With wait it blocks and returns {"name", "case", "version", "folder"}; without, it returns a Correction at once
        (`close` ends it), and onDone(that) or onError(EngineError) are called from a timer.
        Raises InputError where something is wrong with the case, EngineError where the engine fails.
        """
        return corrections.addCorrectedCase(
            self.session.command,
            segmentation,
            site,
            subject,
            role,
            confirmedEmpty,
            consent,
            volumes,
            wait,
            onDone,
            onError,
        )

    def cancel(self):
        """Stops what is under way within 2 s; the scene stays as it was."""
        self.session.cancel()


class SegMambaSlicerTest(ScriptedLoadableModuleTest):
    """Slicer's self test: seconds, without torch and without network."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        import unittest

        from SegMambaSlicerLib import selftest

        result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromModule(selftest))
        logging.info("SegMamba self test: %d run, %d failed", result.testsRun, len(result.failures + result.errors))
        self.assertTrue(result.wasSuccessful())
        self.delayDisplay(_("Test passed"))
