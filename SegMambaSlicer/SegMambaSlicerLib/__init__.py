"""What stands behind the SegMamba panel: each part works from Slicer's Python console, without the panel.

modalities  which volume is which, and whether the four fit together
scene       volumes to files, and what comes back to the volumes' own grid
segments    labels and regions as editable segments, with what they were before
results     volumes in mL, diameters, uncertainty, and where to look
"""
