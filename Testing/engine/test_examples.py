"""The examples in the docstrings of the engine's entry points, run as they stand."""

import doctest
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from segmamba.learning import gate
from segmamba.models.package import load_package, save_package
from segmamba.prediction import predict
from segmamba.training import loop
from segmamba.worker import server

CONFIGURATION = """
name = "example"
patch = [32, 32, 32]
steps = 2
precision = "fp32"
cache = {cache!r}

[preprocess]
modalities = ["t1n", "t1c", "t2w", "t2f"]
spacing = [4.0, 4.0, 4.0]

[network]
features = [4, 4, 8, 8]
full_features = 4
bottleneck = 8
depths = [1, 1, 1, 1]

[validation]
at_start = false

[[sources]]
dataset = {dataset!r}
"""
TRAINING = Path(server.__file__).resolve().parents[2]


def run_examples(module, name, **given):
    """Runs the examples of one function or class, with these names beside those of its module."""
    (test,) = (
        found
        for found in doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, module, extraglobs=given)
        if found.examples
    )
    runner, said = doctest.DocTestRunner(verbose=False), []
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0


def test_predict_case(phantom_cases, tmp_path):
    run_examples(predict, "predict_case", cases=phantom_cases, folder=tmp_path)


def test_train(phantom_dataset, tmp_path):
    configuration = tmp_path / "example.toml"
    configuration.write_text(CONFIGURATION.format(dataset=phantom_dataset.folder, cache=str(tmp_path / "cache")))
    run_examples(loop, "train", configuration=configuration, folder=tmp_path)


def test_run_gate(tiny_model, phantom_dataset, tmp_path):
    model = load_package(tiny_model)
    with torch.no_grad():  # other answers, real ones
        for parameter in model.network.out.parameters():
            parameter.copy_(parameter.flip(0))
    candidate = tmp_path / "candidate"
    save_package(candidate, model.network, replace(model.manifest, id="candidate", parent="tiny"), "# candidate\n")
    run_examples(gate, "run_gate", candidate=candidate, champion=tiny_model, dataset=Path(phantom_dataset.folder))


def test_the_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TRAINING))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run_examples(server, "Server")


def test_an_example_that_is_wrong_fails():
    def example():
        """A sum.

        >>> 1 + 1
        3
        """

    module = ModuleType("module")
    module.example, example.__module__ = example, "module"
    with pytest.raises(AssertionError, match="Expected"):
        run_examples(module, "example")
