"""A label map to a DICOM SEG that refers to the slices of the series it lies on, made with highdicom.

A DICOM SEG belongs to the patient's record: it carries the patient and study attributes of the series it refers to,
name, number and date of birth among them. Nothing else that the project writes, logs or says does.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from segmamba.cases.labels import GLIOMA, LabelScheme, to_regions
from segmamba.cases.structures import ANATOMY, CATEGORY, STRUCTURES
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.images.dicom.find import Series
from segmamba.images.dicom.headers import quiet
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance, describe_grid
from segmamba.images.image_io import read_image

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

# type 2 of PS3.3: must be there, may be empty; those who make data anonymous leave them out or put in other text
_PATIENT_AND_STUDY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
_PATIENT_AND_STUDY += ("AccessionNumber", "ReferringPhysicianName")
_SERIES_NUMBER = 9000  # of the first: far from the scanner's own


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the SEG says of who made it."""

    name: str
    """Of the model, at most 64 letters."""
    version: str
    """Of the model, such as the beginning of its hash."""
    software: str
    """Version of segmamba."""


def write_seg(
    label_map: np.ndarray | Path,
    affine: np.ndarray | None,
    series: Series,
    output: Path | str,
    facts: ModelFacts,
    *,
    scheme: LabelScheme = GLIOMA,
    regions: bool = False,
) -> Path | None:
    """Writes a label map as a DICOM SEG over the slices of a series.

    The map may have its axes in another order or direction than the series, but must lie on its grid, to 1e-3 mm at the
    corners. A segment has the number of its label, or its place among the regions; those without a voxel are described
    and have no frame.

    Args:
        label_map: (X, Y, Z), in the values of `scheme`: an array, or an image file.
        affine: (4, 4) voxel indices to RAS mm; None takes that of the file.
        series: that it was drawn on.
        output: of the new file.
        facts: what the SEG says of who made it.
        scheme: the labels and regions.
        regions: whether the segments are the regions, which overlap, rather than the labels.

    Returns:
        `output`, or None where the map is empty and there is nothing to write.

    Raises:
        InputError: for a grid other than the series', labels that have no code, a series without a frame of reference,
            a file that already exists, and where highdicom is missing.
    """
    hd, output = need_highdicom("DICOM SEG"), Path(output)
    names = list(scheme.regions) if regions else sorted(scheme.labels, key=scheme.labels.__getitem__)
    check_seg(series, output, names)
    if isinstance(label_map, Path):
        image = read_image(label_map)
        label_map, affine = image.array, image.affine if affine is None else affine
    label_map = _on_series(np.asarray(label_map), np.asarray(affine, float), series)
    stray = sorted(set(np.unique(label_map).tolist()) - {0, *scheme.labels.values()})
    if stray:
        raise InputError(f"the label map holds {stray[:8]}; expected 0 and {sorted(scheme.labels.values())}")
    if not label_map.any():
        log.warning("the label map is empty: there is no DICOM SEG to write")
        return None
    try:
        with quiet():
            data = _build(hd, label_map, series, facts, scheme, names, regions)
            _restore_frame_numbers(data, series)
            data.ContentCreatorName = ""  # type 2: there, though nobody drew it
            buffer = io.BytesIO()
            data.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # of many kinds, with texts that quote the patient's attributes
        raise InputError(
            f"series {series.name} ({series.description!r}) cannot be referred to by a DICOM SEG: its attributes are "
            f"incomplete or malformed ({type(error).__name__}); use the NIfTI result"
        ) from None
    make_folder(output.parent)
    write_aside(output, buffer.getvalue())
    return output


def _build(
    hd: ModuleType,
    label_map: np.ndarray,
    series: Series,
    facts: ModelFacts,
    scheme: LabelScheme,
    names: list[str],
    regions: bool,
) -> Dataset:
    return hd.seg.Segmentation(
        source_images=_sources(series),
        pixel_array=_pixels(label_map, scheme, names if regions else None),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(hd, k, name, facts) for k, name in enumerate(names, 1)],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER + (series.frames[0].header.number or 0) % 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="SegMambaSlicer",
        manufacturer_model_name=facts.name,
        software_versions=facts.software,
        device_serial_number=facts.version,
        content_label="SEGMAMBA",
        content_description="Brain tumor, automatic, for research only",
        series_description=f"SegMamba {'regions' if regions else 'labels'}",
        omit_empty_frames=True,
    )


def check_seg(series: Series, output: Path | str, names: Sequence[str] = ()) -> None:
    """Refuses what `write_seg` would refuse, as far as that is known before there is a label map.

    Args:
        series: that the DICOM SEG is to refer to.
        output: its file, which must not exist.
        names: of the labels that it is to hold.

    Raises:
        InputError: says what stands against it, and what to do instead.
    """
    need_highdicom("DICOM SEG")
    output = Path(output)
    if output.exists():
        raise InputError(
            f"{output}: already exists, and DICOM files are never overwritten; move it, or choose another name"
        )
    unknown = [name for name in names if name not in STRUCTURES]
    if unknown:
        known = ", ".join(STRUCTURES)
        raise InputError(f"there is no DICOM code for {', '.join(unknown)}; there are codes for {known}")
    if series.geometry.fault:
        raise InputError(f"series {series.name} ({series.description!r}) is not a volume: {series.geometry.fault}")
    if not series.frames[0].header.frame_of_reference:
        raise InputError(
            f"series {series.name} ({series.description!r}) has no Frame of Reference UID, so that a DICOM SEG cannot "
            "refer to its place; use the NIfTI result, or export the series again from the scanner or PACS"
        )
    images = {(frame.sop_uid, frame.index) for frame in series.frames}
    if len(images) < len(series.frames) or not all(frame.sop_uid for frame in series.frames):
        raise InputError(
            f"series {series.name} ({series.description!r}) has images without an identity (SOPInstanceUID) of their "
            "own, so that a DICOM SEG cannot refer to them; use the NIfTI result"
        )
    if 1 < len(series.files) < len(series.frames):
        raise InputError(f"series {series.name} is spread over several multi-frame files; a DICOM SEG refers to one")


def need_highdicom(what: str) -> ModuleType:
    """highdicom with its parts for segmentations and reports. Raises InputError saying that `what` needs it."""
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError:
        raise InputError(
            f'{what} needs highdicom: in Slicer, Setup installs it; elsewhere pip install "highdicom>=0.28"'
        ) from None
    return highdicom


def _segment(hd: ModuleType, number: int, name: str, facts: ModelFacts) -> Dataset:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    structure = STRUCTURES[name]
    algorithm = hd.AlgorithmIdentificationSequence(
        name=facts.name,
        version=facts.version,
        family=codes.DCM.ArtificialIntelligence,
        source="SegMamba",
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=Code(CATEGORY[0], "SCT", CATEGORY[1]),
        segmented_property_type=Code(structure.code[0], "SCT", structure.code[1]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[Code(ANATOMY[0], "SCT", ANATOMY[1])],
        display_color=hd.color.CIELabColor.from_rgb(*(round(255 * c) for c in structure.color)),
        tracking_id=name,
        tracking_uid=hd.UID(),
    )


def _on_series(label_map: np.ndarray, affine: np.ndarray, series: Series) -> np.ndarray:
    """The map with the axes of the series. Raises InputError where it lies on another grid."""
    geometry = series.geometry
    assert geometry.affine is not None  # what has none was refused
    turn = ornt_transform(io_orientation(affine), io_orientation(geometry.affine))
    turned = apply_orientation(label_map, turn)
    affine = affine @ inv_ornt_aff(turn, label_map.shape)
    distance = corner_distance(geometry.shape, affine, geometry.affine)
    if turned.shape != geometry.shape or distance > GRID_TOLERANCE_MM:
        raise InputError(
            f"the label map is not on the grid of series {series.name}: {describe_grid(turned.shape, affine)} against "
            f"{describe_grid(geometry.shape, geometry.affine)}; resample it to the series first"
        )
    return turned


def _sources(series: Series) -> list:
    """The data sets of the series, without pixels, in the order of its slices; of a multi-frame file one.

    That one is given the series' frames alone, in their order: highdicom takes no file with two frames at one place.
    """
    import pydicom

    sources = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in series.files]
    for source in sources:
        for name in _PATIENT_AND_STUDY:
            if not _is_sound(source, name):
                setattr(source, name, "")
    if series.frames[0].header.frames > 1:
        groups = sources[0].PerFrameFunctionalGroupsSequence
        sources[0].PerFrameFunctionalGroupsSequence = pydicom.Sequence([groups[f.index] for f in series.frames])
        sources[0].NumberOfFrames = len(series.frames)
    return sources


def _is_sound(source: Dataset, name: str) -> bool:
    from pydicom.valuerep import DA, TM

    kind = DA if name.endswith("Date") else TM if name.endswith("Time") else str
    try:
        return name in source and kind(source[name].value or "") is not NotImplemented
    except ValueError:
        return False


def _restore_frame_numbers(data: Dataset, series: Series) -> None:
    """Frames are referred to by their number in the file again, not among those of `_sources`."""
    if series.frames[0].header.frames == 1:
        return
    derivations = [d for group in data.PerFrameFunctionalGroupsSequence for d in group.DerivationImageSequence]
    # by identity: segments on one slice share what refers to it
    for source in {id(s): s for derivation in derivations for s in derivation.SourceImageSequence}.values():
        source.ReferencedFrameNumber = series.frames[int(source.ReferencedFrameNumber) - 1].index + 1


def _pixels(label_map: np.ndarray, scheme: LabelScheme, regions: list[str] | None) -> np.ndarray:
    """(slices, rows, columns) of segment numbers, or (slices, rows, columns, regions) of 0 and 1."""
    slices = label_map.T
    if regions:
        masks = to_regions(slices, scheme)
        slices = np.stack([masks[name] for name in regions], axis=-1)
    return slices.astype(np.uint8)
