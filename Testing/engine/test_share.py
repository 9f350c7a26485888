"""How far a candidate goes: weights on a straight line, and of them the best that the anchor cases allow."""

import json
from dataclasses import replace

import pytest
import torch
from segmamba.errors import InputError
from segmamba.learning.gate.comparison import CaseSet, Comparison
from segmamba.learning.gate.rules import Criteria, judge
from segmamba.learning.site.share import SHARES, choose_share
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import PostprocessSpec
from segmamba.networks.segmamba import NetworkConfig, SegMamba
from segmamba.training.interpolation import interpolate, save_between
from test_gate import SPOTS, scored

LIMITS = PostprocessSpec(min_component_mm3={"WT": 1000.0})
TINY = NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def tuned(tiny_model, tmp_path_factory):
    """The tiny model with every weight moved by a known step, as a fine-tuning would leave it."""
    model = load_package(tiny_model)
    with torch.no_grad():
        for number, parameter in enumerate(model.network.parameters()):
            parameter.add_(0.01 * (number + 1))
    training = {"cases": {"a": "b"}}
    manifest = replace(
        model.manifest, id="tuned", parent="tiny", training=training, metrics={"step": 9}, postprocess=LIMITS
    )
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    save_package(folder, model.network, manifest, "# tuned\n")
    return folder


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_on_the_line_between_the_two(tiny_model, tuned, tmp_path, share):
    manifest = save_between(tmp_path / "between", tiny_model, tuned, share)
    states = [load_package(folder).network.state_dict() for folder in (tiny_model, tuned, tmp_path / "between")]
    for name, tensor in states[2].items():
        expected = (1 - share) * states[0][name].double() + share * states[1][name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)
    assert (manifest.id, manifest.parent, manifest.metrics) == ("tuned", "tiny", {})  # these were of other weights
    assert manifest.training == {"cases": {"a": "b"}, "interpolation": {"from": "tiny", "share": share}}
    assert manifest.postprocess == LIMITS  # it is judged as users get its answers


def test_other_networks_have_no_line_between_them():
    torch.manual_seed(1)
    with pytest.raises(InputError, match="two different networks"):
        interpolate(SegMamba(TINY), SegMamba(replace(TINY, full_features=8)), 0.5)


def choose(tiny_model, tuned, folder, lost, gained, local_cases=5, healthy=0):
    """choose_share with a judge that knows what a package of each share loses on 30 anchor cases and gains on local
    ones, beside which `healthy` ones hold no tumour; the share is read from the package.

    -> (share, shares that were asked about).
    """
    asked = []

    def judged(package):
        training = load_package(package).manifest.training
        share = training.get("interpolation", {"share": 1.0})["share"]
        asked.append(share)
        anchor = scored([0.8] * 30), scored([0.8 - lost[share]] * 30)
        free = scored([1.0] * (local_cases + healthy), truth_mm3=0.0)
        local = tuple({**free, **scored([dice] * local_cases)} for dice in (0.7, 0.7 + gained[share]))
        sets = [CaseSet(name=name, dataset=None, entries=(), pair=pair) for name, pair in (("a", anchor), ("l", local))]
        judgement = judge(anchor, local, SPOTS, Criteria())
        return Comparison(models=(), sets=tuple(sets), spots=SPOTS, judgement=judgement, notes=[])

    share = choose_share(tuned, tiny_model, folder / "candidate", judged, folder / "shares")
    written = json.loads((folder / "candidate" / "model.json").read_text())["training"]
    assert written.get("interpolation", {"share": 1.0})["share"] == share
    return share, asked


NOTHING = dict.fromkeys(SHARES, 0.0)


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [
        (NOTHING, {1.0: 0.05, 0.5: 0.024, 0.25: 0.01}, 1.0),
        (NOTHING, {1.0: 0.034, 0.5: 0.034, 0.25: 0.0147}, 0.5),  # as good, and nearer
        (NOTHING, {1.0: -0.05, 0.5: -0.04, 0.25: -0.03}, 0.25),
        (NOTHING, {1.0: 0.03, 0.5: 0.04, 0.25: 0.015}, 0.5),
        ({1.0: 0.02, 0.5: 0.015, 0.25: 0.005}, {1.0: 0.05, 0.5: 0.04, 0.25: 0.01}, 0.25),  # 0.01 may be lost
        ({1.0: 0.028, 0.5: 0.025, 0.25: 0.015}, {1.0: 0.05, 0.5: 0.024, 0.25: 0.01}, 1.0),  # none is allowed
        (NOTHING, NOTHING, 0.25),  # nothing speaks for going farther
    ],
)
def test_the_best_at_home_that_the_anchor_allows(tiny_model, tuned, tmp_path, lost, gained, expected):
    assert choose(tiny_model, tuned, tmp_path, lost, gained) == (expected, list(SHARES))


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [
        (NOTHING, {1.0: 0.05, 0.5: 0.024, 0.25: 0.03}, 0.5),
        (NOTHING, {1.0: 0.05, 0.5: -0.01, 0.25: 0.01}, 1.0),  # half of the way would not be recommended
        ({1.0: 0.02, 0.5: 0.015, 0.25: 0.005}, {1.0: 0.05, 0.5: 0.04, 0.25: 0.01}, 0.25),  # nor allowed
    ],
)
def test_few_cases_do_not_choose_among_what_the_gate_likes_alike(tiny_model, tuned, tmp_path, lost, gained, expected):
    assert choose(tiny_model, tuned, tmp_path, lost, gained, local_cases=4) == (expected, list(SHARES))


@pytest.mark.parametrize(("local_cases", "gained"), [(1, {1.0: 0.05, 0.5: 0.024, 0.25: 0.03}), (0, NOTHING)])
def test_cases_without_a_tumour_do_not_choose(tiny_model, tuned, tmp_path, local_cases, gained):
    """After a complete resection Dice says nothing of a share."""
    found = choose(tiny_model, tuned, tmp_path, NOTHING, gained, local_cases=local_cases, healthy=5 - local_cases)
    assert found == (0.5, list(SHARES))


def test_what_was_taught_wrong_is_not_hidden_by_taking_little_of_it(tiny_model, tuned, tmp_path):
    """Half of it would lose nothing and be recommended."""
    lost, gained = {1.0: 0.035, 0.5: 0.0, 0.25: 0.0}, dict.fromkeys(SHARES, 0.05)
    assert choose(tiny_model, tuned, tmp_path, lost, gained) == (1.0, [1.0])
