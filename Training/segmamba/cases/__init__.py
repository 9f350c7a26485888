"""Cases: the images of one examination on one grid, and label maps with what their values mean.

modality     t1n, t1c, t2w, t2f: what an image shows; passed by name, never by position
case         one image a modality, all on one grid
label map    uint8 on the grid of its case: 0 background, 1 NCR, 2 ED, 3 ET, whatever convention a file had
region       labels taken together: WT = 1+2+3, TC = 1+3, ET = 3
incomplete   a case of which a modality is missing
"""
