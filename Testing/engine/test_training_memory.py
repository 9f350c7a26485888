"""Where a training's tensors lie; that without the wish they would not lie there is in test_huge_pages.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# The command as it is; after each step, with the batch still there, what the process has in huge pages
PROGRAM = """
from segmamba.cli import main
from segmamba.training.loop import Training
from training_runs import narrow_network, without_curves

step = Training._step

def watched(self, batch):
    done = step(self, batch)
    print(next(line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages")))
    return done

Training._step = watched
with narrow_network(), without_curves():
    main(["train", "config.toml", "--run-folder", "run", "--device", "cpu"])
"""
CONFIG = """
name = "a"
steps = 1
batch = 2
patch = [48, 48, 48]
precision = "fp32"
cache = "{cache}"

[preprocess]
modalities = ["t1n", "t1c", "t2w", "t2f"]
spacing = [4.0, 4.0, 4.0]

[[sources]]
dataset = "{dataset}"
"""


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="nobody is asked here")
def test_large_tensors_of_a_training_lie_in_huge_pages(tmp_path, phantom_dataset, training_cache):
    """A batch is 3.5 MB of images, and as much of labels."""
    text = CONFIG.format(cache=training_cache.as_posix(), dataset=Path(phantom_dataset.folder).as_posix())
    (tmp_path / "config.toml").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    line = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    (kilobytes,) = re.findall(r"AnonHugePages: *(\d+) kB", found.stdout)
    assert int(kilobytes) >= 2048  # one page at least: memory may be in pieces
