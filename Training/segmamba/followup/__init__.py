"""One patient at several dates: lesions measured in slices and volume, followed from date to date, compared.

diameters  the two diameters of a lesion, as lines inside it
lesions    the lesions of one label map
dates      a date's label map with its T1c, from a file, a case folder or DICOM
match      which lesion of a later date is which of the first
criteria   sums, changes, and the category that the numbers are compatible with
rounding   how exact a number is printed beside a limit
burden     what the lesions of one region amount to, and are compatible with
spread     how far the numbers move with the border of the segmentation
by_hand    lines that a person has moved, and what images do not say
follow     all of it for a patient
record     as JSON and CSV
content    what a report says, for a page and for paper; page, paper
structured as a DICOM Structured Report
"""
