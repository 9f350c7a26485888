"""What stands behind the SegMamba panel: each part works from Slicer's Python console, without the panel.

engine    finding a Python, starting the engine as a child process and talking to it
volumes   which volume is which, whether they fit together, and their way to files and back
results   segments, volumes in mL, diameters, uncertainty, and what there was before
learning  corrected cases, the site's folder, its runs, verdicts on models
panel     one file a section of the panel
run       one segmentation, from the volumes in the scene to the segments in the scene
"""
