"""Score label maps: `python Training/evaluate.py PREDICTIONS TRUTHS [--json] [--csv FILE]`."""

import sys

from segmamba.cli import script

if __name__ == "__main__":  # processes that --jobs starts import this file again
    sys.exit(script(["evaluate", *sys.argv[1:]]))
