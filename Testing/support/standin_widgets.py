"""Slicer's own Qt widgets for tests: node selectors on the real scene, and the frame around a module."""

import qt
import shiboken6
import slicer
from PySide6.QtCore import Property, Signal

_NONE = "None"


class qMRMLWidget(qt.QWidget):
    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def setMRMLScene(self, scene):
        self._scene = scene

    def mrmlScene(self):
        return self._scene


def _flag(name):
    def put(self, value):
        self._flags[name] = value
        self._fill()

    return Property(bool, lambda self: self._flags.get(name, False), put)


class qMRMLNodeComboBox(qMRMLWidget):
    """A selector of nodes of some classes: follows the scene, offers "None", never selects by itself if it may be None.

    Hidden nodes (HideFromEditors) are left out, as in Slicer. The properties are those that .ui files set.
    Like the real one, it takes the neighbour of a node that is removed (QComboBox on removed rows), and says that there
    is none when a scene was closed or added (qMRMLSceneModel::onMRMLSceneImported fills the model anew).
    """

    currentNodeChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._types, self._tags, self._nodes = [], [], []
        self._flags = {"noneEnabled": False, "addEnabled": True, "removeEnabled": True, "renameEnabled": False}
        self._combo = qt.QComboBox(self)
        self._combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(self._changed)
        self._observations, self._last = [], None

    def setMRMLScene(self, scene):
        for observation in self._observations:
            self._scene.RemoveObserver(observation)
        super().setMRMLScene(scene)
        events = (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent)
        self._observations = [scene.AddObserver(event, self._sceneChanged) for event in events]
        events = (slicer.vtkMRMLScene.EndCloseEvent, slicer.vtkMRMLScene.EndImportEvent)
        self._observations += [scene.AddObserver(event, self._sceneReplaced) for event in events]
        self._fill()

    def _sceneReplaced(self, caller, event):
        if shiboken6.isValid(self):
            self.setCurrentNode(None)
        self._sceneChanged(caller, event)

    def _sceneChanged(self, caller, event):
        if shiboken6.isValid(self):
            if not caller.IsImporting():
                self._fill()
        else:  # deleted in C++, and kept here by its own observers
            for observation in self._observations:
                caller.RemoveObserver(observation)
            self._observations = []

    def _fill(self):
        if self._scene is None:
            return
        nodes = []
        if not self._scene.IsClosing():
            nodes = [node for kind in self._types for node in slicer.util.getNodesByClass(kind)]
            nodes = [node for node in nodes if node.GetClassName() in self._types and not node.GetHideFromEditors()]
        current = self._last if self._last in nodes else None
        if current is None and self._last in self._nodes:
            before = self._nodes[max(0, self._nodes.index(self._last) - 1)]
            current = before if before in nodes else None
        self._combo.blockSignals(True)
        self._combo.clear()
        self._nodes = ([None] if self._flags["noneEnabled"] else []) + nodes
        for node in self._nodes:
            self._combo.addItem(_NONE if node is None else node.GetName())
        index = self._nodes.index(current) if current in self._nodes else (0 if self._nodes else -1)
        self._combo.setCurrentIndex(index)
        self._combo.blockSignals(False)
        self._changed()

    def _changed(self, index=0):
        node = self.currentNode()
        if node is not self._last:
            self._last = node
            self.currentNodeChanged.emit(node)

    def currentNode(self):
        index = self._combo.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node):
        if node is not None and node not in self._nodes:
            self._fill()
        self._combo.setCurrentIndex(self._nodes.index(node) if node in self._nodes else (0 if self._nodes else -1))

    def setCurrentNodeID(self, nodeId):
        self.setCurrentNode(self._scene.GetNodeByID(nodeId) if nodeId else None)

    def nodeCount(self):
        return len([node for node in self._nodes if node is not None])

    def _getTypes(self):
        return self._types

    def _setTypes(self, types):
        self._types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", _getTypes, _setTypes)
    currentNodeID = Property(
        str, lambda self: self.currentNode().GetID() if self.currentNode() else "", setCurrentNodeID
    )
    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    showHidden = _flag("showHidden")
    showChildNodeTypes = _flag("showChildNodeTypes")


qt.QUiLoader.custom.update(qMRMLWidget=qMRMLWidget, qMRMLNodeComboBox=qMRMLNodeComboBox)
slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qMRMLWidget, qMRMLNodeComboBox
