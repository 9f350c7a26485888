"""Slice and 3-D views drawn by Slicer's own displayable managers into PNG files, without a display.

Drawing needs an OpenGL library that works without one (libegl1, libegl-mesa0, libgl1-mesa-dri); where there is none,
VTK does not return from the first frame, so `canRender` tries it in another process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import slicer
import vtk

SIZE = (600, 600)


@cache
def canRender() -> bool:
    """Whether a window can be drawn here without a display."""
    code = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.Render()"
    environment = {**os.environ, "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _window(size):
    os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow"
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    window.SetSize(*size)
    renderer = vtk.vtkRenderer()
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    return window, renderer, interactor


def _managers(core, renderer, viewNode, names):
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    for name in names:
        manager = getattr(slicer, name)()
        manager.SetMRMLApplicationLogic(core.logic)
        group.AddDisplayableManager(manager)
    group.SetMRMLDisplayableNode(viewNode)
    return group


def renderSlice(core, volume, ras, path: Path, overlay=None, orientation: str = "Axial", size=SIZE, span: float = 0):
    """One slice view through `ras` with all visible segmentations; returns the path.

    overlay: a volume over it, at 60 %. span: mm that the view is wide, by default what the volume needs.
    """
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(core.logic)
    logic.SetMRMLScene(core.scene)
    node = logic.AddSliceNode(f"Picture{core.scene.GetNumberOfNodes()}")
    node.SetOrientation(orientation)
    node.SetDimensions(*size, 1)
    composite = logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(volume.GetID())
    if overlay is not None:
        composite.SetForegroundVolumeID(overlay.GetID())
        composite.SetForegroundOpacity(0.6)
    logic.FitSliceToAll(*size)
    if span:
        node.SetFieldOfView(span, span * size[1] / size[0], node.GetFieldOfView()[2])
    node.JumpSliceByCentering(*ras)
    window, renderer, _interactor = _window(size)
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    renderer.AddViewProp(actor)
    group = _managers(core, renderer, node, ["vtkMRMLSegmentationsDisplayableManager2D"])
    logic.UpdatePipeline()
    _save(window, path)
    group.SetMRMLDisplayableNode(None)
    return path


def render3D(core, path: Path, direction=(-0.5, 0.8, 0.4), size=SIZE):
    """The 3-D view of what is visible in it, seen from `direction` (R, A, S); returns the path."""
    view = core.scene.AddNewNodeByClass("vtkMRMLViewNode", f"Picture{core.scene.GetNumberOfNodes()}")
    view.SetLayoutName(view.GetName())
    view.SetBoxVisible(False)
    view.SetAxisLabelsVisible(False)
    window, renderer, _interactor = _window(size)
    renderer.GradientBackgroundOn()
    renderer.SetUseDepthPeeling(True)
    renderer.SetMaximumNumberOfPeels(8)
    renderer.SetBackground(0.75, 0.76, 0.9)
    renderer.SetBackground2(0.45, 0.47, 0.7)
    group = _managers(core, renderer, view, ["vtkMRMLSegmentationsDisplayableManager3D"])
    camera = renderer.GetActiveCamera()
    camera.SetViewUp(0, 0, 1)
    camera.SetFocalPoint(0, 0, 0)
    camera.SetPosition(*(500 * part for part in direction))
    light = vtk.vtkLight()
    light.SetLightTypeToHeadlight()
    renderer.AddLight(light)
    renderer.ResetCamera()
    renderer.ResetCameraClippingRange()
    _save(window, path)
    group.SetMRMLDisplayableNode(None)
    return path


def readPng(path: Path):
    """(rows, columns, 3) uint8 of a PNG."""
    from vtk.util import numpy_support

    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    width, height, _one = image.GetDimensions()
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]


def _save(window, path: Path) -> None:
    window.Render()
    picture = vtk.vtkWindowToImageFilter()
    picture.SetInput(window)
    picture.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(picture.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()
