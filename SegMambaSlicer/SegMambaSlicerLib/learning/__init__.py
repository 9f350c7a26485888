"""Corrections and what becomes of them: cases that are sent, the site's folder, its runs, verdicts on models.

correction   a corrected case on its way into the site's folder, with a person's consent
site         the folder of a clinic, here or on a server
run          one improvement of the model, followed by its files
verdict      what the gate found about a candidate
"""
