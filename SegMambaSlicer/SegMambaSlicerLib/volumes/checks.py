"""Whether the four volumes can be segmented together, what is wrong with which, and what has to be prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import slicer

from ..errors import InputError
from ..i18n import _
from .dicomtags import dicomTags
from .incomplete import costSentence, isAllowed
from .judging import isOfAnother, isPlainVolume, judge
from .scene import cornerDistance, ijkToWorld, isSheared, shearOf, turnBetween

REQUIRED = ("t1n", "t1c", "t2w", "t2f")
TITLES = {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"}
PREPARE = ("auto", "never")  # what the engine does to volumes that are not registered, or have the skull on
PREPARED = "SegMamba.Prepared"  # attribute of a result: what was done to its volumes for the model alone
THICK_MM = 3.0  # slices from here on are spoken of
HUGE_VOXELS = 100_000_000  # 512 x 512 x 400; four of them take about 3 GB while they are prepared


@dataclass(frozen=True)
class Problem:
    """kind: a short key; text: a sentence for the user; blocking: whether it must be mended first.

    Kinds: missing, duplicate, empty, constant, components, extent, sheared, transform, grid; not blocking: incomplete,
    patient, examination, huge.
    """

    kind: str
    text: str
    blocking: bool = True


def checkVolumes(
    volumes: Mapping[str, object],
    required: tuple[str, ...] = REQUIRED,
    prepare: str = "never",
    incomplete: Mapping | None = None,
) -> list[Problem]:
    """What stands in the way of segmenting `volumes` (modality -> node or None); [] where nothing does.

    Grids are compared as they stand in the scene, with parent transforms; the same voxels in another order of axes
    pass, for `scene.exportCase` brings them into one order. With `prepare` "auto" each may have a grid of its own, for
    the engine registers them (`preparation` says what it will do). incomplete: see incomplete.knownIncomplete; volumes
    that the model does without may be missing. Reads every voxel, and changes nothing.
    """
    given = {modality: volumes.get(modality) for modality in required}
    present = {name: node for name, node in given.items() if node is not None}
    problems = _checkMissing([name for name in given if name not in present], incomplete or {})
    for one, other in combinations(present, 2):
        if present[one] is present[other] or _sameVoxels(present[one], present[other]):
            text = _("{one} and {other} are the same image. Choose another volume for one of them.")
            problems.append(Problem("duplicate", text.format(one=_title(one, present), other=_title(other, present))))
    sound = {}
    for name, node in present.items():
        found = _checkOne(_title(name, present), node, name == referenceOf(present))
        problems += found
        if not any(problem.blocking for problem in found):
            sound[name] = node
    return [
        *problems,
        *(_checkGrids(sound) if prepare != "auto" else []),
        *(_checkPatients(sound) or _checkExaminations(sound)),
    ]


def offGrid(volumes: Mapping[str, object]) -> dict[str, str]:
    """Modality -> how its grid differs from that of the reference (T1c, if there), for those where it does."""
    if not volumes:
        return {}
    reference = volumes[referenceOf(volumes)]
    matrix, shape = ijkToWorld(reference), _shape(reference)
    differences = {}
    for name, node in volumes.items():
        other, otherShape = ijkToWorld(node), _shape(node)
        if turnBetween(otherShape, other, shape, matrix) is not None:
            continue
        if otherShape == shape and _spacing(other) == _spacing(matrix):
            text = _("shifted or rotated by up to {distance:.1f} mm")
            differences[name] = text.format(distance=cornerDistance(shape, other, matrix))
        else:
            text = _("{grid} instead of {referenceGrid}")
            differences[name] = text.format(grid=_describe(otherShape, other), referenceGrid=_describe(shape, matrix))
    return differences


def preparation(volumes: Mapping[str, object], prepare: str = "auto") -> list[str]:
    """What will be done to `volumes`, in which nothing is wrong, before they are segmented, and why; sentences.

    Looks at the grids alone: whether the skull is on is seen by the engine.
    """
    if prepare != "auto":
        return [_("Nothing will be done: registered volumes without skull are expected.")]
    apart, reference = list(offGrid(volumes)), TITLES.get(referenceOf(volumes), referenceOf(volumes))
    lines = []
    if apart:
        text = _(
            "Different grids: {modalities} will be registered to {reference}; the result is on the grid of {reference}."
        )
        lines.append(text.format(modalities=listed(apart), reference=reference))
        lines.append(_("If the skull is there, the brain is extracted."))
    else:
        lines.append(_("Same grid: the engine checks for the skull. If it is there, the brain is extracted."))
    thick = {name: max(_spacing(ijkToWorld(node))) for name, node in volumes.items()}
    thick = {name: mm for name, mm in thick.items() if mm >= THICK_MM}
    if thick:
        text = _("Thick slices in {modalities} (up to {mm:g} mm): small parts of a tumor may be missed.")
        lines.append(text.format(modalities=listed(thick), mm=round(max(thick.values()), 1)))
    return lines


def describeVolumes(volumes: Mapping[str, object]) -> list[str]:
    """One line on each of `volumes`, in which nothing is wrong: name, voxels and, where it differs, the grid."""
    apart = offGrid(volumes)
    lines = []
    for name, node in volumes.items():
        line = f"{_title(name, volumes)}: {_describe(_shape(node), ijkToWorld(node))}"
        lines.append(line + (_(", a grid of its own") if name in apart else ""))
    return lines


def listed(modalities) -> str:
    """As in "T1, T2 and FLAIR"."""
    *first, last = [TITLES.get(modality, modality) for modality in modalities]
    return _("{first} and {last}").format(first=", ".join(first), last=last) if first else last


def referenceOf(volumes: Mapping[str, object]) -> str:
    """The modality on whose grid the result lies: T1c or, without it, the first that is there."""
    present = [name for name, node in volumes.items() if node is not None]
    return "t1c" if "t1c" in present else present[0]


def _checkMissing(absent: list[str], incomplete: Mapping) -> list[Problem]:
    if absent and isAllowed(absent, incomplete):
        return [Problem("incomplete", costSentence(absent, incomplete, TITLES), blocking=False)]
    text = _("{modality} is missing. Choose a volume.")
    return [Problem("missing", text.format(modality=TITLES.get(name, name))) for name in absent]


def _checkOne(title: str, node, isReference: bool) -> list[Problem]:
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return [Problem("empty", _("{volume} has no voxels. Load it again.").format(volume=title))]
    if image.GetNumberOfScalarComponents() != 1:
        text = _("{volume} has {count} values per voxel (color or 4-D). Choose a scalar volume.")
        return [Problem("components", text.format(volume=title, count=image.GetNumberOfScalarComponents()))]
    if min(image.GetDimensions()) < 2:
        return [Problem("empty", _("{volume} is a single slice. Choose a 3-D volume.").format(volume=title))]
    if any(image.GetExtent()[::2]):  # such an image's bounds in Slicer and its file are at different places
        text = _(
            "{volume} is a part of an image whose voxels are not counted from 0. Save it as NIfTI and load that or, in "
            "Python, call its ShiftImageDataExtentToZeroStart()."
        )
        return [Problem("extent", text.format(volume=title))]
    try:
        matrix = ijkToWorld(node)
    except InputError as error:
        return [Problem("transform", str(error))]
    if isSheared(_shape(node), matrix, isReference):
        text = _("{volume} is sheared by {angle:.2g} degrees. Resample it first (Resample Scalar Volume).")
        angle = float(np.degrees(np.arcsin(shearOf(matrix))))
        return [Problem("sheared", text.format(volume=title, angle=angle))]
    array = slicer.util.arrayFromVolume(node)
    low, high = float(array.min()), float(array.max())  # integers of 16 bits would overflow below
    if not np.isfinite(high - low):
        finite = array[np.isfinite(array)]
        if not finite.size:
            return [Problem("empty", _("{volume} has no finite voxel. Load it again.").format(volume=title))]
        low, high = finite.min(), finite.max()
    if low == high:
        text = _("{volume} has the value {value:g} everywhere. Choose an image.")
        return [Problem("constant", text.format(volume=title, value=low))]
    if array.size > HUGE_VOXELS:
        text = _("{volume} has {count:.0f} million voxels; this takes much time and memory. Crop it to the head.")
        return [Problem("huge", text.format(volume=title, count=array.size / 1e6), blocking=False)]
    return []


def _checkGrids(volumes: dict) -> list[Problem]:
    text = _(
        "{volume} is not on the grid of {reference}: {difference}. Register and resample it to {reference}, or set "
        "Prepare to Automatic."
    )
    problems = []
    for name, difference in offGrid(volumes).items():
        names = {"volume": _title(name, volumes), "reference": _title(referenceOf(volumes), volumes)}
        problems.append(Problem("grid", text.format(difference=difference, **names)))
    return problems


def _checkPatients(volumes: dict) -> list[Problem]:
    patients = {name: dicomTags(node).get("PatientID") for name, node in volumes.items()}
    if len({patient for patient in patients.values() if patient}) > 1:
        return [
            Problem(
                "patient",
                _("According to DICOM, the volumes belong to different patients. Check them."),
                blocking=False,
            )
        ]
    return []


def _checkExaminations(volumes: dict) -> list[Problem]:
    """Whether half of the volumes or fewer are of another patient or date than the rest."""
    try:
        chosen = {name: judge(node) for name, node in volumes.items()}
        if len({one.examination for one in chosen.values()}) < 2:
            return []
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        left = [judge(node) for node in nodes if isPlainVolume(node) and node not in volumes.values()]
    except InputError:  # the engine's files are missing, and its rules with them; Setup says so
        return []
    others = []
    for name, one in chosen.items():
        rest = {other: found for other, found in chosen.items() if found.examination != one.examination}
        if 2 * len(rest) >= len(chosen) and isOfAnother(one, rest, [*left, *rest.values()]):
            others.append(name)
    text = _("By their names or DICOM, the volumes are of different examinations. Check {modalities}.")
    return [Problem("examination", text.format(modalities=listed(others)), blocking=False)] if others else []


def _sameVoxels(one, other) -> bool:
    """Whether two volumes are copies of each other; constant ones are another problem."""
    images = one.GetImageData(), other.GetImageData()
    if None in images or images[0].GetDimensions() != images[1].GetDimensions():
        return False
    arrays = slicer.util.arrayFromVolume(one), slicer.util.arrayFromVolume(other)
    probe = tuple(slice(None, None, 7) for _axis in range(3))
    if arrays[0].shape != arrays[1].shape or not np.array_equal(arrays[0][probe], arrays[1][probe]):
        return False
    return arrays[0].min() != arrays[0].max() and np.array_equal(*arrays)


def _shape(node) -> tuple[int, int, int]:
    return node.GetImageData().GetDimensions()[::-1]


def _spacing(matrix: np.ndarray) -> tuple[float, ...]:
    return tuple(np.linalg.norm(matrix[:3, :3], axis=0).round(3).tolist())


def _describe(shape: tuple[int, int, int], matrix: np.ndarray) -> str:
    size, spacing = " x ".join(map(str, shape[::-1])), " x ".join(f"{mm:g}" for mm in _spacing(matrix))
    return _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)


def _title(modality: str, volumes: Mapping[str, object]) -> str:
    """As in "T1c (Post)": the modality with the volume's name."""
    return f"{TITLES.get(modality, modality)} ({volumes[modality].GetName()})"
