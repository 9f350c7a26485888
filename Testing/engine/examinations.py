"""The four series of an examination as DICOM files, and what is found among them."""

from dicom_files import head, write_series
from segmamba.images.dicom import find_series

SMALL = (8, 8, 13)
SPACING = (10.0, 10.0, 6.0)
T1 = {"ScanningSequence": "SE", "RepetitionTime": "550", "EchoTime": "12"}
T2 = {"ScanningSequence": "SE", "RepetitionTime": "4500", "EchoTime": "98"}
FLAIR = {"ScanningSequence": ["SE", "IR"], "RepetitionTime": "9000", "EchoTime": "120", "InversionTime": "2500"}


def add(root, number, description, times, shape=SMALL, spacing=SPACING, **attributes):
    array, affine = head(shape, spacing, seed=number)
    write_series(root, array, affine, number, SeriesDescription=description, **times, **attributes)


def four(root, **attributes):
    add(root, 3, "T1 SE tra", T1, **attributes)
    add(root, 4, "T2 TSE tra", T2, **attributes)
    add(root, 5, "FLAIR tra", FLAIR, **attributes)
    add(root, 9, "T1 SE tra KM", T1, ContrastBolusAgent="Gadovist", **attributes)


def by_name(root):
    return {series.name: series for series in find_series(root)}


def names(choices):
    return {modality: choice.series.name for modality, choice in choices.items()}
