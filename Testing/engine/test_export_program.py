"""A model as a program of torch.export: it needs no engine, and gives the model's logits."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from export_packages import GLIOMA_SPEC, SMALL, package
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.export.bundle import export_model
from segmamba.export.program import PROGRAM
from segmamba.models.package import load_package
from segmamba.networks.segmamba import SegMamba

# a recorded network, in a Python that has no segmamba
LOAD = """
import sys, torch
sys.modules["segmamba"] = None
with torch.no_grad():
    logits = torch.export.load(sys.argv[1]).module()(torch.load(sys.argv[2], weights_only=True))
torch.save(logits, sys.argv[2])
"""


def test_a_recorded_network_gives_the_logits_of_the_model(tmp_path):
    """Those of the model with its fast kernels, and the recorded one needs no engine."""
    torch.manual_seed(2)
    window = (32, 32, 32)
    network = SegMamba(replace(SMALL, depths=(1, 0, 0, 1)))  # scans of 4096 tokens, and of 8
    source = package(tmp_path / "m", network, GLIOMA_SPEC, window)
    assert main(["export", str(source), "--format", "torch-export", "--output", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", PROGRAM, "model.json"}
    image = torch.randn(1, 4, *window)
    torch.save(image, tmp_path / "image.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "out" / PROGRAM), str(tmp_path / "image.pt")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = load_package(source).network(image)
    logits = torch.load(tmp_path / "image.pt", weights_only=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert "t2w, t2f, t1n, t1c" in (tmp_path / "out" / "README.md").read_text()


def test_a_network_that_cannot_be_recorded_is_named(tmp_path, tiny_model, monkeypatch):
    def depends_on_values(self, x):
        return x[:, :1] if x.sum() > 0 else x

    monkeypatch.setattr(SegMamba, "forward", depends_on_values)
    with pytest.raises(InputError, match=r"cannot record the network of .*tiny.*monai-bundle takes every"):
        export_model(tiny_model, tmp_path / "out", "torch-export")
    assert not list(tmp_path.iterdir())
