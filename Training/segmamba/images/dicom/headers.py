"""The headers of DICOM files: one record a file, and one a slice, of the attributes that are asked for and no other.

What is kept names no patient. Classic files hold one slice, enhanced multi-frame ones (PS3.3 A.36, C.7.6.16) many,
with the attributes in groups that belong to all frames or to one.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NoReturn, cast

from segmamba import limits
from segmamba.errors import InputError, explain
from segmamba.files.atomic import is_clutter, is_clutter_folder
from segmamba.images.dicom.values import Attributes, integer, number, numbers, plain, seconds, text, texts
from segmamba.shared.contrast_words import agent_said

log = logging.getLogger(__name__)

_MARK = b"DICM"
_SUFFIXES = (".dcm", ".ima")
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_FILE_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("SpecificCharacterSet", "SeriesNumber", "SeriesDescription", "ProtocolName", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "SliceThickness"),
    *("ScanningSequence", "EchoPulseSequence", "SequenceName", "PulseSequenceName", "AngioFlag", "RepetitionTime"),
    *("EchoTime", "EchoNumbers", "InversionTime", "DiffusionBValue", "TemporalPositionIdentifier"),
    *("AcquisitionNumber", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "TriggerTime"),
    *("InstanceNumber", "ContrastBolusAgent", "ContrastBolusAgentSequence", "AcquisitionContrast"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_DEFLATED = "1.2.840.10008.1.2.1.99"  # pydicom reads such a file as a whole
_UNCOMPRESSED = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_NO_AGENT = {"no", "none", "n/a", "na", "0", "n", "without", "nein", "ohne", "keine", "non", "aucun", "sans", "sin"}
_NO_AGENT |= {"senza", "no contrast", "without contrast", "none given", "no agent"}


@dataclass(frozen=True)
class Header:
    """What a file says once. Numbers that are missing are None, texts ''."""

    path: Path
    """Of the file."""
    study_uid: str
    """StudyInstanceUID."""
    series_uid: str
    """SeriesInstanceUID."""
    frame_of_reference: str
    """FrameOfReferenceUID: positions of images that share it can be compared."""
    modality: str
    """"MR", "CT", ..."""
    number: int | None
    """SeriesNumber."""
    description: str
    """SeriesDescription, else ProtocolName."""
    rows: int
    """Voxels of a column."""
    columns: int
    """Voxels of a row."""
    bits: int
    """BitsAllocated of a sample."""
    samples: int
    """Of a pixel: 1 for a grey image."""
    photometric: str
    """PhotometricInterpretation, such as "MONOCHROME2"."""
    thickness: float | None
    """SliceThickness in mm."""
    sequence: tuple[str, ...]
    """ScanningSequence: "SE", "GR", "IR", "EP"."""
    sequence_name: str
    """The vendor's name of the pulse sequence."""
    angiography: bool
    """AngioFlag."""
    agent: bool | None
    """Whether contrast agent was given; None: nothing is said of it."""
    contrast: str
    """AcquisitionContrast, such as "DIFFUSION"."""
    frames: int
    """In the file."""
    compressed: bool
    """Whether its pixels are."""
    rescale: tuple[float, float]
    """Of the first frame: slope, intercept."""


@dataclass(frozen=True)
class Frame:
    """One slice: its place, and what tells it from others at that place. What is missing is None, or ()."""

    header: Header
    """Of its file."""
    index: int
    """In the file, from 0."""
    sop_uid: str
    """SOPInstanceUID of the file."""
    image_type: tuple[str, ...]
    """ImageType or FrameType, and the complex component unless it is the magnitude."""
    orientation: tuple[float, ...]
    """Cosines of a row's direction and of a column's, LPS."""
    position: tuple[float, ...]
    """Of the first pixel's centre, LPS mm."""
    spacing: tuple[float, ...]
    """Between rows and between columns, mm."""
    rescale: tuple[float, float]
    """Slope, intercept."""
    repetition_time: float | None
    """TR in ms."""
    echo_time: float | None
    """TE in ms."""
    echo_number: int | None
    """Of the echoes of one excitation."""
    inversion_time: float | None
    """TI in ms."""
    b_value: float | None
    """Of diffusion, s/mm2."""
    temporal: int | None
    """TemporalPositionIdentifier."""
    acquisition: int | None
    """AcquisitionNumber."""
    time: float | None
    """Seconds, of use for comparing only."""
    trigger: float | None
    """TriggerTime in ms."""
    instance: int | None
    """InstanceNumber."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of pydicom and highdicom about odd values: they may quote the patient's."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before):
                logger.disabled = disabled


def read_headers(folder: Path | str, *, deep: bool = True) -> tuple[list[Frame], list[Path]]:
    """Every slice in the DICOM files below `folder`, whatever their names, by path; what is there twice, once.

    Files that are no DICOM are passed over, and so is what holds no image.

    Args:
        folder: where the files lie.
        deep: at any depth; else in the folder itself only.

    Returns:
        The slices, and the files that look like DICOM and are damaged or cut off: they may be slices too.

    Raises:
        InputError: for no folder, and for what the system does not let read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {what}; give the folder that holds the DICOM files, at any depth")
    frames = []
    copies = 0
    shared = 0
    broken = []
    seen: dict[str, list[list[Frame]]] = {}
    for path in _files(folder, deep):
        try:
            found = _read_file(path)
        except OSError as error:
            _refuse(error, path)
        except Exception as error:  # what pydicom raises for damaged files has no common class, and may quote values
            broken.append(path)
            log.debug("%s: %s", path, type(error).__name__)
            continue
        if found and found[0].sop_uid:
            others = seen.setdefault(found[0].sop_uid, [])
            if any(_is_copy(found, other) for other in others):
                copies += 1
                continue
            shared += bool(others)
            others.append(found)
        frames += found
    if copies:
        log.warning("%d files are copies of others and were passed over", copies)
    if shared:
        log.warning(
            "%d files have the identity (SOPInstanceUID) of another and are other images: none was left out", shared
        )
    if broken:
        log.warning(
            "%d files look like DICOM and cannot be read, %s first: were they copied whole?", len(broken), broken[0]
        )
    return frames, broken


def _is_copy(one: list[Frame], other: list[Frame]) -> bool:
    """Whether two files of one identity are the same image: anonymizing may give all the same."""
    if [_without_path(frame) for frame in one] != [_without_path(frame) for frame in other]:
        return False
    first, second = (pixels_of(frames[0].header.path) for frames in (one, other))
    return first is not None and first == second


def _without_path(frame: Frame) -> Frame:
    return replace(frame, header=replace(frame.header, path=Path()))


def pixels_of(path: Path) -> bytes | None:
    """The stored pixels of a file, compressed or not; None for a damaged one, which is told where it is read."""
    import pydicom

    try:
        with quiet():
            pixels = pydicom.dcmread(path, force=True, specific_tags=["PixelData"]).get("PixelData")
    except Exception:
        return None
    return None if pixels is None else bytes(pixels)


def _files(folder: Path, deep: bool) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_clutter_folder(name)) if deep else []
        # a pipe or a device in between would be read without end
        yield from (path for name in sorted(names) if not is_clutter(name) and _is_file(path := Path(parent, name)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError, path: Path | None = None) -> NoReturn:
    """What the system does not let read may be slices, and what is left without them would be taken for all."""
    error.filename = error.filename or path  # reading a file that is open names none
    raise InputError(explain(error)) from error


def _read_file(path: Path) -> list[Frame]:
    import pydicom
    from pydicom.uid import UID

    with path.open("rb") as file, quiet():
        start = file.read(132)
        if not _looks_like_dicom(start):
            if path.suffix.lower() in _SUFFIXES:
                raise ValueError("named as DICOM, and does not begin as it does")
            return []
        file.seek(0)
        tags = _tags()
        data = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(tags.values()))
        ended = not file.read(1)  # and not at the pixels
        # once, into a dictionary: looking up names in pydicom takes most of the time of a large folder
        values = {name: data[tag].value for name, tag in tags.items() if tag in data}
    kind, syntax = values.get("SOPClassUID", ""), str(data.file_meta.get("TransferSyntaxUID", ""))
    if kind and "Rows" in values and (syntax == _DEFLATED or not ended):
        return _frames(path, values, syntax)
    marked = start[128:] == _MARK and data.file_meta.get("MediaStorageSOPClassUID") != _MEDIA_DIRECTORY
    name = UID(kind).name  # as it was for a maker's own class; spectra have rows too, and no pixels
    if ("Image Storage" in name or (name == kind and "Rows" in values)) if kind else marked:
        raise ValueError("cut off before its pixels")
    return []


def _looks_like_dicom(start: bytes) -> bool:
    """By the mark after 128 bytes, or, in files without one, by a first element of group 0002 or 0008."""
    if start[128:132] == _MARK:
        return True
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    return len(start) == 132 and group in (2, 8) and element <= 0x20


@cache
def _tags() -> dict[str, int]:
    from pydicom.datadict import tag_for_keyword

    return {name: cast(int, tag_for_keyword(name)) for name in _FILE_TAGS}


def _frames(path: Path, data: Attributes, transfer_syntax: str) -> list[Frame]:
    count = integer(data, "NumberOfFrames") or 1
    if not 1 <= count <= limits.FRAMES:
        raise InputError(f"{path}: {count} frames; expected 1 to {limits.FRAMES}")
    shared = next(iter(data.get("SharedFunctionalGroupsSequence") or ()), {})
    single = data.get("PerFrameFunctionalGroupsSequence") or ()
    if len(single) != count:  # classic; or several frames of which nothing says where they are
        single = [{}] * count
    groups = [_Groups(data, shared, own) for own in single]
    header = _header(path, data, groups[0], count, transfer_syntax not in _UNCOMPRESSED)
    return [_frame(header, data, k, group) for k, group in enumerate(groups)]


class _Groups:
    """Functional groups of one frame: its own before the shared ones, before the file's own attributes."""

    def __init__(self, data: Attributes, shared: Attributes, own: Attributes):
        self._data = data
        self._shared = shared
        self._own = own

    def __call__(self, group: str) -> Attributes:
        for level in (self._own, self._shared):
            if level.get(group):
                return level.get(group)[0]
        return self._data


def _header(path: Path, data: Attributes, first: _Groups, count: int, compressed: bool) -> Header:
    pulse = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(text(data, "EchoPulseSequence"), ())
    if text(first("MRModifierSequence"), "InversionRecovery") == "YES":
        pulse += ("IR",)
    return Header(
        path=path,
        study_uid=text(data, "StudyInstanceUID"),
        series_uid=text(data, "SeriesInstanceUID"),
        frame_of_reference=text(data, "FrameOfReferenceUID"),
        modality=text(data, "Modality"),
        number=integer(data, "SeriesNumber"),
        description=plain(text(data, "SeriesDescription") or text(data, "ProtocolName")),
        rows=integer(data, "Rows") or 0,
        columns=integer(data, "Columns") or 0,
        bits=integer(data, "BitsAllocated") or 0,
        samples=integer(data, "SamplesPerPixel") or 1,
        photometric=text(data, "PhotometricInterpretation"),
        thickness=number(first("PixelMeasuresSequence"), "SliceThickness"),
        sequence=texts(data, "ScanningSequence") or pulse,
        sequence_name=text(data, "SequenceName") or text(data, "PulseSequenceName"),
        angiography=text(data, "AngioFlag") == "Y",
        agent=_agent(data, first("ContrastBolusUsageSequence")),
        contrast=text(first("MRImageFrameTypeSequence"), "AcquisitionContrast"),
        frames=count,
        compressed=compressed,
        rescale=_rescale(first("PixelValueTransformationSequence")),
    )


def _frame(header: Header, data: Attributes, index: int, group: _Groups) -> Frame:
    content, echo = group("FrameContentSequence"), group("MREchoSequence")
    return Frame(
        header=header,
        index=index,
        sop_uid=text(data, "SOPInstanceUID"),
        image_type=_image_type(group("MRImageFrameTypeSequence"), data),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        spacing=numbers(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        rescale=_rescale(group("PixelValueTransformationSequence")),
        repetition_time=number(group("MRTimingAndRelatedParametersSequence"), "RepetitionTime"),
        echo_time=number(echo, "EffectiveEchoTime") or number(echo, "EchoTime"),
        echo_number=integer(data, "EchoNumbers"),
        inversion_time=number(group("MRModifierSequence"), "InversionTimes") or number(data, "InversionTime"),
        b_value=number(group("MRDiffusionSequence"), "DiffusionBValue"),
        temporal=integer(content, "TemporalPositionIndex") or integer(data, "TemporalPositionIdentifier"),
        acquisition=integer(content, "FrameAcquisitionNumber") or integer(data, "AcquisitionNumber"),
        time=seconds(text(content, "FrameAcquisitionDateTime")) or _time(data),
        trigger=number(data, "TriggerTime"),
        instance=integer(data, "InstanceNumber"),
    )


def _image_type(kind: Attributes, data: Attributes) -> tuple[str, ...]:
    component = text(kind, "ComplexImageComponent")
    return (texts(kind, "FrameType") or texts(data, "ImageType")) + (
        () if component in ("", "MAGNITUDE") else (component,)
    )


def _agent(data: Attributes, usage: Attributes) -> bool | None:
    administered = text(usage, "ContrastBolusAgentAdministered")
    if administered:
        return administered == "YES"
    agent = text(data, "ContrastBolusAgent").lower()
    if agent in _NO_AGENT or agent_said(agent) == "without":
        return False
    return bool(agent or data.get("ContrastBolusAgentSequence")) or None


def _rescale(data: Attributes) -> tuple[float, float]:
    slope, intercept = number(data, "RescaleSlope"), number(data, "RescaleIntercept")
    return (slope or 1.0, intercept or 0.0)


def _time(data: Attributes) -> float | None:
    whole = text(data, "AcquisitionDateTime")
    return seconds(whole or f"{text(data, 'AcquisitionDate'):0>8}" + (text(data, "AcquisitionTime") or "x"))
