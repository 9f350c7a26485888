"""Corrected cases: written into a shared folder, examined, and made a data set to train on. The files: FORMAT.md.

submission   a corrected case in a folder of corrections; `record` reads and checks its case.json
write        puts one there
preview      what intake would say of one before it is sent
intake       examines the new ones and updates the data set
finding      something that is wrong with one, doubtful or worth a note

Nothing is imported here, so that asking how a folder stands costs little.
"""
