"""SegMamba: brain-tumour segmentation with tri-orientated Mamba, from image files to a label map.

Words used everywhere
---------------------
modality   ``t1n``, ``t1c``, ``t2w``, ``t2f``: always by name, never by position.
case       the four images of one examination on one grid, indexed (X, Y, Z) as stored, with an
           affine from voxel indices (voxel centres) to RAS millimetres.
tensor     (C, D, H, W) float32 in the orientation and spacing that the model's manifest asks for.
label map  0 background, 1 NCR (necrotic core), 2 ED (oedema), 3 ET (enhancing tumour).
region     WT = NCR + ED + ET, TC = NCR + ET, ET.
"""

__version__ = "0.1.0"
