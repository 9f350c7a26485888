"""DICOM: the four series of a case among many, their voxels, and the result as DICOM SEG on the clinician's own images.

find    the series in a folder tree, each with its geometry, and which modality it is likely to be
choose  the four of a case, or why they cannot be told
read    one series to voxels and an affine
folder  the one volume in a folder that was given as an image
seg     a label map to a DICOM SEG that refers to the slices it lies on
"""

from segmamba.dicom.choose import Choice, choose_four
from segmamba.dicom.find import Series, find_series
from segmamba.dicom.folder import read_folder
from segmamba.dicom.read import read_series
from segmamba.dicom.seg import ModelFacts, check_seg, write_seg

__all__ = [
    "Choice",
    "ModelFacts",
    "Series",
    "check_seg",
    "choose_four",
    "find_series",
    "read_folder",
    "read_series",
    "write_seg",
]
