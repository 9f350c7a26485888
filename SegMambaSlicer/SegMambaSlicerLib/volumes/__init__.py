"""Volumes of the scene: which is which modality, whether they can be segmented together, and their way to files.

modality     t1n, t1c, t2w, t2f
check        a problem with a volume, or a note about it
exchange     volumes to NIfTI as Slicer shows them, and images from files back to a volume's grid (`scene`)
"""
