"""The loop by its commands alone, with real trainings: what is taught rightly is recommended, what is taught wrongly
is refused.

A site's first model was trained for four steps and knows little. Corrected cases with their true labels, which intake
takes as they are: the gate recommends what is learnt from them, and it is promoted. The same cases are sent again with
everything but the tumour labelled (the segment was inverted) and accepted against the advice of intake: the gate must
refuse what is learnt from them. Somebody takes it all the same, and goes back. Nobody touches a file of the site.

Small so that it takes a minute or so: a narrow network at 4 mm in single precision, and a recipe of larger steps than
the one that ships. The effects are several times the gate's margins, so that no CPU's rounding decides.
"""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from correction_runs import edited
from segmamba.cases.case import find_case, find_label
from segmamba.cli import main
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.learning.site import Site
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import PostprocessSpec
from segmamba.training import recipes
from site_runs import save_model, without_pictures
from training_runs import narrow_network

WIDTHS = (8, 8, 16, 16)
FIRST_STEPS, STEPS = 4, 50
ED = 2
SMALL_MM3 = 40000.0  # what is smaller is left out of answers: models of so few steps make many spots
# The cores of those that are judged by are 87 mL or more.
SEEDS = {"site/replay": (11, 12, 13), "site/anchor": (601, 603, 606), "clinic": (702, 703, 704)}
FIRST = """
name = "first"
initial_model = "blank"
patch = [32, 32, 32]
steps = {steps}
foreground = 0.5
precision = "fp32"
cache = "cache"

[network]
preset = "quick"

[preprocess]
modalities = ["t1n", "t1c", "t2w", "t2f"]
spacing = [4.0, 4.0, 4.0]

[inference]
window = [48, 64, 48]

[augment]
set = "none"

[optimizer]
learning_rate = 1e-2
warmup = 10
ema = 0.9

[validation]
every = 1000
at_start = false

[[sources]]
dataset = "site/replay"
"""
RECIPE = """
base = "{base}"

[augment]
set = "none"

[optimizer]
learning_rate = 1e-2
ema = 0.9

[validation]
at_start = false
"""


def run(capsys, *arguments, code=0):
    """What `segmamba ARGUMENTS` prints; what it says is wrong, where its exit code is 1."""
    capsys.readouterr()
    with narrow_network(WIDTHS), without_pictures():
        found = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert found == code, said.err[-2000:]
    return said.err if code else said.out


@pytest.fixture
def place(tmp_path):
    """clinic/: cases with labels; site/: old cases and anchor cases. No core enhances: that would take longer to learn.
    blank/: a model that knows nothing."""
    for folder, seeds in SEEDS.items():
        for seed in seeds:
            case = tmp_path / folder / f"phantom-{seed}"
            case.mkdir(parents=True)
            save_phantom(make_phantom(seed, spacing=(4, 4, 4), enhancing=False), case, case.name)
    with narrow_network(WIDTHS):
        blank = load_package(save_model(tmp_path / "made", narrow=False))
    limits = PostprocessSpec(min_component_mm3=dict.fromkeys(("WT", "TC", "ET"), SMALL_MM3))
    save_package(tmp_path / "blank", blank.network, replace(blank.manifest, postprocess=limits), "# blank\n")
    return tmp_path


def test_the_right_is_recommended_and_the_wrong_refused_and_taken_only_by_who_insists(place, capsys, monkeypatch):
    site = Site(place / "site")
    models = ("models", site.models)
    cases = sorted((place / "clinic").iterdir())

    def send(case, labels):
        there = np.unique(np.asarray(nib.load(labels).dataobj))
        absent = [name for value, name in ((1, "NCR"), (2, "ED"), (3, "ET")) if value not in there]
        run(
            capsys,
            *("correct", case, "--labels", labels, "--output", site.corrections, "--subject", case.name),
            *("--consent", *(part for name in absent for part in ("--empty", name))),
        )

    def examined():
        return json.loads(run(capsys, "intake", site.corrections, "--json"))["rows"]

    def doubtful():
        return [row["name"] for row in examined() if row["status"] == "doubtful"]

    def improve(name):
        asked = ("--run", name, "--model", first, "--steps", STEPS, "--device", "cpu", "--json")
        return json.loads(run(capsys, "improve", site.folder, *asked))

    def judged(status):
        return json.loads((Path(status["gate"]) / "gate.json").read_text())

    def anchor_dice(status):
        """Mean Dice of the core: (the model in use, the candidate)."""
        row = judged(status)["anchor"]["comparison"]["dice"]["TC"]
        return row["a"], row["b"]

    def in_use():
        return json.loads(run(capsys, *models, "current", "--json"))["name"]

    # a model that knows little
    for folder in (site.replay, site.anchor):
        run(capsys, "dataset", "init", folder, "--labels", "brats2023", "--jobs", 1)
    (place / "first.toml").write_text(FIRST.format(steps=FIRST_STEPS))
    first = run(capsys, "train", place / "first.toml", "--run-folder", place / "first", "--device", "cpu").strip()
    (place / "recipe.toml").write_text(RECIPE.format(base=recipes.config_file("finetune.toml").as_posix()))
    monkeypatch.setattr(recipes, "config_file", lambda name: place / "recipe.toml")

    # the true labels: what is learnt from them is recommended, and a person promotes it
    for case in cases:
        send(case, find_label(case))
    assert {row["status"] for row in examined()} == {"train", "validation"}
    right = improve("right")
    before, after = anchor_dice(right)
    assert right["verdict"] == "promote" and after > before + 0.05, right["text"]
    assert all(check["holds"] for check in judged(right)["checks"])
    assert in_use() != right["candidate"]  # by a person alone
    run(capsys, *models, "promote", right["candidate"])
    assert in_use() == right["candidate"]

    # everything but the tumour is labelled, and a person accepts it
    for case in cases:
        head = np.asarray(nib.load(find_case(case)["t1n"].path).dataobj) > 0
        inverted = edited(find_label(case), place / f"{case.name}.nii.gz", lambda x, head=head: ED * (head & (x == 0)))
        send(case, inverted)
    waiting = doubtful()
    assert len(waiting) == len(cases)
    accepted = (part for name in waiting for part in ("--accept", name))
    run(capsys, "intake", site.corrections, *accepted, "--reason", "by a person who did not look", "--json")
    newer = [row["status"] for row in examined() if row["name"].endswith("-v2")]
    assert len(newer) == len(cases) and set(newer) == {"train", "validation"}
    wrong = improve("wrong")
    before, after = anchor_dice(wrong)
    assert wrong["verdict"] == "refuse" and after < before - 0.2, wrong["text"]
    assert in_use() == right["candidate"]

    # it is neither promoted nor adopted; then somebody insists, and goes back
    assert "was given 'refuse' by the gate" in run(capsys, *models, "promote", wrong["candidate"], code=1)
    adopt = ("adopt", wrong["candidate"], "--reason", "I know better")
    assert "--against-the-gate" in run(capsys, *models, *adopt, code=1) and in_use() == right["candidate"]
    run(capsys, *models, *adopt, "--against-the-gate")
    assert in_use() == wrong["candidate"]
    run(capsys, *models, "rollback")
    assert in_use() == right["candidate"]
