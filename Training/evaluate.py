"""Score label maps: `python Training/evaluate.py PREDICTIONS TRUTHS [--json]`."""

import sys

from segmamba.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
