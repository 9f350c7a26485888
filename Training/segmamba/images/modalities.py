"""The four images of an examination for a glioma, in the order in which everything goes through them."""

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
TITLES = {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"}  # as people call them
