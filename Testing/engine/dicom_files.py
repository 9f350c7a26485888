"""DICOM files for tests, written by pydicom and the equations of PS3.3 C.7.6.2: classic series and enhanced files."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs pydicom (pip install -e Training[dev])")

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

PATIENT = {"PatientName": "Secret^Name", "PatientID": "SECRET-4711", "PatientBirthDate": "19501231", "PatientSex": "O"}
STUDY = generate_uid(entropy_srcs=["study"])
PLACE = generate_uid(entropy_srcs=["frame of reference"])


def head(shape=(14, 16, 15), spacing=(6.0, 5.5, 5.0), seed=0):
    """(array int16, affine RAS): noise of no two axes alike, oblique, that covers 75 mm and more."""
    array = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = (-40, -30, 12.25)
    return array, affine


def _lps(affine):
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps, spacing, lps[:3, :3] / spacing


def _new(path, sop_class, uid, attributes):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
    start = {
        **PATIENT,
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyInstanceUID": STUDY,
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDate": "20260102",
        "StudyTime": "101500",
        "Modality": "MR",
        "FrameOfReferenceUID": PLACE,
        "PositionReferenceIndicator": "",
        "Manufacturer": "Maker",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    for name, value in (start | attributes).items():
        if value is not None:
            setattr(data, name, value)
    return data


def _pixels(data, array, bits, signed):
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(signed)
    data.PixelData = np.ascontiguousarray(array).astype(f"<{'i' if signed else 'u'}{bits // 8}").tobytes()


def write_series(
    folder, array, affine, number=1, first=1, bits=16, signed=True, each=None, compress=None, **attributes
):
    """`array` (X, Y, Z) of stored values as one file a slice, named so that names sort against the positions.

    attributes: by keyword, None leaves one out. each: slice -> more attributes of that slice.
    compress: called with each data set before it is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps, spacing, axes = _lps(affine)
    uid = attributes.pop("SeriesInstanceUID", None) or generate_uid()
    depth = array.shape[2]
    for k in range(depth):
        more = {
            "SeriesInstanceUID": uid,
            "SeriesNumber": number,
            "InstanceNumber": first + k,
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "AcquisitionDate": "20260102",
            "AcquisitionTime": f"10{number % 60:02d}00",
            # rows of the file run along X: the first cosines are those of rising X, the second of rising Y
            "ImagePositionPatient": [f"{v:.6f}" for v in lps[:3] @ [0, 0, k, 1]],
            "ImageOrientationPatient": [f"{v:.8f}" for v in (*axes[:, 0], *axes[:, 1])],
            "PixelSpacing": [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"],
            "SliceThickness": f"{spacing[2]:.6f}",
            **attributes,
            **(each(k) if each else {}),
        }
        path = folder / f"s{number:03d}-{900 - first - k}.dcm"
        data = _new(path, MRImageStorage, generate_uid(), more)
        data.Columns, data.Rows = array.shape[:2]
        _pixels(data, array[:, :, k].T, bits, signed)
        if compress:
            compress(data)
        data.save_as(path, enforce_file_format=True)
    return folder


def _item(**attributes):
    data = Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return Sequence([data])


def write_enhanced(path, array, affine, order=None, rescale=None, groups=None, number=1, signed=False, **attributes):
    """`array` (X, Y, Z) of stored values as one enhanced MR file (PS3.3 A.36.2), its frames in `order`.

    rescale: slice -> (slope, intercept), in the frame's own group. groups: slice -> more groups of that frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lps, spacing, axes = _lps(affine)
    order = [int(k) for k in (range(array.shape[2]) if order is None else order)]
    more = {
        "SeriesInstanceUID": generate_uid(),
        "SeriesNumber": number,
        "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "NumberOfFrames": len(order),
        **attributes,
    }
    data = _new(path, EnhancedMRImageStorage, generate_uid(), more)
    shared = Dataset()
    row_spacing, column_spacing = f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"
    shared.PixelMeasuresSequence = _item(PixelSpacing=[row_spacing, column_spacing], SliceThickness=f"{spacing[2]:.6f}")
    cosines = [f"{v:.8f}" for v in (*axes[:, 0], *axes[:, 1])]
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=cosines)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=[f"{v:.6f}" for v in lps[:3] @ [0, 0, k, 1]])
        frame.FrameContentSequence = _item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
        if rescale:
            slope, intercept = rescale(k)
            frame.PixelValueTransformationSequence = _item(
                RescaleSlope=str(slope), RescaleIntercept=str(intercept), RescaleType="US"
            )
        for name, values in (groups(k) if groups else {}).items():
            setattr(frame, name, _item(**values))
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.Columns, data.Rows = array.shape[:2]
    _pixels(data, np.stack([array[:, :, k].T for k in order]), 16, signed)
    data.save_as(path, enforce_file_format=True)
    return path
