"""Two dates side by side: each in a slice view of its own, in its own axial slices, which follow one another.

Nothing in the scene is moved: where one view looks, the other looks at the same place of the head, by the engine's
registration. Each date's segments and lines are shown in its own view only.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import slicer
import vtk

from .lines import linesOf, setVisible

_VIEWS = ("Red", "Yellow")


class SideBySide:
    """`show` two dates, `hide` them; where there are no slice views, as without a main window, nothing happens."""

    def __init__(self):
        self._observed, self._moving = [], False
        self._toFirst = np.eye(4)
        self._shown = []
        self._before = []  # functions that take back what `show` did to views and display

    @property
    def isShown(self) -> bool:
        return bool(self._shown)

    def show(self, first, later, transform) -> None:
        """first, later: DatedResult. transform: (4, 4), a point of the later date to that of the first, RAS mm, or None
        where they could not be registered: then the views are not linked."""
        self.hide()
        slices = [slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}") for name in _VIEWS]
        composites = [slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceCompositeNode{name}") for name in _VIEWS]
        if None in slices or None in composites:
            return
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is not None:
            self._before.append(partial(layout.SetViewArrangement, layout.GetViewArrangement()))
            layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        for view, composite, result in zip(slices, composites, (first, later)):
            self._before += [*_stateOfView(view, composite), *_stateOfDisplay(result.segmentation)]
            composite.SetLinkedControl(False)  # Slicer's own would show both one volume at one place
            composite.SetBackgroundVolumeID(result.volume.GetID())
            view.SetOrientation("Axial")
            if result.segmentation.GetDisplayNode() is not None:
                result.segmentation.GetDisplayNode().SetVisibility(True)
            setVisible(result.segmentation, True)
            self._only(result, view.GetID())
        self._shown = [first, later]
        if transform is not None:
            self._toFirst = np.array(transform, float)
            event = "ModifiedEvent"
            self._observed = [(view, view.AddObserver(event, self._moved)) for view in slices]

    def refresh(self) -> None:
        """Lines that have come since are shown in their own view too."""
        for name, result in zip(_VIEWS, self._shown):
            self._only(result, f"vtkMRMLSliceNode{name}")

    def hide(self) -> None:
        """Every view shows everything again, as before."""
        for view, tag in self._observed:
            view.RemoveObserver(tag)
        self._observed = []
        for takeBack in self._before:
            takeBack()
        for result in self._shown:
            for node in (result.segmentation, *linesOf(result.segmentation)):
                _restrict(node, [])
            display = result.segmentation.GetDisplayNode()
            setVisible(result.segmentation, display is not None and bool(display.GetVisibility()))
        self._shown, self._before = [], []

    def goTo(self, result, ras) -> None:
        """Moves the view of that date to a point, and with it the other; all views where no two dates are shown."""
        for name, shown in zip(_VIEWS, self._shown):
            if shown.segmentation is result.segmentation:
                slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}").JumpSliceByCentering(*ras)
                return
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)

    def _only(self, result, view: str) -> None:
        """Shows what is shown of a result and its lines in this view alone."""
        for node in (result.segmentation, *linesOf(result.segmentation)):
            _restrict(node, [view])

    def _moved(self, view, event=None):
        if self._moving or slicer.mrmlScene.IsClosing():
            return
        here, there = (0, 1) if view.GetID().endswith(_VIEWS[0]) else (1, 0)
        other = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{_VIEWS[there]}")
        if other is None:
            return
        matrix = np.linalg.inv(self._toFirst) if here == 0 else self._toFirst
        centre = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
        place = matrix[:3, :3] @ centre + matrix[:3, 3]
        self._moving = True
        try:
            wide, _high, _depth = view.GetFieldOfView()
            own = other.GetFieldOfView()
            if wide and own[0]:
                scale = wide / own[0]
                other.SetFieldOfView(wide, own[1] * scale, own[2])
            other.JumpSliceByCentering(*place)
        finally:
            self._moving = False


def _stateOfView(view, composite) -> list:
    """Functions that give a slice view its direction, volume and link of now again."""
    volume = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")

    def showVolume():
        isThere = volume is not None and slicer.mrmlScene.IsNodePresent(volume)
        composite.SetBackgroundVolumeID(volume.GetID() if isThere else None)

    state = [partial(composite.SetLinkedControl, composite.GetLinkedControl()), showVolume]
    if view.GetOrientation() != "Axial":  # else it stays where it was gone to meanwhile
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(view.GetSliceToRAS())

        def turn():
            view.GetSliceToRAS().DeepCopy(matrix)
            view.UpdateMatrices()

        state.append(turn)
    return state


def _stateOfDisplay(node) -> list:
    display = node.GetDisplayNode()
    return [] if display is None else [partial(display.SetVisibility, display.GetVisibility())]


def _restrict(node, views: list) -> None:
    """Shows a node in these views alone; [] in all."""
    display = node.GetDisplayNode()
    if display is not None:
        display.SetViewNodeIDs(views)
