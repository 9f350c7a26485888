"""Raw clinical images made ready for a network, and its result brought back to where they were taken.

`make_plan` says what has to be done and why: images on other grids are registered rigidly onto T1c, the brain is cut
out of a head, thick slices are worked on at 1 mm in T1c's own frame. `prepare` does it. Images that lie on one grid, on
one another and without a skull need nothing, and are not touched.
"""

from segmamba.prepare.grids import Grid
from segmamba.prepare.plan import Action, Plan, make_plan
from segmamba.prepare.run import Prepared, prepare
from segmamba.prepare.steps import Step

__all__ = ["Action", "Grid", "Plan", "Prepared", "Step", "make_plan", "prepare"]
