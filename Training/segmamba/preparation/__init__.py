"""Raw clinical images made ready for a network, and its result brought back to where they were taken.

`plan.make_plan` says what has to be done and why: images on other grids are registered rigidly onto T1c, the brain is
cut out of a head, thick slices are worked on at 1 mm in T1c's own frame. `run.prepare` does it. Images that lie on one
grid, on one another and without a skull need nothing, and are not touched.

plan         the actions that the images of a case need, each with its reason
step         one action done, with a record of it
brain        the mask of what is not skull or scalp
bias field   smooth shading by the coil
look         what came in and what will be done to it, in plain words
"""
