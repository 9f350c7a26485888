"""Synthetic four-modality brain-tumour cases with real anatomy and exact labels.

The anatomy is that of the MNI152 T1, grey- and white-matter maps that ship inside the package nilearn, deformed at
random; tissue contrasts are drawn at random around those of real scans, as SynthSeg does (Billot et al. 2023); into it
grows a tumour, or one of a real label map is placed. Nothing else here is patient data.

`make_phantom` draws a case, `save_phantom` writes it under BraTS 2023 names; `make_raw` puts a head around it and looks
at it as a scanner does, `save_raw` writes that.
"""

from segmamba.datasets.phantom.case import Phantom, make_phantom, save_phantom
from segmamba.datasets.phantom.raw import RawPhantom, make_raw, save_raw
from segmamba.datasets.phantom.shapes import Shape, read_shapes

__all__ = ["Phantom", "RawPhantom", "Shape", "make_phantom", "make_raw", "read_shapes", "save_phantom", "save_raw"]
