"""A picture of a segmentation for people to look at: slices through the tumour, with and without its outline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from segmamba.case import Case
from segmamba.labels import LABELS

# colours of the labels, as in SegMambaSlicer: red core, green oedema, yellow enhancement
COLOURS = {"NCR": (0.85, 0.25, 0.25), "ED": (0.30, 0.75, 0.35), "ET": (0.98, 0.85, 0.25)}
_PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}


def save_picture(case: Case, label_maps: dict[str, np.ndarray], path: Path, title: str = "") -> None:
    """Writes a PNG: a row per plane through the tumour; a column per modality, then one per label map.

    label_maps: title -> (X, Y, Z) on the case's grid; the first decides where the slices lie.
    Shown as radiologists look at it: the patient's right on the left.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    orientation = ornt_transform(io_orientation(case.affine), axcodes2ornt("LPS"))
    head = _head(case)
    images = {name: apply_orientation(image[head], orientation) for name, image in case.images.items()}
    maps = {name: apply_orientation(label_map[head], orientation) for name, label_map in label_maps.items()}
    spacing = voxel_sizes(case.affine)[np.argsort(orientation[:, 0])]
    first = next(iter(maps.values()))
    background = images["t2f"] if "t2f" in images else next(iter(images.values()))
    columns = [*images, *maps]
    figure = Figure(figsize=(2.2 * len(columns), 2.3 * len(_PLANES) + 0.5), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(_PLANES), len(columns), squeeze=False)
    for row, (plane, axis) in zip(axes, _PLANES.items()):
        index = _widest(first, axis)
        across, down = (i for i in range(3) if i != axis)
        for ax, column in zip(row, columns):
            image = images.get(column, background)
            low, high = _window(image)
            grey = np.clip((_slice(image, axis, index) - low) / (high - low), 0, 1)
            rgb = np.repeat(grey[..., None], 3, axis=2)
            if column in maps:
                _paint(rgb, _slice(maps[column], axis, index))
            origin = "upper" if plane == "axial" else "lower"  # superior is up, anterior is up
            ax.imshow(rgb, origin=origin, aspect=spacing[down] / spacing[across], interpolation="bilinear")
            ax.set_axis_off()
            if plane == "axial":
                ax.set_title(column, color="white", fontsize=10)
    if title:
        figure.suptitle(title, color="white", fontsize=11)
    figure.legend(
        handles=[Patch(color=COLOURS[name], label=name) for name in LABELS],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        labelcolor="white",
        fontsize=9,
    )
    figure.savefig(path, dpi=90, facecolor="black")


def _head(case: Case) -> tuple[slice, ...]:
    """The box around every voxel that is not 0 in any image."""
    anywhere = np.any([image != 0 for image in case.images.values()], axis=0)
    places = [np.flatnonzero(anywhere.any(axis=tuple(j for j in range(3) if j != i))) for i in range(3)]
    return tuple(slice(place[0], place[-1] + 1) for place in places)


def _widest(label_map: np.ndarray, axis: int) -> int:
    """The slice with most tumour; the middle one where there is none."""
    areas = np.count_nonzero(label_map, axis=tuple(i for i in range(3) if i != axis))
    return int(areas.argmax()) if areas.any() else label_map.shape[axis] // 2


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    return np.take(volume, index, axis=axis).T


def _window(image: np.ndarray) -> tuple[float, float]:
    """Grey levels of the brain, without its brightest and darkest half percent."""
    brain = image[image != 0]
    low, high = np.percentile(brain, (0.5, 99.5)) if brain.size else (0.0, 1.0)
    return float(min(low, 0)), float(max(high, low + 1e-6))


def _paint(rgb: np.ndarray, labels: np.ndarray) -> None:
    for name, value in LABELS.items():
        where = labels == value
        rgb[where] = 0.45 * rgb[where] + 0.55 * np.asarray(COLOURS[name])
