"""Data sets: a folder of cases as a manifest with hashes, checked, and split once by subject.

manifest     dataset.json: the cases, their files with hashes, and what the labels mean
task         which labels and regions are to be found in which modalities
split        training, validation and test cases by subject: written once, never changed, only added to
finding      something wrong with a case, and how to fix it
fingerprint  what the cases have in common
phantom      a synthetic case with real anatomy and exact labels
"""
