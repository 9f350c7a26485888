"""Prediction: a case to probabilities and a label map on its own grid, from files to files.

preprocess   case -> tensor (C, D, H, W) as the model's manifest wants it, and the way back
window       the box of voxels that the network sees at once; windows overlap, their probabilities are averaged
mirrorings   test-time augmentation: extra passes with flipped axes
scales       test-time augmentation: extra passes on coarser voxels, where the model's manifest asks for them
uncertainty  entropy of the mean probabilities, 0 to 1
postprocess  probabilities -> label map and volumes
"""
