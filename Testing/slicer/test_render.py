"""Pictures by Slicer's own displayable managers: what the clinician sees lies where it should, in its colour."""

import numpy as np
import pytest
import render
import slicer
import synth
from SegMambaSlicerLib.results import segments, uncertainty

pytestmark = pytest.mark.skipif(
    not render.canRender(), reason="needs OpenGL without a display (libegl1, libegl-mesa0, libgl1-mesa-dri)"
)

SIZE = (300, 240)
SPAN = 60.0  # mm that the view is wide
MM_PER_PIXEL = SPAN / SIZE[0]
LABELS = synth.labelMap()


@pytest.fixture
def core(scene):
    from mrml import CoreApplication

    return CoreApplication.shared()


def _volume(kind):
    """A grey volume without structure, so that all colour comes from the segments."""
    node = synth.addVolume("Post", kind, np.full(synth.SHAPE, 100, np.int16))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 200)
    return node


def _colored(picture):
    return np.ptp(picture.astype(int), axis=2) > 8


@pytest.mark.parametrize("kind", ["RAS", "LAS"])
def test_slice_view_shows_segments_in_place(core, tmp_path, kind):
    """The patient's left is on the right of an axial view; area and middle of the whole tumour by the voxels."""
    volume = _volume(kind)
    matrix = synth.matrixFor(kind)
    segments.createSegmentation(LABELS, volume, mode="regions")
    k = 4
    corners = [(matrix @ [i, j, k, 1])[:3] for i in (0, 22) for j in (0, 16)]
    middle = np.mean(corners, axis=0)
    picture = render.readPng(render.renderSlice(core, volume, middle, tmp_path / "s.png", size=SIZE, span=SPAN))
    colored = _colored(picture)
    voxels = np.argwhere(LABELS[k] > 0)
    area = len(voxels) * synth.SPACING[0] * synth.SPACING[1]
    assert colored.sum() * MM_PER_PIXEL**2 == pytest.approx(area, rel=0.1)
    ras = (matrix @ np.array([[i, j, k, 1] for j, i in voxels]).T)[:3].mean(1) - middle
    row, column = np.argwhere(colored).mean(0)
    assert (column - SIZE[0] / 2) * MM_PER_PIXEL == pytest.approx(-ras[0], abs=0.7)
    assert (SIZE[1] / 2 - row) * MM_PER_PIXEL == pytest.approx(ras[1], abs=0.7)
    assert abs(ras[0]) + abs(ras[1]) > 1.5


def test_colors_of_the_labels(core, tmp_path):
    volume = _volume("RAS")
    segments.createSegmentation(LABELS, volume)
    k = 4
    middle = (synth.matrixFor("RAS") @ [11, 8, k, 1])[:3]
    picture = render.readPng(render.renderSlice(core, volume, middle, tmp_path / "s.png", size=SIZE, span=SPAN))
    matrix = synth.matrixFor("RAS")
    for value, strongest in ((1, (0,)), (2, (1,)), (3, (0, 1))):
        voxels = np.argwhere(LABELS[k] == value)
        inside = [v for v in voxels if all((LABELS[k, v[0] + a, v[1] + b] == value) for a in (-1, 0, 1) for b in (0,))]
        j, i = inside[len(inside) // 2]
        x, y, _z = (matrix @ [i, j, k, 1])[:3] - middle
        column, row = int(SIZE[0] / 2 - x / MM_PER_PIXEL), int(SIZE[1] / 2 - y / MM_PER_PIXEL)
        color = picture[row, column].astype(int)
        dark = [channel for channel in range(3) if channel not in strongest]
        assert min(color[list(strongest)]) > max(color[dark]) + 15, (value, color)


def test_uncertainty_lies_over_the_image(core, tmp_path):
    volume = _volume("RAS")
    array = np.zeros(synth.SHAPE, np.float32)
    array[4, 6:11, 8:15] = 0.9
    overlay = uncertainty.addUncertainty(array, volume)
    middle = (synth.matrixFor("RAS") @ [11, 8, 4, 1])[:3]
    path = render.renderSlice(core, volume, middle, tmp_path / "s.png", overlay=overlay, size=SIZE, span=SPAN)
    colored = _colored(render.readPng(path))
    voxel = synth.SPACING[0] * synth.SPACING[1]
    assert 5 * 7 * voxel < colored.sum() * MM_PER_PIXEL**2 < 7 * 9 * voxel  # Slicer interpolates between voxels


def test_surfaces_in_3d(core, tmp_path):
    volume = _volume("oblique-left")
    node = segments.createSegmentation(LABELS, volume)
    empty = render.readPng(render.render3D(core, tmp_path / "empty.png", size=SIZE))
    segments.show3D(node)
    full = render.readPng(render.render3D(core, tmp_path / "full.png", size=SIZE))
    changed = np.abs(full.astype(int) - empty.astype(int)).max(2) > 20
    assert 0.1 < changed.mean() < 0.9
    segments.show3D(node, False)
    gone = render.readPng(render.render3D(core, tmp_path / "gone.png", size=SIZE))
    assert np.abs(gone.astype(int) - empty.astype(int)).max() <= 2
    assert slicer.util.arrayFromSegmentBinaryLabelmap(node, "ET", volume).any()
