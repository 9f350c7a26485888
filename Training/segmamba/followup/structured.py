"""The measurements of one date as a DICOM Structured Report (TID 1500), made with highdicom.

It refers to the DICOM SEG of that date, where a region is one segment of it, and to the series that the SEG lies on,
and belongs to the patient's record: as every DICOM file it names the patient.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from segmamba import __version__
from segmamba.cases.dicom_seg import need_highdicom
from segmamba.cases.labels import LABELS
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.followup.follow import FollowUp
from segmamba.followup.lesions import Lesion, Measured
from segmamba.images.dicom import Series
from segmamba.images.dicom.headers import quiet

if TYPE_CHECKING:
    from pydicom import Dataset

_SERIES_NUMBER = 9500
_LPS = np.array([-1.0, -1.0, 1.0])


def check_sr(output: Path) -> None:
    """Refuses what would stop `write_sr`, before there is anything to write. Raises InputError."""
    need_highdicom("a DICOM Structured Report")
    if output.exists():
        raise InputError(
            f"{output}: already exists, and DICOM files are never overwritten; move it, or choose another name"
        )


def write_sr(
    measured: Measured, series: Series, seg: Path, tracking: Mapping[int, tuple[str, str]], output: Path
) -> Path:
    """Writes the lesions of one date: of each a group with its volume, and one with its diameters and their lines.

    A lesion of a region that is several segments has one group with all of it: DICOM refers to one segment there.

    Args:
        measured: the lesions.
        series: the images.
        seg: the DICOM SEG over them.
        tracking: number of a lesion -> (identifier, UID), the same at all dates for one lesion.
        output: the file, which must not exist.

    Returns:
        The path of `output`.

    Raises:
        InputError: where the series' attributes do not suffice, and as `check_sr`.
    """
    check_sr(output)
    hd = need_highdicom("a DICOM Structured Report")
    import pydicom

    try:
        with quiet():
            segmentation = pydicom.dcmread(seg)
            images = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in series.files]
            groups = [g for one in measured.lesions for g in _groups(hd, one, segmentation, tracking)]
            data = _build(hd, groups, segmentation, images)
            buffer = io.BytesIO()
            data.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # of many kinds, with texts that quote the patient's attributes
        raise InputError(
            f"series {series.name} cannot be referred to by a Structured Report: its attributes are incomplete or "
            f"malformed ({type(error).__name__}); use the JSON and the report"
        ) from None
    write_aside(output, buffer.getvalue())
    return output


def _build(hd: ModuleType, groups: list, segmentation: Dataset, images: list) -> Dataset:
    from pydicom.sr.codedict import codes

    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name="segmamba", manufacturer_name="SegMambaSlicer", model_name=f"segmamba {__version__}"
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.MRIUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *images],  # the first gives the patient and the study: `write_seg` has made it sound
        content=report[0],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="SegMambaSlicer",
        series_description="SegMamba measurements, for research only",
    )


def _groups(hd: ModuleType, lesion: Lesion, segmentation: Dataset, tracking: Mapping[int, tuple[str, str]]) -> list:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    identifier, uid = tracking[lesion.number]
    algorithm = hd.sr.AlgorithmIdentification(name="segmamba follow", version=__version__)
    frame = segmentation.FrameOfReferenceUID
    lines = (
        ("D1", Code("103339001", "SCT", "Long Axis"), lesion.d1, lesion.line1),
        ("D2", Code("103340004", "SCT", "Short Axis"), lesion.d2, lesion.line2),
    )
    measurements = [
        hd.sr.Measurement(
            name=code,
            value=round(value, 4),
            unit=codes.UCUM.Millimeter,
            method=codes.DCM.ManualEntry if name in lesion.by_hand else None,
            algorithm_id=None if name in lesion.by_hand else algorithm,
            referenced_coordinates=[
                hd.sr.CoordinatesForMeasurement3D(hd.sr.GraphicTypeValues3D.POLYLINE, line * _LPS, frame)
            ],
        )
        for name, code, value, line in lines
        if line is not None
    ]
    volume = hd.sr.Measurement(
        name=Code("118565006", "SCT", "Volume"),
        value=round(lesion.volume_ml, 6),
        unit=Code("mL", "UCUM", "milliliter"),
    )
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
        "finding_type": Code("108369006", "SCT", "Neoplasm"),
        "finding_sites": [hd.sr.FindingSite(anatomic_location=Code("12738006", "SCT", "Brain"))],
    }
    if lesion.region not in LABELS:
        return [hd.sr.MeasurementsAndQualitativeEvaluations(measurements=[*measurements, volume], **common)]
    segment = hd.sr.ReferencedSegment.from_segmentation(segmentation, LABELS[lesion.region])
    # TID 1411, of a segment, takes no lines: these have a group of their own (TID 1501), of the same tracking UID
    groups = [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=segment, measurements=[volume], **common
        )
    ]
    if measurements:
        groups.append(hd.sr.MeasurementsAndQualitativeEvaluations(measurements=measurements, **common))
    return groups


def tracking(result: FollowUp) -> dict[int, dict[int, tuple[str, str]]]:
    """Day -> number of a lesion -> (identifier, UID): those of the baseline's lesion, for each part it has become."""
    from pydicom.uid import generate_uid

    kinds = len(result.dates[0].burdens) > 1

    def name(text: str, lesion: Lesion) -> tuple[str, str]:
        return f"{text} ({lesion.region})" if kinds else text, str(generate_uid())

    baseline = {one.number: name(f"Lesion {one.number}", one) for one in result.dates[0].measured.lesions}
    names = {}
    for date in result.dates:
        parts = date.matches.parts if date.matches else {}
        own = {part: baseline[number] for number, found in parts.items() for part in found}
        for lesion in date.measured.lesions:
            own.setdefault(lesion.number, name(f"Day {date.day}, lesion {lesion.number}", lesion))
        names[date.day] = own
    return names
