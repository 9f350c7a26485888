"""A picture of a segmentation for people to look at: slices through the tumour, with and without its outline."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmamba.cases.labels import LABELS
from segmamba.cases.structures import STRUCTURES
from segmamba.files.atomic import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segmamba.cases.case import Case


COLOURS = {name: STRUCTURES[name].color for name in LABELS}
# for labels and regions of other tasks, in turn
OTHER_COLOURS = ((0.35, 0.60, 0.95), (0.95, 0.55, 0.20), (0.65, 0.45, 0.85), (0.20, 0.75, 0.75), (0.90, 0.45, 0.70))
# where two label maps differ: only in the first, only in the second, another label
DIFFERENCES = {"only in {0}": (0.25, 0.75, 1.00), "only in {1}": (1.00, 0.30, 0.85), "another label": (1.0, 0.55, 0.10)}
_PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
_DIFFERENCE = "difference"
_FILL, _RIM = 0.30, 0.95  # how much a label hides the image, inside and on its rim


def save_picture(
    case: Case,
    label_maps: Mapping[str, np.ndarray],
    path: Path,
    title: str = "",
    labels: Mapping[str, int] = LABELS,
) -> None:
    """Writes a PNG: a row per plane through the tumor; a column per modality, then one per label map.

    Shown as radiologists look at it: the patient's right on the left. Written aside and renamed.

    Args:
        case: whose images are shown.
        label_maps: title -> (X, Y, Z) on the case's grid; the first that is not empty decides where the slices lie. Two
            of them (truth and prediction) get one column more, of where they differ.
        path: of the PNG.
        title: above the picture.
        labels: name -> value.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    orientation = ornt_transform(io_orientation(case.affine), axcodes2ornt("LPS"))
    head = _head(case)
    images = {name: apply_orientation(image[head], orientation) for name, image in case.images.items()}
    maps = {name: apply_orientation(label_map[head], orientation) for name, label_map in label_maps.items()}
    spacing = voxel_sizes(case.affine)[np.argsort(orientation[:, 0])]
    first = next((found for found in maps.values() if found.any()), next(iter(maps.values())))
    background = images["t2f"] if "t2f" in images else next(iter(images.values()))
    colours = label_colours(labels)
    paints = {
        name: (found, {labels[label]: colour for label, colour in colours.items()}) for name, found in maps.items()
    }
    legend = dict(colours)
    if len(maps) == 2:
        paints[_DIFFERENCE] = (_difference(*maps.values()), dict(enumerate(DIFFERENCES.values(), 1)))
        legend |= {name.format(*maps): colour for name, colour in DIFFERENCES.items()}
    columns = [*images, *paints]
    figure = Figure(figsize=(2.2 * len(columns), 2.3 * len(_PLANES) + 0.6), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(_PLANES), len(columns), squeeze=False)
    for row, (plane, axis) in zip(axes, _PLANES.items()):
        index = _widest(first, axis)
        across, down = (i for i in range(3) if i != axis)
        for ax, column in zip(row, columns):
            image = background if column in paints else images[column]
            low, high = _window(image)
            grey = np.clip((_slice(image, axis, index) - low) / (high - low), 0, 1)
            rgb = np.repeat(grey[..., None], 3, axis=2)
            if column in paints:
                painted, of_value = paints[column]
                _paint(rgb, _slice(painted, axis, index), of_value, rim=column != _DIFFERENCE)
            origin = "upper" if plane == "axial" else "lower"  # superior is up, anterior is up
            smooth = "nearest" if column in paints else "bilinear"  # a rim is one voxel wide
            ax.imshow(rgb, origin=origin, aspect=spacing[down] / spacing[across], interpolation=smooth)
            ax.set_axis_off()
            if plane == "axial":
                ax.set_title(column, color="white", fontsize=10, parse_math=False)
    if title:
        figure.suptitle(title, color="white", fontsize=11, parse_math=False)  # a case's id may hold a dollar sign
    _draw_legend(figure, legend)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, facecolor="black")
    write_aside(Path(path), file.getvalue())


def label_colours(labels: Mapping[str, int]) -> dict[str, tuple[float, float, float]]:
    """Label -> RGB, 0 to 1: that of COLOURS where it is named there; others take turns."""
    others = [name for name in labels if name not in COLOURS]
    turns = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}
    return {name: COLOURS.get(name) or turns[name] for name in labels}


def _draw_legend(figure: Figure, colours: Mapping[str, tuple[float, float, float]]) -> None:
    from matplotlib.patches import Patch

    legend = figure.legend(
        handles=[Patch(color=colour) for colour in colours.values()],
        labels=list(colours),
        loc="outside lower center",
        ncols=min(8, len(colours)),
        frameon=False,
        labelcolor="white",
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _head(case: Case) -> tuple[slice, ...]:
    """The box around every voxel that is not 0 in any image."""
    anywhere = np.any([image != 0 for image in case.images.values()], axis=0)
    places = [np.flatnonzero(anywhere.any(axis=tuple(j for j in range(3) if j != i))) for i in range(3)]
    return tuple(slice(place[0], place[-1] + 1) for place in places)


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where only `first` has a label, 2 where only `second` has one, 3 where they have different ones, else 0."""
    result = np.where(first != second, 3, 0)
    result[(first != 0) & (second == 0)] = 1
    result[(first == 0) & (second != 0)] = 2
    return result


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


def _paint(
    rgb: np.ndarray, labels: np.ndarray, colours: Mapping[int, tuple[float, float, float]], *, rim: bool
) -> None:
    """Lays the colour of each value over (H, W, 3), and along the inside of its border nearly covers the image."""
    for value, colour in colours.items():
        where = labels == value
        weight = np.where(_rim(where), _RIM, _FILL) if rim else np.full(where.shape, 0.75)
        rgb[where] = ((1 - weight[..., None]) * rgb + weight[..., None] * np.asarray(colour))[where]


def _rim(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (H, W) that touch a pixel outside of it along an edge."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
