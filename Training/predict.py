"""Segment a case: `python Training/predict.py CASE --output OUT`; `--help` lists everything."""

import sys

from segmamba.cli import main

sys.exit(main(["predict", *sys.argv[1:]]))
