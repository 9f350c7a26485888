"""Deep supervision: outputs where the decoder has its levels, their share of the loss, and a model without them."""

from dataclasses import replace

import pytest
import torch
from segmamba.errors import InputError
from segmamba.models.package import load_package
from segmamba.networks.baselines import BaselineConfig, build_baseline
from segmamba.networks.deep import DeepSupervision, level_weights
from segmamba.networks.segmamba import NetworkConfig, SegMamba
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.loop import train
from segmamba.training.optimize import HeadLoss, level_loss
from training_runs import narrow_network, small_config

NARROW = NetworkConfig(features=(4, 6, 8, 10), full_features=4, bottleneck=12, depths=(1, 1, 1, 1))


@pytest.mark.parametrize("name", ["segmamba", "nnunet", "umamba-bot"])
def test_outputs_are_on_halved_grids(name):
    torch.manual_seed(0)
    side = 32 if name == "segmamba" else 64
    network = SegMamba(NARROW) if name == "segmamba" else build_baseline(BaselineConfig(name=name, width=2))
    deep = DeepSupervision(network, 4)
    x = torch.randn(1, 4, side, side, 32)
    outputs = deep(x)
    assert [tuple(logits.shape[1:]) for logits in outputs] == [(4, side // n, side // n, 32 // n) for n in (1, 2, 4, 8)]
    torch.testing.assert_close(outputs[0], network(x))
    sum(logits.square().mean() for logits in outputs[1:]).backward()
    assert all(p.grad is not None and p.grad.any() for head in deep.heads for p in head.parameters())
    assert set(network.state_dict()) == {
        key.removeprefix("network.") for key in deep.state_dict() if "heads" not in key
    }


def test_weights_are_halved_and_sum_to_one():
    assert level_weights(4) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15]) and level_weights(1) == [1]


def test_the_loss_is_the_weighted_one_of_each_level():
    draw = torch.Generator().manual_seed(1)
    shares = torch.softmax(3 * torch.randn((2, 4, 8, 8, 16), generator=draw), 1)
    fine, coarse = torch.randn((2, 4, 8, 8, 16), generator=draw), torch.randn((2, 4, 4, 4, 8), generator=draw)
    loss_of = HeadLoss("dice_ce")
    assert level_loss(loss_of, fine, shares) == loss_of(fine, shares)
    means = shares.unflatten(2, (4, 2)).unflatten(4, (4, 2)).unflatten(6, (8, 2)).mean((3, 5, 7))
    expected = (2 * loss_of(fine, shares) + loss_of(coarse, means)) / 3
    torch.testing.assert_close(level_loss(loss_of, [fine, coarse], shares), expected)


def test_another_decoder_is_refused_by_name():
    network = build_baseline(BaselineConfig(name="transbts", width=8, patch=(16, 16, 16)))
    with pytest.raises(InputError, match="deep_supervision is for segmamba, nnunet and umamba, not for transbts"):
        DeepSupervision(network, 4)


def test_a_model_is_released_without_the_outputs_and_a_run_goes_on_with_them(phantom_dataset, tmp_path):
    config = small_config(phantom_dataset.folder, tmp_path / "cache", deep_supervision=True)
    with narrow_network():
        whole = load_package(train(config, tmp_path / "whole")).network.state_dict()
        train(replace(config, steps=2), tmp_path / "parts")
        plain = load_package(train(replace(config, deep_supervision=False), tmp_path / "plain")).network.state_dict()
        assert set(whole) == set(plain) and any(not torch.equal(whole[name], plain[name]) for name in whole)
        heads = load_checkpoint(tmp_path / "parts")[0]["heads"]
        assert len(heads) == 6 and all(torch.isfinite(t).all() for t in heads.values())
        with pytest.raises(InputError, match="another network or optimizer"):
            train(replace(config, deep_supervision=False), tmp_path / "parts", resume="auto")
