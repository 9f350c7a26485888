"""Optimizers, learning rates, precision: what decays, what warms up, what falls to zero, and where bf16 is used."""

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from monai.losses import DiceLoss
from segmamba.networks.heads import region_shares
from segmamba.networks.presets import preset_config
from segmamba.networks.segmamba import SegMamba
from segmamba.training.config import OptimizerConfig
from segmamba.training.optimize import HeadLoss, average_of, build_optimizer, learning_rate, parameter_groups


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_learning_rate_warms_up_and_falls_to_zero(schedule):
    config = OptimizerConfig(learning_rate=3e-3, warmup=10, schedule=schedule)
    rates = [learning_rate(step, 100, config) for step in range(1, 101)]
    assert rates[0] == pytest.approx(3e-4) and max(rates) == rates[9] == rates[10] == pytest.approx(3e-3)
    assert all(a > b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 1e-4


def test_schedules_are_those_of_their_names():
    poly = OptimizerConfig(learning_rate=1e-2, warmup=0)
    cosine = OptimizerConfig(learning_rate=1e-2, warmup=0, schedule="cosine")
    for step in (1, 250, 999):
        done = (step - 1) / 1000
        assert learning_rate(step, 1000, poly) == pytest.approx(1e-2 * (1 - done) ** 0.9)
        assert learning_rate(step, 1000, cosine) == pytest.approx(5e-3 * (1 + math.cos(math.pi * done)))


def test_scan_parameters_norms_and_biases_do_not_decay():
    network = torch.nn.Sequential(torch.nn.LayerNorm(4), SegMamba(preset_config("quick")))
    decayed, free = parameter_groups(network, 0.1)
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    names = {id(p): name for name, p in network.named_parameters()}
    free_names = {names[id(p)] for p in free["params"]}
    assert all(
        name.endswith("bias") or "norm" in name or name[:2] == "0." or ".A" in name or ".D" in name
        for name in free_names
    )
    assert sum(".A_" in name or name.endswith("_log") for name in free_names) == 12  # 4 layers, 3 directions
    assert len(names) == len(decayed["params"]) + len(free["params"])


def test_the_published_code_decays_everything():
    network = SegMamba(preset_config("quick"))
    decayed, free = parameter_groups(network, 3e-5, decay_all=True)
    assert not free["params"] and len(decayed["params"]) == len(list(network.parameters()))


def test_sgd_is_with_nesterov_momentum_and_adamw_is_adamw():
    network = torch.nn.Linear(2, 2)
    sgd = build_optimizer(network, OptimizerConfig(name="sgd", momentum=0.99))
    assert sgd.defaults["nesterov"] and sgd.defaults["momentum"] == 0.99
    assert isinstance(build_optimizer(network, OptimizerConfig()), torch.optim.AdamW)


def test_averaged_weights_follow_their_decay():
    network = torch.nn.Linear(1, 1, bias=False)
    averages = {decay: average_of(network, decay) for decay in (0.0, 0.5)}
    for value in (1.0, 2.0, 4.0):
        network.weight.data.fill_(value)
        for average in averages.values():
            average.update_parameters(network)
    assert averages[0.0].module.weight.item() == 4.0
    assert averages[0.5].module.weight.item() == (1 * 0.25 + 2 * 0.25 + 4 * 0.5)


CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists(), reason="this system has no /proc/cpuinfo to ask")
@pytest.mark.parametrize(
    ("most", "needs"),
    [("ALL", {"avx512_bf16"}), ("AVX512_CORE_BF16", {"avx512_bf16"}), ("AVX2", None), ("SSE41", None)],
)
def test_bf16_is_used_where_the_cpu_has_it_and_onednn_may_use_it(most, needs):
    """In a process of its own: oneDNN asks the environment once. None: on no CPU."""
    code = """
from segmamba.training.config import SourceConfig, TrainingConfig
from segmamba.training.optimize import uses_bf16
print(uses_bf16(TrainingConfig(name="a", sources=(SourceConfig(dataset="d"),), precision="bf16"), "cpu"))
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": most}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = {word for line in CPUINFO.read_text().splitlines() if line.startswith("flags") for word in line.split()}
    assert done.stdout.strip() == str(needs is not None and needs <= flags)


@pytest.mark.parametrize("nested", [(), (1, 2, 3)])
def test_the_dice_loss_is_monais(nested):
    """A class that is nowhere, and shares between 0 and 1, among them."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3 if nested else 4, 5, 6, 7, generator=generator, dtype=torch.float64)
    shares = torch.rand(2, 4, 5, 6, 7, generator=generator, dtype=torch.float64)
    shares[:, 3] = 0
    shares /= shares.sum(1, keepdim=True)
    target = region_shares(shares, nested) if nested else shares
    probabilities = logits.sigmoid() if nested else logits.softmax(1)
    dice = DiceLoss(include_background=bool(nested))(probabilities, target)
    entropy = torch.nn.BCEWithLogitsLoss() if nested else torch.nn.CrossEntropyLoss()
    expected = dice + entropy(logits, target)
    assert HeadLoss("dice_ce", nested)(logits, shares).item() == pytest.approx(expected.item(), rel=1e-6)
