"""DICOM: the four series of a case among many, and their voxels.

find    the series in a folder tree, each with its geometry, and which modality it is likely to be
choose  the four of a case, or why they cannot be told
read    one series to voxels and an affine
folder  the one volume in a folder that was given as an image
"""

from segmamba.images.dicom.choose import Choice, choose_four, doubt
from segmamba.images.dicom.find import Series, find_series
from segmamba.images.dicom.folder import find_in_folder, read_folder
from segmamba.images.dicom.read import read_series

__all__ = [
    "Choice",
    "Series",
    "choose_four",
    "doubt",
    "find_in_folder",
    "find_series",
    "read_folder",
    "read_series",
]
