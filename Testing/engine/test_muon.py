"""Muon against torch's own, what it leaves to AdamW, and a state that is gone on with."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from segmamba.networks.presets import preset_config
from segmamba.networks.segmamba import SegMamba
from segmamba.training.config import OptimizerConfig
from segmamba.training.muon import MATRICES, Muon, is_matrix, orthogonal
from segmamba.training.optimize import build_optimizer


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_singular_values_become_about_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before, after = (torch.linalg.svd(x, full_matrices=False) for x in (matrix, orthogonal(matrix)))
    assert before.S.max() > 2 * before.S.min()
    assert after.S.min() > 0.6 and after.S.max() < 1.3
    along = before.U.T @ orthogonal(matrix) @ before.Vh.T  # the directions stay
    torch.testing.assert_close(along, torch.diag(along.diagonal()), rtol=0, atol=1e-4)


def test_nothing_stays_nothing():
    assert not orthogonal(torch.zeros(9, 9)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_the_steps_are_those_of_torchs_muon():
    """Which takes matrices alone, and rounds to bfloat16."""
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(24, 40, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    muon = Muon([{"params": [ours], MATRICES: True}], lr=0.02, weight_decay=0.1)
    known = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(24, 40, generator=generator)
        theirs.grad = ours.grad.clone()
        muon.step()
        known.step()
    moved = (theirs - start).detach()
    assert (ours - theirs).norm() < 0.02 * moved.norm() and moved.norm() > 0.1


@pytest.mark.parametrize("decay_all", [False, True])
def test_the_rest_is_adamws_to_the_bit(decay_all):
    network = SegMamba(preset_config("quick"))
    other = copy.deepcopy(network)
    config = OptimizerConfig(name="muon", learning_rate=1e-3, weight_decay=0.1, decay_all=decay_all)
    muon, adamw = build_optimizer(network, config), build_optimizer(other, replace(config, name="adamw"))
    by_muon = {id(p) for p in muon.param_groups[0]["params"]}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for number, (ours, theirs) in enumerate(zip(network.parameters(), other.parameters(), strict=True)):
        generator = torch.Generator().manual_seed(number)
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
    muon.step()
    adamw.step()
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        assert not ours.equal(before[name]), name
        assert ours.equal(theirs) == (id(ours) not in by_muon), name
    sizes = [p.numel() for p in network.parameters()]
    assert sum(p.numel() for p in network.parameters() if id(p) in by_muon) > 0.97 * sum(sizes)
    names = {name for name, p in network.named_parameters() if id(p) in by_muon}
    assert not any("A_" in name or "conv1d" in name or name.startswith("out.") for name in names)


def test_a_convolution_is_a_matrix_in_any_format():
    steps = []
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        weight = torch.randn(16, 8, 3, 3, 3, generator=torch.Generator().manual_seed(5))
        parameter = torch.nn.Parameter(weight.clone(memory_format=memory_format))
        assert is_matrix(parameter)
        optimizer = Muon([{"params": [parameter], MATRICES: True}], lr=0.01, weight_decay=0)
        parameter.grad = weight.flip(1).contiguous(memory_format=memory_format)
        optimizer.step()
        steps.append((parameter.detach() - weight).reshape(16, -1))
    torch.testing.assert_close(*steps)
    values = torch.linalg.svdvals(steps[0]) / (0.01 * 0.2 * 216**0.5)
    assert values.min() > 0.6 and values.max() < 1.3


def test_its_state_is_gone_on_with_from_a_checkpoint(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv3d(8, 16, 3), torch.nn.Conv3d(16, 2, 1))
    config = OptimizerConfig(name="muon", learning_rate=1e-2)

    def step(network, optimizer, seed):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        optimizer.step()

    optimizer = build_optimizer(network, config)
    step(network, optimizer, 1)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(network)
    again = build_optimizer(other, config)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for at_work in ((network, optimizer), (other, again)):
        step(*at_work, 2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
