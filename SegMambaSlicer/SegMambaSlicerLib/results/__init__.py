"""What was found, in the scene: segments, their numbers, uncertainty, and what there was before.

label        NCR, ED, ET: one beside the other; region: WT, TC, ET: one in another
structure    a label or region with its name, colour and codes (`vocabulary`)
mask         a segment as an array on the reference geometry
history      the model's own answer beside the corrected one, and what a result was made from
succession   results before and after the one that is shown
"""
