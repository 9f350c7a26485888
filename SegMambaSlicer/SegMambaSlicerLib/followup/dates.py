"""The results in the scene that may be dates of one patient, each with its T1c and its study date."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import slicer

from ..errors import InputError
from ..i18n import _
from ..results import history
from ..results.segments import representation
from ..volumes.dicomtags import dicomTags

DATE_ATTRIBUTE = "SegMamba.Date"  # what a person typed


@dataclass(frozen=True)
class DatedResult:
    """date: as 2026-01-31, a number of days, or "" where it is not known. patient: of DICOM, to compare only."""

    segmentation: object
    volume: object
    date: str
    patient: str


def findResults() -> list[DatedResult]:
    """Those of SegMamba with their T1c in the scene, the earliest first; not those that another has replaced."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        volume = None if node.GetHideFromEditors() else t1cOf(node)
        if volume is not None and _isOurs(node):
            found.append(DatedResult(node, volume, dateOf(node, volume), dicomTags(volume).get("PatientID", "")))
    return sorted(found, key=lambda result: (result.date == "", _order(result.date)))


def t1cOf(segmentationNode):
    """The T1c that a result was made from, or None."""
    return history.sourceVolumes(segmentationNode)["t1c"]


def dateOf(segmentationNode, volume) -> str:
    """What was typed; else the study's date in DICOM, of the volume's series or of its study in the hierarchy."""
    typed = segmentationNode.GetAttribute(DATE_ATTRIBUTE)
    if typed:
        return typed
    tags = dicomTags(volume)
    for text in (tags.get("AcquisitionDate", ""), tags.get("StudyDate", ""), _dateInHierarchy(volume)):
        date = _plain(text)
        if date:
            return date
    return ""


def setDate(segmentationNode, text: str) -> None:
    """Keeps what a person typed, with the scene; "" goes back to DICOM's. Raises InputError for what is no date."""
    text = text.strip()
    if not text:
        segmentationNode.RemoveAttribute(DATE_ATTRIBUTE)
        return
    if not (_plain(text) or _isDays(text)):
        raise InputError(
            _("{text} is not a date. Enter a date such as 2026-01-31, or a number of days for all results.").format(
                text=repr(text)
            )
        )
    segmentationNode.SetAttribute(DATE_ATTRIBUTE, _plain(text) or text)


def inOrder(results: list[DatedResult]) -> list[DatedResult]:
    """By date. Raises InputError where a date is missing, given twice or of two kinds, or patients differ."""
    undated = [result.segmentation.GetName() for result in results if not result.date]
    if undated and len(results) > 1:
        raise InputError(_("Enter the date of {names} in the table.").format(names=", ".join(undated)))
    kinds = {_isDays(result.date) for result in results}
    if len(kinds) > 1:
        raise InputError(_("Enter dates for all results, or numbers of days for all."))
    if len({result.date for result in results}) < len(results):
        raise InputError(
            _("Two results have the same date. Select one for each date, or correct the date in the table.")
        )
    if len({result.patient for result in results if result.patient}) > 1:
        raise InputError(_("According to DICOM, these results belong to different patients. Select those of one."))
    return sorted(results, key=lambda result: _order(result.date))


def daysOf(results: list[DatedResult]) -> list[int]:
    """Since the first of them, which are `inOrder`."""
    orders = [_order(result.date) for result in results]
    return [order - orders[0] for order in orders]


def _isOurs(node) -> bool:
    try:
        representation(node)
    except InputError:
        return False
    return True


def _dateInHierarchy(volume) -> str:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMStudyDateAttributeName()
    while item and item != hierarchy.GetSceneItemID():
        text = hierarchy.GetItemAttribute(item, name)
        if text:
            return text
        item = hierarchy.GetItemParent(item)
    return ""


def _isDays(text: str) -> bool:
    return bool(re.fullmatch(r"-?[0-9]{1,5}", text))  # six would be a date without its century


def _plain(text: str) -> str:
    """A date as 2026-01-31, from that or from 20260131; nothing where it is none."""
    text = text.strip()
    if len(text) == 8 and text.isdecimal():
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    try:
        return datetime.date.fromisoformat(text).isoformat() if len(text) == 10 else ""
    except ValueError:
        return ""


def _order(text: str) -> int:
    if _isDays(text):
        return int(text)
    return datetime.date.fromisoformat(text).toordinal() if _plain(text) else 0
