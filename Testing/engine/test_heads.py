"""The two output heads, against a loop over voxels and against each other."""

import numpy as np
import pytest
import torch
from segmamba.cases.labels import GLIOMA, LabelScheme, to_regions
from segmamba.errors import InputError
from segmamba.models.specs import InferenceSpec
from segmamba.networks.heads import (
    count_channels,
    label_probabilities,
    nested_labels,
    region_shares,
    regions_from_labels,
)
from segmamba.prediction.postprocess import to_label_map
from segmamba.prediction.windows import predict
from segmamba.training.optimize import HeadLoss
from torch.nn.functional import one_hot

NESTED = (2, 1, 3)  # of gliomas: ED, NCR, ET


def test_the_labels_that_regions_of_gliomas_add():
    assert nested_labels(GLIOMA) == NESTED
    assert count_channels(3, NESTED) == 3
    assert count_channels(3, ()) == 4


@pytest.mark.parametrize(
    "regions",
    [
        {"WT": ("NCR", "ED", "ET"), "ET": ("ET",)},  # ET adds one, WT two
        {"A": ("NCR", "ED"), "B": ("ED", "ET"), "C": ("ET",)},  # not nested
        {"WT": ("NCR", "ED"), "TC": ("NCR",)},  # ET is in none
        {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",), "same": ("ET",)},
    ],
)
def test_regions_that_no_head_can_have(regions):
    with pytest.raises(InputError, match="use head = 'labels'"):
        nested_labels(LabelScheme(labels=GLIOMA.labels, regions=regions))


@pytest.mark.parametrize(
    ("regions", "labels"),
    [
        ((0.9, 0.6, 0.7), (0.1, 0.0, 0.3, 0.6)),  # ET is limited to TC
        ((0.5, 0.9, 0.7), (0.5, 0.0, 0.0, 0.5)),  # both are limited to WT
        ((0.9, 0.6, 0.2), (0.1, 0.4, 0.3, 0.2)),
    ],
)
def test_regions_become_probabilities_of_labels(regions, labels):
    """WT, TC, ET -> background, NCR, ED, ET."""
    logits = torch.logit(torch.tensor(regions)).reshape(1, 3, 1, 1, 1)
    found = label_probabilities(logits, NESTED).flatten()
    torch.testing.assert_close(found, torch.tensor(labels))


def test_probabilities_of_any_logits_sum_to_1_and_none_is_negative():
    logits = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1)) * 20
    found = label_probabilities(logits, NESTED)
    assert found.shape == (2, 4, 4, 5, 6)
    assert float(found.min()) >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(2, 4, 5, 6))


def test_shares_of_labels_become_shares_of_regions():
    label_map = np.random.default_rng(2).integers(0, 4, (3, 4, 5))
    shares = one_hot(torch.from_numpy(label_map), 4).movedim(-1, 0)[None].float()
    expected = [to_regions(label_map)[region] for region in ("WT", "TC", "ET")]
    np.testing.assert_array_equal(region_shares(shares, NESTED)[0].numpy(), np.stack(expected))


def test_a_label_map_region_by_region():
    """0.4 ED, 0.35 ET, 0.25 background: no label has half, all of them together do. Argmax calls the second one ED too,
    though NCR and ET together are likelier."""
    voxels = [[0.25, 0.0, 0.4, 0.35], [0.1, 0.3, 0.35, 0.25], [0.51, 0.0, 0.49, 0.0]]
    probabilities = np.array(voxels).T[..., None, None]
    assert to_label_map(probabilities, NESTED).ravel().tolist() == [2, 1, 0]
    assert to_label_map(probabilities).ravel().tolist() == [2, 2, 0]


@pytest.mark.parametrize("name", ["ce", "dice_ce"])
def test_the_loss_of_regions_is_least_where_they_are_right(name):
    label_map = torch.randint(0, 4, (2, 6, 6, 6), generator=torch.Generator().manual_seed(3))
    shares = one_hot(label_map, 4).movedim(-1, 1).float()
    right = (region_shares(shares, NESTED) * 2 - 1) * 12
    loss_of = HeadLoss(name, NESTED)
    assert float(loss_of(right, shares)) < 1e-3
    for channel in range(3):
        wrong = right.clone()
        wrong[:, channel] *= -1
        assert float(loss_of(wrong, shares)) > 1


def test_the_cross_entropy_of_regions_by_hand():
    logits = torch.tensor([2.0, -1.0, 0.5]).reshape(1, 3, 1, 1, 1)
    shares = torch.tensor([0.2, 0.1, 0.3, 0.4]).reshape(1, 4, 1, 1, 1)
    target, p = np.array([0.8, 0.5, 0.4]), 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))
    expected = -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))
    assert float(HeadLoss("ce", NESTED)(logits, shares)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("label", "regions"), [(0, [0, 0, 0]), (2, [1, 0, 0]), (1, [1, 1, 0]), (3, [1, 1, 1])])
def test_a_head_of_labels_goes_on_as_one_of_regions(label, regions):
    """Where a "labels" head is sure of a label, the head made of it has that label's regions and no others."""
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(4))
    wanted = one_hot(torch.tensor(label), 4).float() * 30
    features = torch.linalg.lstsq(weight, wanted).solution
    torch.testing.assert_close(weight @ features, wanted, atol=1e-4, rtol=0)
    assert (regions_from_labels(weight, NESTED) @ features > 0).int().tolist() == regions


def test_inference_gives_label_probabilities_of_a_head_of_regions():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return torch.logit(torch.tensor([0.9, 0.6, 0.2])).reshape(1, 3, 1, 1, 1).expand(len(x), 3, *x.shape[2:])

    spec = InferenceSpec(window=(32, 32, 32), nested=NESTED)
    found = predict(Fixed(), torch.zeros(1, 40, 32, 32), spec, mirrorings=1).probabilities
    assert found.shape == (4, 40, 32, 32)
    torch.testing.assert_close(found[:, 20, 3, 3], torch.tensor([0.1, 0.4, 0.3, 0.2]))


@pytest.mark.parametrize("nested", [(1, 1, 2), (0, 1, 2), (2, 3)])
def test_a_head_that_names_no_labels(nested):
    with pytest.raises(InputError, match="must be the labels 1 to"):
        InferenceSpec(nested=nested)
