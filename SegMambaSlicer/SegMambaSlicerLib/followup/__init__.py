"""One patient at several dates, in the scene: which results there are, measured by the engine, and shown.

dates     the results in the scene with their study dates
measuring the engine asked for diameters, changes and reports
lines     the diameters as markups that can be dragged; what was moved wins
views     two dates side by side, linked; a lesion gone to
chart     sums and volumes over days as a plot
"""
