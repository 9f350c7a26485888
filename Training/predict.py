"""Segment a case: `python Training/predict.py CASE --output OUT`; `--help` lists everything."""

import sys

from segmamba.cli import script

sys.exit(script(["predict", *sys.argv[1:]]))
