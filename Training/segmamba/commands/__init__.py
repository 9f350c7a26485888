"""The commands of the command line, one file each: `add` describes a command to the parser, `run` does it.

Heavy libraries are imported where they are used, so that `segmamba --help` answers at once.
"""
