"""Images as they lie on a disk: one 3-D volume and where it is in the patient.

volume       an array indexed (X, Y, Z) as it is stored
affine       4x4, from voxel indices (of voxel centres) to RAS mm
grid         shape and affine together; two images are on one grid where the corners agree within a tolerance
source       where an image is: a file, one volume of a 4-D file, or a folder of DICOM slices
series       DICOM slices that belong together
"""
