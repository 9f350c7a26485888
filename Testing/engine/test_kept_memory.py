"""While a network runs on the CPU what it frees is kept for its next tensor; afterwards the system has it back."""

import json
import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import json
import resource
import torch
from segmamba.models.specs import InferenceSpec
from segmamba.prediction.windows import predict

def touch(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

class Network(torch.nn.Module):
    def forward(self, x):
        found["within"] = [touch(64) for _ in range(40)]  # some, for small things may come to lie between
        found["held"] = held()
        return x

found = {}
predict(Network(), torch.zeros(4, 32, 32, 32), InferenceSpec(window=(32, 32, 32), bf16=False))
found["given_back"] = found["held"] - held()
found["after"] = [touch(1024) for _ in range(3)]  # more than any gap that the pass may have left in the heap
print(json.dumps(found))
"""
PAGES = 16384  # of 4 kB, in 64 MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_a_network_frees_is_used_again(tmp_path):
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0"}  # pages are counted
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["within"][0] > PAGES // 2
    assert found["within"][-1] < 100
    assert found["given_back"] > 50
    assert min(found["after"]) > 16 * PAGES // 2  # as it was
