"""Files as several programs share them.

Written aside and renamed (`atomic`), on disks and network shares (`shares`), known by what is in them (`digest`), never
over what is of other images (`place`).

aside    under a hidden name beside its place, until it is whole
share    a folder that other programs, on other machines, write to at the same time
"""
