"""Learning from corrections: what clinicians correct becomes a better model, judged before it is used.

submission   a corrected case as it is sent into the folder of corrections (FORMAT.md)
intake       submissions examined and made a data set
site         the folder of one clinic: submissions, runs, models (SITE.md)
run          one improvement of a site: intake, training, candidate, gate
champion     the model in use; candidate: one that may replace it
gate         the comparison of the two on cases that neither was trained on
registry     the models of a site and which of them is in use
"""
