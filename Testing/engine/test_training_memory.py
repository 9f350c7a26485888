"""Where a training's tensors lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# What a training does first is replaced by one large tensor; the rest is the command as it is
PROGRAM = """
import re
from pathlib import Path
from unittest import mock
from segmamba.cli import main

def train(*arguments, **options):
    import torch
    large = torch.ones(64 << 18)
    print(re.search(r"AnonHugePages: *([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])
    return Path("model")

with mock.patch("segmamba.training.loop.train", train):
    main(["train", "config.toml", "--run-folder", "run", "--device", "cpu"])
"""


@pytest.mark.skipif(not SETTING.exists() or "[never]" in SETTING.read_text(), reason="no huge pages on this system")
@pytest.mark.parametrize(("asked", "there"), [(None, True), ("0", False)])
def test_large_tensors_of_a_training_lie_in_huge_pages(tmp_path, asked, there):
    (tmp_path / "config.toml").write_text('name = "a"\n[[sources]]\ndataset = "cases"\n')
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if asked:
        if "[always]" in SETTING.read_text():
            pytest.skip("this system gives huge pages to everybody")
        environment["THP_MEM_ALLOC_ENABLE"] = asked
    line = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (int(found.stdout.splitlines()[0]) >= 2048) == there  # one page at least: memory may be in pieces
