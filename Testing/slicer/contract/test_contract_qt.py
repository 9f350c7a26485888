"""What the panel relies on in Slicer's qt and ctk, asked of whatever Slicer runs this: the real one or the stand-in.

In Slicer: Slicer --testing --no-main-window --python-script test_contract_qt.py, or ctest.
"""

import time
import unittest
from pathlib import Path

import ctk
import qt
import slicer

UI = Path(__file__).resolve().parents[3] / "SegMambaSlicer" / "Resources" / "UI" / "SegMambaSlicer.ui"


def wait(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.005)
    return condition()


class QtContractTest(unittest.TestCase):
    def testPropertiesAreAttributes(self):
        label, bar, combo = qt.QLabel("text"), qt.QProgressBar(), qt.QComboBox()
        self.assertEqual(label.text, "text")
        label.setText("other")
        self.assertEqual(label.text, "other")
        label.toolTip = "tip"
        self.assertIn(label.toolTip, ("tip", "<p>tip</p>"))  # Slicer's tool tip trapper makes rich text of plain text
        bar.setMaximum(1000)
        bar.setValue(300)
        self.assertEqual(bar.value, 300)
        combo.addItem("one", "first")
        combo.addItem("seven", 7)
        self.assertEqual((combo.count, combo.currentIndex, combo.currentText), (2, 0, "one"))
        self.assertEqual((combo.itemText(1), combo.itemData(1), combo.itemData(0)), ("seven", 7, "first"))

    def testStatesAreAskedForByMethods(self):
        button = qt.QPushButton("press")
        button.setEnabled(False)
        self.assertFalse(button.isEnabled())
        button.setCheckable(True)
        button.setChecked(True)
        self.assertTrue(button.isChecked())
        self.assertFalse(button.isVisible())
        timer = qt.QTimer()
        self.assertFalse(timer.isActive())

    def testSignalsCallSlotsThatMayIgnoreTheirArguments(self):
        pressed, chosen = [], []
        button, combo = qt.QPushButton("press"), qt.QComboBox()

        def onPressed(checked=False):
            pressed.append(checked)

        def onChosen(index=0):
            chosen.append(index)

        button.clicked.connect(onPressed)
        combo.currentIndexChanged.connect(onChosen)
        button.click()
        combo.addItem("one")
        combo.addItem("two")
        combo.setCurrentIndex(1)
        self.assertEqual(pressed, [False])
        self.assertEqual(len(chosen), 2)

    def testTimersTick(self):
        ticks, once = [], []
        timer = qt.QTimer()
        timer.setInterval(5)
        timer.timeout.connect(lambda: ticks.append(1))
        timer.start()
        self.assertTrue(wait(lambda: len(ticks) > 2))
        timer.stop()
        single = qt.QTimer()
        single.setSingleShot(True)
        single.setInterval(5)
        single.timeout.connect(lambda: once.append(1))
        single.start()
        self.assertTrue(wait(lambda: not single.isActive()))
        self.assertEqual(once, [1])

    def testTablesTakeTexts(self):
        table = qt.QTableWidget()
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels(["a", "b"])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.setRowCount(1)
        cell = qt.QTableWidgetItem("12.30")
        cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.setItem(0, 1, cell)
        self.assertEqual(table.item(0, 1).text(), "12.30")
        self.assertEqual((table.rowCount, table.columnCount), (1, 2))

    def testSettingsKeepTexts(self):
        qt.QSettings().setValue("SegMamba/ContractTest", "/a b/\u00fc")
        self.assertEqual(slicer.util.settingsValue("SegMamba/ContractTest", "", converter=str), "/a b/\u00fc")
        qt.QSettings().remove("SegMamba/ContractTest")
        self.assertEqual(slicer.util.settingsValue("SegMamba/ContractTest", "none", converter=str), "none")

    def testTheClipboardTakesText(self):
        self.assertTrue(callable(slicer.app.clipboard().setText))

    def testTheUiFileLoadsWithItsWidgets(self):
        widget = slicer.util.loadUI(str(UI))
        ui = slicer.util.childWidgetVariables(widget)
        self.assertEqual(ui.applyButton.text, "Segment tumor")
        self.assertFalse(ui.applyButton.isEnabled())
        self.assertEqual(list(ui.t1cSelector.nodeTypes), ["vtkMRMLScalarVolumeNode"])
        self.assertTrue(ui.t1cSelector.noneEnabled)
        self.assertTrue(ui.setupSection.collapsed)
        ui.setupSection.setProperty("collapsed", False)
        self.assertFalse(ui.setupSection.collapsed)
        ui.logText.appendPlainText("a line")
        self.assertEqual(ui.logText.toPlainText(), "a line")
        widget.setMRMLScene(slicer.mrmlScene)

    def testPathsAreChosenInCtkWidgets(self):
        line, heard = ctk.ctkPathLineEdit(), []
        line.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Dirs
        line.currentPathChanged.connect(lambda path="": heard.append(path))
        line.setCurrentPath("/a/b")
        self.assertEqual(line.currentPath, "/a/b")
        self.assertTrue(heard)


class SelectorContractTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear(0)
        self.selector = slicer.qMRMLNodeComboBox()
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.noneEnabled = True
        self.selector.setMRMLScene(slicer.mrmlScene)

    def tearDown(self):
        slicer.mrmlScene.Clear(0)

    def testAVolumeThatIsAddedIsNotChosenByItself(self):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "A")
        slicer.app.processEvents()
        self.assertIsNone(self.selector.currentNode())
        self.assertEqual(self.selector.nodeCount(), 1)

    def testChoosingSpeaksAndClosingTheSceneEmpties(self):
        heard = []
        self.selector.currentNodeChanged.connect(lambda node=None: heard.append(1))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "A")
        self.selector.setCurrentNode(node)
        self.assertIs(self.selector.currentNode(), node)
        self.assertTrue(heard)
        slicer.mrmlScene.Clear(0)
        slicer.app.processEvents()
        self.assertIsNone(self.selector.currentNode())

    def testWhatSelectorsSayOfASceneThatWasAddedComesBeforeObserversOfLowPriority(self):
        heard, atTheEnd = [], []
        self.selector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "A"))
        other = slicer.vtkMRMLScene()
        other.AddNewNodeByClass("vtkMRMLTextNode", "text")
        path = Path(slicer.app.temporaryPath) / "SegMambaContract.mrml"
        other.SetURL(str(path))
        other.Commit()
        self.selector.currentNodeChanged.connect(lambda node=None: heard.append(1))
        event = slicer.mrmlScene.EndImportEvent
        tag = slicer.mrmlScene.AddObserver(event, lambda caller, event: atTheEnd.append(len(heard)), -20.0)
        slicer.mrmlScene.SetURL(str(path))
        slicer.mrmlScene.Import()
        slicer.app.processEvents()
        slicer.mrmlScene.RemoveObserver(tag)
        path.unlink()
        self.assertEqual(atTheEnd, [len(heard)])

    def testAVolumeThatIsToBeRemovedCanBeLetGoOfBefore(self):
        nodes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in "ABC"]
        self.selector.setCurrentNode(nodes[1])
        event = slicer.mrmlScene.NodeAboutToBeRemovedEvent
        tag = slicer.mrmlScene.AddObserver(event, lambda caller, event: self.selector.setCurrentNode(None))
        slicer.mrmlScene.RemoveNode(nodes[1])
        slicer.app.processEvents()
        slicer.mrmlScene.RemoveObserver(tag)
        self.assertIsNone(self.selector.currentNode())

    def testOtherNodesAndHiddenVolumesAreNotOffered(self):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "not a volume")
        hidden = slicer.vtkMRMLScalarVolumeNode()
        hidden.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(hidden)
        slicer.app.processEvents()
        self.assertEqual(self.selector.nodeCount(), 0)


class ModuleContractTest(unittest.TestCase):
    def testTheParameterNodeIsOneForTheScene(self):
        from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

        class SegMambaContractLogic(ScriptedLoadableModuleLogic):
            pass

        node = SegMambaContractLogic().getParameterNode()
        self.assertEqual(node.GetClassName(), "vtkMRMLScriptedModuleNode")
        self.assertIs(SegMambaContractLogic().getParameterNode(), node)
        before = node.StartModify()
        node.SetParameter("Key", "value")
        node.EndModify(before)
        self.assertEqual(node.GetParameter("Key"), "value")
        slicer.mrmlScene.RemoveNode(node)

    def testTheApplicationTellsWhereThingsAre(self):
        app = slicer.app
        self.assertTrue(Path(app.temporaryPath).is_dir())
        self.assertTrue(str(app.slicerUserSettingsFilePath))
        self.assertTrue(str(app.applicationVersion))
        self.assertIn("PATH", {name.upper() for name in slicer.util.startupEnvironment()})
        self.assertTrue(app.testingEnabled())

    def testQuestionsAreNotAskedInTestingMode(self):
        """Whatever the answer is; it must come without a window."""
        self.assertIn(slicer.util.confirmOkCancelDisplay("Really?"), (True, False))


if __name__ == "__main__":
    unittest.main()
