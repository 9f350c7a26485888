"""Brain extraction: which voxels of a head with its skull on are brain.

Works with nothing to download: the MNI152 brain inside the package nilearn is laid over the head (`template`, `pose`,
`warp`), and its edge moved to where the image shows one (`refine`). HD-BET or SynthStrip do it instead where one of
them is installed (`external`).

`brain_mask` is the door.
"""

from segmamba.preparation.brain.mask import METHODS, BrainMask, brain_mask

__all__ = ["METHODS", "BrainMask", "brain_mask"]
