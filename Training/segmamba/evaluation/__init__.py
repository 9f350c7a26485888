"""Evaluation: how good a segmentation is, how far that can be trusted, and how to show it.

metric       agreement of a predicted mask with the truth: Dice, HD95, NSD, over the image or lesion by lesion
score        a metric of one region of one case
interval     how far a mean over cases can be trusted (bootstrap)
picture      slices through the tumour with the outlines
report       what people look at during and after a training
"""
