"""What the engine and the panel in Slicer judge by the same rules. Each file here is loaded by both.

The panel may not import the engine, so it loads these files by their path (SegMambaSlicerLib/engine/shared.py). They
use the standard library and numpy alone, import nothing of the engine, and keep to the syntax of Python 3.9.

contrast words   what a name or a description says of contrast agent
exchange         two images of a case that were given in each other's place
"""
