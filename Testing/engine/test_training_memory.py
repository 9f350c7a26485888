"""Where a training's tensors lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import re
from segmamba.commands import train
from segmamba.training import loop
import torch
large = torch.ones(64 << 18)
print(re.search(r"AnonHugePages: *([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])
"""


@pytest.mark.skipif(not SETTING.exists() or "[never]" in SETTING.read_text(), reason="no huge pages on this system")
@pytest.mark.parametrize(("asked", "there"), [(None, True), ("0", False)])
def test_large_tensors_of_a_training_lie_in_huge_pages(asked, there):
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if asked:
        if "[always]" in SETTING.read_text():
            pytest.skip("this system gives huge pages to everybody")
        environment["THP_MEM_ALLOC_ENABLE"] = asked
    found = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert (int(found.stdout) >= 2048) == there  # one page at least: memory may be in pieces
