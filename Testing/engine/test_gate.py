"""The gate: worse candidates do not pass, better ones do, and the bounds are those of arithmetic done by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segmamba.cli import main
from segmamba.datasets.manifest import write_dataset
from segmamba.datasets.split import Split, write_split
from segmamba.errors import InputError
from segmamba.learning.gate import Criteria, format_report, run_gate
from segmamba.learning.gate.rules import beside_doubts, is_guard, judge
from segmamba.learning.gate.scores import Scored, _false_spots, kept_mm3
from segmamba.learning.registry import change, state
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import PostprocessSpec
from segmamba.networks.segmamba import SegMamba
from segmamba.training.samples import case_digest

REGIONS = ("WT", "TC", "ET")
SPOTS = dict.fromkeys(REGIONS, 50.0)


def scored(dices, false_positives=0.0, finite=True, truth_mm3=1000.0):
    """Made-up scores: {case: Scored}, the same in every region unless three are given."""

    def by_region(value):
        return dict(zip(REGIONS, value if isinstance(value, tuple) else (value,) * 3))

    found = {}
    for number, dice in enumerate(dices):
        values = by_region(dice)
        scores = {"dice": values, "lesion_dice": values, "false_positives": by_region(false_positives)}
        found[f"case{number:03}"] = Scored(scores, finite, 1.0, by_region(truth_mm3))
    return found


def verdict(anchor, local, **criteria):
    return judge(anchor, local, SPOTS, Criteria(**criteria))


def failed(judgement):
    return [check.name for check in judgement.checks if not check.holds]


SAME = scored([0.8] * 30), scored([0.8] * 30)
BETTER = scored([0.7] * 4), scored([0.75] * 4)


def test_better_at_home_and_no_worse_elsewhere_is_recommended():
    found = verdict(SAME, BETTER)
    assert found.verdict == "promote" and failed(found) == [] and found.harm == 0 and found.look_first == ()
    assert any("4 local" in text for text in found.low_evidence)


def test_what_was_known_may_not_be_forgotten():
    """All lose 0.03 in ET alone; the champion's Dice has no spread, so 0.01 may be lost."""
    worse = scored([(0.8, 0.8, 0.77)] * 30)
    found = verdict((SAME[0], worse), BETTER)
    assert found.verdict == "refuse" and failed(found) == ["anchor Dice ET"]
    assert found.harm == pytest.approx(3)
    assert verdict((SAME[0], worse), BETTER, margin=0.031).verdict == "promote"


def test_what_may_be_lost_follows_from_the_spread_of_the_champion_alone():
    """16 cases, Dice 0.8 +- 0.1: its standard error is 0.1 x sqrt(16 / 15) / sqrt(16) = 0.0258."""
    before = np.tile([0.7, 0.9], 8)
    for loss, grade in ((0.025, "promote"), (0.027, "refuse")):
        assert verdict((scored(before), scored(before - loss)), BETTER).verdict == grade
    wild = verdict((scored([0.8] * 16), scored(np.tile([0.5, 1.0], 8))), BETTER)  # its own spread widens nothing
    assert wild.verdict == "refuse" and wild.harm == pytest.approx(5)
    assert "allowed -0.050" in verdict((scored([0.1, 0.9]), scored([0.1, 0.9])), BETTER).checks[1].text


def test_that_as_a_whole_nothing_was_lost_must_be_sure():
    """30 cases, changes +-0.1: the mean is 0, its bound about -1.645 x 0.1 / sqrt(30) = -0.030."""
    changes = np.tile([0.1, -0.1], 15)
    pair = SAME[0], scored(list(0.8 + changes))
    found = verdict(pair, BETTER)
    (text,) = (check.text for check in found.checks if check.name == "anchor Dice")
    assert "0.0000, not below" in text and found.verdict == "confirm" and failed(found) == ["anchor Dice"]
    bound = float(text.split("not below ")[1].split()[0])
    assert bound == pytest.approx(-0.030, abs=0.004)
    assert verdict(pair, BETTER, margin=0.04).verdict == "promote"


def test_where_a_region_is_not_one_voxel_does_not_decide():
    """ET is absent in ten cases of thirty, smaller than a spot in one: their Dice of ET, 0 or 1, is none."""
    volumes = [(1000.0, 1000.0, 0.0)] * 10 + [(1000.0, 1000.0, 49.0)] + [1000.0] * 19
    pair = []
    for et in (1.0, 0.0):
        cases = scored([(0.8, 0.8, et)] * 11 + [0.8] * 19)
        pair.append({k: replace(c, truth_mm3=scored([0.8], truth_mm3=v)["case000"].truth_mm3)
                     for (k, c), v in zip(cases.items(), volumes)})  # fmt: skip
    found = verdict(tuple(pair), BETTER)
    assert found.verdict == "promote" and "over 19 cases" in found.checks[3].text
    two = tuple({case: model[case] for case in list(model)[:13]} for model in pair)
    assert "ET is in 2 of the anchor cases" in verdict(two, BETTER).low_evidence


@pytest.mark.parametrize(("rise", "holds"), [(0.25, True), (0.3, False)])
def test_false_spots(rise, holds):
    pair = scored([0.8] * 30, 1.0), scored([0.8] * 30, 1.0 + rise)
    found = verdict(pair, BETTER)
    assert (found.verdict == "promote") is holds and found.harm == pytest.approx(rise / 0.25)
    assert "1 false spot(s) of WT more" in verdict((pair[0], scored([0.8] * 30, 2.0)), BETTER).look_first[0].text


def test_false_spots_on_its_own_cases_are_for_a_person():
    """Twelve patients after an operation, without ET: better in WT and TC, and four spots of ET in each."""
    anchor = scored([0.8] * 5), scored([0.8] * 5)
    volumes = {"truth_mm3": (1000.0, 1000.0, 0.0)}
    before = scored([(0.80, 0.70, 1.0)] * 12, **volumes)
    after = scored([(0.82, 0.71, 0.0)] * 12, (0.0, 0.0, 4.0), **volumes)
    found = verdict(anchor, (before, after))
    name = "local false positives ET where none is"
    assert found.verdict == "confirm" and failed(found) == [name] and found.harm == 0
    (text,) = (check.text for check in found.checks if check.name == name)
    assert text == "0.00 to 4.00 a case; allowed +0.25"
    fewer = dict(list(before.items())[:1]), dict(list(after.items())[:1])  # of one case nothing is known of chance
    assert failed(verdict(anchor, fewer)) == [name]


def test_false_spots_where_a_region_is_are_judged_by_dice():
    """A better segmentation of every tumour with a spot more is better."""
    assert verdict(SAME, (BETTER[0], scored([0.75] * 4, (0.0, 0.0, 2.0)))).verdict == "promote"


def test_what_false_spots_may_vary_by_is_the_same_at_home():
    """Spots 0 and 2 in turn in 16 cases, 1 a case: twice the standard error is 2 x sqrt(16 / 15) / 4 = 0.516."""
    volumes = {"truth_mm3": (1000.0, 1000.0, 0.0)}
    before = scored([0.7] * 16, **volumes)
    for number, case in enumerate(before.values()):
        case.scores["false_positives"]["ET"] = 2.0 * (number % 2)
    for after, grade in ((1.5, "promote"), (1.52, "confirm")):
        assert verdict(SAME, (before, scored([0.75] * 16, (0.0, 0.0, after), **volumes))).verdict == grade
    for count in (1, 3, 4):  # one spot in all is chance, two are for a person
        few = scored([0.7] * count, **volumes)
        for spots, grade in ((1.0, "promote"), (2.0, "confirm")):
            spoilt = {**scored([0.75] * count, **volumes), "case000": scored([0.75], spots, **volumes)["case000"]}
            assert verdict(SAME, (few, spoilt)).verdict == grade


def test_three_grades_at_home():
    """What may be lost on the anchor set, 0.01, may be lost here too before it is worse."""
    grades = {after: verdict(SAME, (BETTER[0], scored([after] * 4))).verdict for after in (0.71, 0.7, 0.695, 0.68)}
    assert list(grades.values()) == ["promote", "confirm", "confirm", "refuse"]
    found = verdict(SAME, ({}, {}))
    assert not any(check.name.startswith("local false") for check in found.checks)
    without = scored([1.0] * 3, truth_mm3=0.0)
    for pair, text in ((({}, {}), "no local validation case yet"), ((without, without), "none of 3 local validation")):
        found = verdict(SAME, pair)
        assert failed(found) == ["local Dice"] and found.verdict == "confirm"
        assert any(check.text.startswith(text) for check in found.checks)


def test_with_enough_local_cases_the_improvement_must_be_sure():
    before = scored([0.7] * 12)
    unsure = scored([0.7 + (0.09 if i % 2 else -0.08) for i in range(12)])
    found = verdict(SAME, (before, unsure))
    assert failed(found) == ["local Dice"] and found.verdict == "confirm"
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
    (look,) = found.look_first
    assert (look.part, look.case, look.text) == ("anchor", "case003", "Dice ET 0.800 -> 0.690")


def test_a_loss_within_twice_the_spread_is_shown_and_forbids_nothing():
    """Dice 0.7 and 0.9 in turn, spread 0.1: a case that loses 0.15 is worth a look, and no more."""
    before = np.tile([0.7, 0.9], 15)
    after = before + 0.01
    after[4] -= 0.16
    found = verdict((scored(before), scored(after)), BETTER)
    assert found.verdict == "promote" and [look.case for look in found.look_first] == ["case004"]


def test_what_was_learnt_of_doubtful_cases_is_not_recommended():
    found = judge(SAME, BETTER, SPOTS, Criteria())
    assert found.verdict == "promote" and beside_doubts(found, ()) == found
    doubted = beside_doubts(found, ["a-v1", "b-v2"])
    assert doubted.verdict == "confirm" and failed(doubted) == ["doubtful cases"]
    assert (
        doubted.checks[-1].text.startswith("2 corrected case(s) that intake found doubtful")
        and doubted.harm == found.harm
    )
    worse = judge((SAME[0], scored([0.5] * 30)), BETTER, SPOTS, Criteria())
    assert beside_doubts(worse, ["a-v1"]).verdict == worse.verdict == "refuse"


def test_a_guard_is_of_25_anchor_cases_with_a_tumour():
    empty = {f"empty{number}": case for number, case in enumerate(scored([1.0] * 9, truth_mm3=0.0).values())}
    for count, holds in ((24, False), (25, True)):
        model = {**scored([0.8] * count), **empty}
        assert is_guard((model, model), SPOTS) is holds


def test_what_is_not_finite_is_refused():
    assert failed(verdict((SAME[0], scored([0.8] * 30, finite=False)), BETTER)) == ["finite"]


def test_one_anchor_case_says_nothing():
    with pytest.raises(InputError, match="two at the very least"):
        verdict((scored([0.8]), scored([0.8])), BETTER)
    with pytest.raises(InputError, match="1 with a tumour"):
        empty = {"case001": scored([1.0], truth_mm3=0.0)["case000"]}
        verdict(({**scored([0.8]), **empty},) * 2, BETTER)


def test_a_false_spot_has_the_size_that_a_manifest_keeps():
    """Spots of 8, 27 and 64 voxels of 2 mm3 beside a lesion: with a limit of 54 mm3 the last two count."""
    mask, truth = np.zeros((40, 14, 12), bool), np.zeros((40, 14, 12), bool)
    for start, side in ((2, 2), (10, 3), (20, 4)):
        mask[start : start + side, 2 : 2 + side, 3 : 3 + side] = True
    truth[30:35, 5:9, 4:8] = mask[30:33, 5:9, 4:8] = True
    assert _false_spots(mask, truth, [2.0, 1.0, 1.0], 54 / 2) == 2
    assert _false_spots(mask, truth, [2.0, 1.0, 1.0], 55 / 2) == 1


def test_limits_of_either_model_hold_for_both(tiny_model):
    model = load_package(tiny_model)
    assert kept_mm3((model, model)) == dict.fromkeys(REGIONS, 50.0)  # of which BraTS scores no lesion
    spec = PostprocessSpec(min_component_mm3={"TC": 200.0, "ET": 20.0})
    strict = replace(model, manifest=replace(model.manifest, postprocess=spec))
    for models in ((model, strict), (strict, model)):
        assert kept_mm3(models) == {"WT": 50.0, "TC": 200.0, "ET": 50.0}


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
    change.start(models, tiny_model)
    name = change.add(models, candidate)
    asked = ["gate", name, "--models", str(models), "--anchor", phantom_dataset.folder, "--device", "cpu", "--apply"]
    assert main([*asked, "--margin", "1"]) == 1 and "leave --margin out" in capsys.readouterr().err
    code = main(asked)
    place = models / "models" / name
    report = json.loads((place / "gate.json").read_text())
    assert code == 1 and report["verdict"] == "refuse"
    assert state.read_registry(models).models[name].state == "refused"
    assert set(report["anchor"]["champion"]) == {"phantom-0", "phantom-1", "phantom-2"}
    text = (place / "GATE.md").read_text()
    old = {key: value for key, value in report.items() if key != "look_first"}  # as earlier versions wrote it
    assert "## Look at first" not in format_report(old) and format_report(report).startswith(format_report(old)[:40])
    assert "**Worse: not recommended.**" in text and "phantom-1" in text and text in capsys.readouterr().out
    assert len(list(place.glob("gate-phantom-*.png"))) == 3
    means = [np.mean([s["dice"]["WT"] for s in report["anchor"][who].values()]) for who in ("champion", "candidate")]
    row = report["anchor"]["comparison"]["dice"]["WT"]
    assert row["difference"] == pytest.approx(means[1] - means[0])


@pytest.fixture(scope="module")
def first(candidate, tiny_model, phantom_dataset, tmp_path_factory):
    """A gate: -> (report, cache of scores, what models were asked)."""
    asked: list[tuple[str, int]] = []

    def ask(what, left):
        asked.append((what, left))

    cache = tmp_path_factory.mktemp("scores")
    report = run_gate(candidate, tiny_model, phantom_dataset.folder, cache=cache, pictures=0, progress=ask)
    return report, cache, asked


def test_scores_are_those_of_evaluate(first, candidate, tiny_model, phantom_cases, tmp_path):
    """The same models through files and `segmamba evaluate`."""
    from segmamba.evaluation.evaluate import evaluate_folders
    from segmamba.prediction.batch import predict_batch
    from segmamba.prediction.predict import PredictOptions

    report, _, _ = first
    for who, folder in (("champion", tiny_model), ("candidate", candidate)):
        predict_batch(load_package(folder), phantom_cases, tmp_path / who, PredictOptions())
        expected = evaluate_folders(tmp_path / who, phantom_cases, convention="brats2023")["cases"]
        for case, scores in report["anchor"][who].items():
            for metric in ("dice", "lesion_dice", "false_positives"):
                assert scores[metric] == pytest.approx(expected[case][metric]), (case, metric)


def test_a_second_gate_asks_no_model_again(first, candidate, tiny_model, phantom_dataset):
    report, cache, asked = first
    assert [left for _, left in asked] == [6, 5, 4, 3, 2, 1]
    again: list[str] = []
    options = {"cache": cache, "pictures": 0, "progress": lambda what, left: again.append(what)}
    assert run_gate(candidate, tiny_model, phantom_dataset.folder, **options) == report and again == []


def test_the_same_weights_as_another_network_are_asked_anew(first, candidate, tiny_model, phantom_dataset, tmp_path):
    """As where one is imported again with `--mamba-residual no`."""
    _, cache, _ = first
    model, other = load_package(candidate), tmp_path / "other"
    config = replace(model.manifest.network, mamba_residual=False)
    network = SegMamba(config)
    network.load_state_dict(model.network.state_dict())
    save_package(other, network, replace(model.manifest, network=config), "# other\n")
    assert load_package(other).manifest.weights_sha256 == model.manifest.weights_sha256
    asked: list[str] = []
    options = {"cache": cache, "pictures": 0, "progress": lambda what, left: asked.append(what)}
    run_gate(other, tiny_model, phantom_dataset.folder, **options)
    assert len(asked) == 3
    assert run_gate(other, candidate, phantom_dataset.folder, **options)["verdict"]  # it is not the model in use itself


def test_a_corrected_case_is_among_the_pictures(first, candidate, tiny_model, phantom_dataset, own_phantoms, tmp_path):
    """Even where it lost least of all, and in nobody's place: who is told to look at a case finds its picture."""
    report, cache, _ = first
    scores = [report["anchor"][who] for who in ("champion", "candidate")]
    lost = {case: max(scores[0][case]["dice"][r] - scores[1][case]["dice"][r] for r in REGIONS) for case in scores[0]}
    least = min(lost, key=lambda case: lost[case])
    own = own_phantoms()
    write_dataset(replace(own, cases=tuple(replace(case, id=f"own-{case.id}") for case in own.cases)))
    places = {case.subject: "validation" if case.id == least else "train" for case in own.cases}
    shares = {"train": 0.8, "validation": 0.2, "test": 0.0}
    write_split(Split(seed=1, shares=shares, subjects=places), Path(own.folder))
    place = Path(shutil.copytree(candidate, tmp_path / "turned"))
    report = run_gate(place, tiny_model, phantom_dataset.folder, own.folder, cache=cache, pictures=1)
    worst = report["look_first"][0]["case"]
    assert {path.name for path in place.glob("gate-*.png")} == {f"gate-{worst}.png", f"gate-own-{least}.png"}
    assert worst != f"own-{least}"


def test_doubtful_cases_are_heeded_wherever_the_gate_is_asked(tiny_model, own_phantoms, tmp_path, capsys):
    """A model that finds nothing is in use; the candidate calls all of it tumour, which is better in every case."""
    models = tmp_path / "models"
    model = load_package(tiny_model)
    for name, label in (("nothing", 0), ("all", 3)):
        with torch.no_grad():
            for parameter in model.network.out.parameters():
                parameter.zero_()
            model.network.out.conv.conv.bias[label] = 10.0
        save_package(tmp_path / name, model.network, replace(model.manifest, id=name), f"# {name}\n")
    change.start(models, tmp_path / "nothing")
    name = change.add(models, tmp_path / "all")
    anchor, local = own_phantoms(), own_phantoms()
    places = {case.subject: "validation" for case in local.cases}
    shares = {"train": 0.8, "validation": 0.2, "test": 0.0}
    write_split(Split(seed=1, shares=shares, subjects=places), Path(local.folder))
    asked = ["gate", name, "--models", str(models), "--anchor", anchor.folder, "--local", local.folder]

    def judged(shipped, doubtful):
        names = [case.id for case in anchor.cases]
        write_dataset(replace(anchor, made={"shipped": names} if shipped else {}))
        write_dataset(replace(local, made={"corrections": "incoming", "doubtful": doubtful}))
        main([*asked, "--device", "cpu", "--apply"])
        report = json.loads((models / "models" / name / "gate.json").read_text())
        failed = [check["name"] for check in report["checks"] if not check["holds"]]
        assert any("models that ship were trained on" in note for note in report["notes"]) == shipped
        return report["verdict"], failed, state.read_registry(models).models[name].state

    held_back = ("confirm", ["doubtful cases"], "candidate")
    assert judged(shipped=True, doubtful=["case-v1"]) == held_back
    assert judged(shipped=False, doubtful=["case-v1"]) == held_back  # three patients are no guard
    assert judged(shipped=True, doubtful=[]) == ("promote", [], "champion")


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
