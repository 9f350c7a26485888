"""Synthetic four-modality brain-tumour cases with real anatomy and exact labels.

The anatomy is that of the MNI152 T1, grey- and white-matter maps that ship inside the package nilearn, deformed at
random; tissue contrasts are drawn at random around those of real scans, as SynthSeg does (Billot et al. 2023); into it
grows a tumour. Nothing here is patient data.

`make_phantom` draws a case, `save_phantom` writes it under BraTS 2023 names.
"""

from segmamba.datasets.phantom.case import Phantom, make_phantom, save_phantom

__all__ = ["Phantom", "make_phantom", "save_phantom"]
