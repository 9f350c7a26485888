"""Large tensors of a case lie in huge pages, in a command and in the worker: torch reads the wish once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COMMAND = """
from segmamba.cli import main
assert main(["predict", "nowhere", "--output", "out"]) == 1
"""
WORKER = """
from unittest import mock
from segmamba.worker import __main__ as worker
with mock.patch.object(worker, "Server"):
    worker.main()
"""
LARGE = """
import torch
large = torch.ones(64 << 18)
with open("found.txt", "w") as file:
    file.writelines(line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))
"""


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="nobody is asked here")
@pytest.mark.parametrize("program", [COMMAND, WORKER], ids=["command", "worker"])
@pytest.mark.parametrize(("asked", "there"), [(None, True), ("0", False)])
def test_large_tensors_lie_in_huge_pages(tmp_path, program, asked, there):
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if asked:
        environment["THP_MEM_ALLOC_ENABLE"] = asked
    line = [sys.executable, "-c", program + LARGE]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kilobytes,) = re.findall(r"AnonHugePages: *(\d+) kB", (tmp_path / "found.txt").read_text())
    assert (int(kilobytes) >= 2048) == there  # one page at least: memory may be in pieces
