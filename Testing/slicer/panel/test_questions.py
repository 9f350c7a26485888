"""A question is about one thing: what changes while it stands, as by an answer of the engine, is not done instead."""

import json
import sys

import pytest
import sites
import slicer
from SegMambaSlicerLib.engine import dependencies, interpreter
from SegMambaSlicerLib.learning.verdicts import plainName

CHAMPION, WORSE, OTHER = "quick-2-aaaaaaaaaaaa", "quick-2-tuned-cccccccccccc", "quick-3-dddddddddddd"


def known(**states):
    models = {"champion": CHAMPION, "id": "quick-2", "states": {CHAMPION: "champion", **states}}
    return {"schema": 1, "corrections": sites.COUNTS, "models": models, "runs": []}


@pytest.fixture
def worse(commands, site):
    """The panel's widgets with a candidate that the gate refuses, and a reason for it."""
    folder = site / "models" / "models" / WORSE
    folder.mkdir(parents=True)
    (folder / "gate.json").write_text(json.dumps(sites.gateReport("refuse")))
    commands.panel.ui.modelsSection.setProperty("collapsed", False)
    commands.reply("status", known(**{WORSE: "candidate"}))
    commands.panel.ui.modelReasonEdit.setText("our scanner")
    return commands.panel.ui


@pytest.mark.parametrize("isThere", [True, False])
def test_adopted_is_the_model_that_was_asked_about(commands, worse, monkeypatch, isThere):
    def confirm(text, **options):
        assert plainName(WORSE) in text
        worse.lookButton.click()
        commands.reply("status", known(**({WORSE: "candidate"} if isThere else {}), **{OTHER: "candidate"}))
        return True

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    worse.adoptButton.click()
    if isThere:
        assert commands.open[-1].arguments[2:5] == ["adopt", WORSE, "--reason=our scanner"]
    else:
        assert not commands.open
        assert worse.modelsMessageLabel.text == f"Nothing was changed: {plainName(WORSE)} is no longer in the list."


@pytest.mark.parametrize("isSame", [True, False])
def test_installed_is_what_the_question_named(module, monkeypatch, isSame):
    """A check may end while the question stands."""
    panel = module.widget.panel
    setup, installed = panel.setup, []
    python = interpreter.Interpreter(sys.executable, "slicer", {})

    def planned(requirement):
        return dependencies.Plan(
            python, (dependencies.Package(requirement, requirement, None, False),), "/packages", "3.12"
        )

    def confirm(question):
        assert "monai" in question
        setup.plan = planned("monai" if isSame else "torch")
        return True

    setup.plan, setup._confirm = planned("monai"), confirm
    monkeypatch.setattr(setup, "onCheck", lambda: None)
    monkeypatch.setattr(dependencies, "install", lambda plan, wheels: installed.append(plan.others))
    setup.onInstall()
    assert installed == ([("monai",)] if isSame else [])
    changed = "Nothing was installed: what is needed has changed meanwhile. See what Check says now."
    assert panel.ui.testLabel.text == ("" if isSame else changed)
