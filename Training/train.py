"""Train a network: `python Training/train.py CONFIG.toml [--set steps=100] [--resume]`; see Training/configs."""

import sys

from segmamba.cli import script

if __name__ == "__main__":  # a training starts processes, which import this file
    sys.exit(script(["train", *sys.argv[1:]]))
