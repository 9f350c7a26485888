"""The gate: worse candidates do not pass, better ones do, and the bounds are those of arithmetic done by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.learning import registry
from segmamba.learning.gate import Criteria, run_gate
from segmamba.learning.gate.rules import judge
from segmamba.learning.gate.scores import Scored
from segmamba.models.package import load_package, save_package
from segmamba.training.samples import case_digest

REGIONS = ("WT", "TC", "ET")


def scored(dices, false_positives=0.0, finite=True):
    """Made-up scores: {case: Scored}, the same Dice in every region unless three are given."""
    found = {}
    for number, dice in enumerate(dices):
        values = dict(zip(REGIONS, dice if isinstance(dice, tuple) else (dice,) * 3))
        scores = {"dice": values, "lesion_dice": values, "false_positives": dict.fromkeys(REGIONS, false_positives)}
        found[f"case{number:03}"] = Scored(scores, finite, 1.0)
    return found


def verdict(anchor, local, **criteria):
    return judge(anchor, local, Criteria(**criteria))


def failed(judgement):
    return [check.name for check in judgement.checks if not check.holds]


SAME = scored([0.8] * 30), scored([0.8] * 30)
BETTER = scored([0.7] * 4), scored([0.75] * 4)


def test_better_at_home_and_no_worse_elsewhere_is_promoted():
    found = verdict(SAME, BETTER)
    assert found.verdict == "promote" and failed(found) == []
    assert any("4 local" in text for text in found.low_evidence)


def test_what_was_known_may_not_be_forgotten():
    """All lose 0.03 in ET alone: the bound of a constant is the constant."""
    worse = scored([(0.8, 0.8, 0.77)] * 30)
    found = verdict((SAME[0], worse), BETTER)
    assert found.verdict == "refuse" and failed(found) == ["anchor Dice ET"]
    assert verdict((SAME[0], worse), BETTER, margin=0.031).verdict == "promote"


def test_the_bound_and_not_the_mean_decides():
    """30 cases, changes +-0.1: the mean is 0, its bound about -1.645 x 0.1 / sqrt(30) = -0.030."""
    changes = np.tile([0.1, -0.1], 15)
    pair = SAME[0], scored(list(0.8 + changes))
    found = verdict(pair, BETTER, worst=0.2)
    (text,) = (check.text for check in found.checks if check.name == "anchor Dice WT")
    assert "change +0.0000" in text and found.verdict == "refuse"
    bound = float(text.split("not worse than ")[1].split()[0])
    assert bound == pytest.approx(-0.030, abs=0.004)
    assert verdict(pair, BETTER, worst=0.2, margin=0.04).verdict == "promote"


def test_the_margin_follows_the_number_of_cases():
    assert Criteria().margin_for(99) == 0.02 and Criteria().margin_for(100) == 0.01
    assert Criteria(margin=0.005).margin_for(10) == 0.005


@pytest.mark.parametrize(("rise", "holds"), [(0.1, True), (0.2, False)])
def test_false_positives(rise, holds):
    pair = scored([0.8] * 30, 1.0), scored([0.8] * 30, 1.0 + rise)
    assert (verdict(pair, BETTER).verdict == "promote") is holds


def test_no_better_at_home_is_refused():
    assert failed(verdict(SAME, (BETTER[0], BETTER[0]))) == ["local Dice"]
    assert failed(verdict(SAME, ({}, {}))) == ["local Dice"]


def test_with_enough_local_cases_the_improvement_must_be_sure():
    before = scored([0.7] * 12)
    unsure = scored([0.7 + (0.09 if i % 2 else -0.08) for i in range(12)])
    assert failed(verdict(SAME, (before, unsure))) == ["local Dice"]
    assert verdict(SAME, (scored([0.7] * 9), scored([0.7 + (0.09 if i % 2 else -0.07) for i in range(9)]))).verdict == (
        "promote"  # with nine its mean decides
    )
    assert verdict(SAME, (before, scored([0.71] * 12))).verdict == "promote"


def test_a_case_that_got_much_worse_is_looked_at_by_a_person():
    after = scored([0.8] * 3 + [(0.8, 0.8, 0.69)] + [0.81] * 26)
    found = verdict((SAME[0], after), BETTER)
    assert found.verdict == "confirm" and failed(found) == ["worst case"]
    (check,) = (check for check in found.checks if check.name == "worst case")
    assert "case003 ET 0.800 -> 0.690" in check.text


def test_what_is_not_finite_is_refused():
    assert failed(verdict((SAME[0], scored([0.8] * 30, finite=False)), BETTER)) == ["finite"]


def test_one_anchor_case_says_nothing():
    with pytest.raises(InputError, match="two at the very least"):
        verdict((scored([0.8]), scored([0.8])), BETTER)


# --- with real models


@pytest.fixture(scope="module")
def candidate(tiny_model, tmp_path_factory):
    """The tiny model with its output turned round: other answers, real ones."""
    model = load_package(tiny_model)
    with torch.no_grad():
        for parameter in model.network.out.parameters():
            parameter.copy_(parameter.flip(0))
    folder = tmp_path_factory.mktemp("candidates") / "turned"
    save_package(folder, model.network, replace(model.manifest, id="turned", parent="tiny"), "# turned\n")
    return folder


def test_a_gate_writes_what_it_found_and_the_registry_goes_by_it(
    candidate, tiny_model, phantom_dataset, tmp_path, capsys
):
    models = tmp_path / "models"
    registry.start(models, tiny_model)
    name = registry.add(models, candidate)
    code = main(
        ["gate", name, "--models", str(models), "--anchor", phantom_dataset.folder, "--device", "cpu", "--apply"]
    )
    place = models / "models" / name
    report = json.loads((place / "gate.json").read_text())
    assert code == 1 and report["verdict"] == "refuse"  # no local case
    assert registry.read_registry(models).models[name].state == "refused"
    assert set(report["anchor"]["champion"]) == {"phantom-0", "phantom-1", "phantom-2"}
    text = (place / "GATE.md").read_text()
    assert "**Refuse**" in text and "phantom-1" in text and text in capsys.readouterr().out
    assert len(list(place.glob("gate-phantom-*.png"))) == 3
    means = [np.mean([s["dice"]["WT"] for s in report["anchor"][who].values()]) for who in ("champion", "candidate")]
    row = report["anchor"]["comparison"]["dice"]["WT"]
    assert row["difference"] == pytest.approx(means[1] - means[0])


@pytest.fixture(scope="module")
def first(candidate, tiny_model, phantom_dataset, tmp_path_factory):
    """A gate: -> (report, cache of scores, what models were asked)."""
    asked: list[str] = []
    cache = tmp_path_factory.mktemp("scores")
    report = run_gate(candidate, tiny_model, phantom_dataset.folder, cache=cache, pictures=0, progress=asked.append)
    return report, cache, asked


def test_scores_are_those_of_evaluate(first, candidate, tiny_model, phantom_cases, tmp_path):
    """The same models through files and `segmamba evaluate`."""
    from segmamba.evaluation.evaluate import evaluate_folders
    from segmamba.prediction.predict import PredictOptions, predict_batch

    report, _, _ = first
    for who, folder in (("champion", tiny_model), ("candidate", candidate)):
        predict_batch(load_package(folder), phantom_cases, tmp_path / who, PredictOptions())
        expected = evaluate_folders(tmp_path / who, phantom_cases, convention="brats2023")["cases"]
        for case, scores in report["anchor"][who].items():
            for metric in ("dice", "lesion_dice", "false_positives"):
                assert scores[metric] == pytest.approx(expected[case][metric]), (case, metric)


def test_a_second_gate_asks_no_model_again(first, candidate, tiny_model, phantom_dataset):
    report, cache, asked = first
    assert len(asked) == 6
    again: list[str] = []
    options = {"cache": cache, "pictures": 0, "progress": again.append}
    assert run_gate(candidate, tiny_model, phantom_dataset.folder, **options) == report and again == []


def test_a_candidate_that_has_learnt_a_case_is_not_judged_by_it(candidate, tiny_model, phantom_dataset, tmp_path):
    model = load_package(candidate)
    digest = case_digest(phantom_dataset, phantom_dataset.cases[1], model.manifest.preprocess)
    learnt = replace(model.manifest, id="learnt", training={"cases": {"another-name": digest}})
    save_package(tmp_path / "learnt", model.network, learnt, "# learnt\n")
    with pytest.raises(InputError, match="was trained on phantom-1"):
        run_gate(tmp_path / "learnt", tiny_model, phantom_dataset.folder)
    with pytest.raises(InputError, match="is the model in use itself"):
        run_gate(tiny_model, tiny_model, phantom_dataset.folder)


def test_the_gate_needs_a_model_to_compare_with(candidate, phantom_dataset, capsys):
    assert main(["gate", str(candidate), "--anchor", phantom_dataset.folder]) == 1
    assert "--models FOLDER, or --champion MODEL" in capsys.readouterr().err
