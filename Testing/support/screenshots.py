"""Pictures for people, of a synthetic case with its true labels: python Testing/support/screenshots.py [FOLDER]

Needs the engine with its phantom extra, slicer-core and OpenGL. Writes slice.png and surfaces.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SegMambaSlicer"), str(ROOT / "Testing" / "support")]


def takeScreenshots(folder: Path) -> list[Path]:
    """Draws the views into `folder` and returns the files' paths."""
    import render
    import slicer
    from mrml import CoreApplication
    from segmamba.datasets.phantom import make_phantom, save_phantom
    from SegMambaSlicerLib.results import segments
    from SegMambaSlicerLib.volumes import scene

    core = CoreApplication.shared()
    with tempfile.TemporaryDirectory() as temporary:
        save_phantom(make_phantom(11, spacing=(1, 1, 1.5), enhancing=True), Path(temporary), "phantom")
        array, matrix = scene.readImage(Path(temporary) / "phantom-t1c.nii.gz")
        volume = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="T1c")
        labels = scene.readLabelMap(Path(temporary) / "phantom-seg.nii.gz", volume)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(0, float(np.percentile(array[array > 0], 99.8)))
    segmentation = segments.createSegmentation(labels, volume)
    largest = int(np.argmax((labels == 3).sum((1, 2))))
    middle = (matrix @ [*np.argwhere(labels[largest] > 0)[:, ::-1].mean(0), largest, 1])[:3]
    paths = [render.renderSlice(core, volume, middle, folder / "slice.png", span=220)]
    segments.show3D(segmentation)
    paths.append(render.render3D(core, folder / "surfaces.png"))
    return paths


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots"
    for file in takeScreenshots(target):
        print(file)
