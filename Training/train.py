"""Train a network: `python Training/train.py CONFIG.toml [--set steps=100] [--resume]`; see Training/configs."""

import sys

from segmamba.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
