"""Train a network: `python Training/train.py CONFIG.toml [--set steps=100] [--resume]`; see Training/configs."""

import sys

from segmamba.cli import main

if __name__ == "__main__":  # a training starts processes, which import this file
    sys.exit(main(["train", *sys.argv[1:]]))
