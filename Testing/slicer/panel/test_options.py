"""Model, quality and device: each is what was chosen last, whatever is known of the machine meanwhile."""

import pytest

CARD = {"name": "cuda:1", "title": "Second card", "expected_seconds": {"0": 3, "1": 4, "3": 6, "7": 9}}


@pytest.fixture
def chosen(ready):
    """The panel with every option chosen, as in a scene that was saved so."""
    for name, value in (("Model", "quick"), ("Device", CARD["name"]), ("Mirrorings", "7")):
        ready.parameters.set(name, value)
    return ready


def options(panel):
    return tuple(panel.parameters.get(name) for name in ("Model", "Device", "Mirrorings"))


@pytest.mark.parametrize("isAnswering", [False, True])
def test_what_one_option_is_set_to_leaves_the_others(chosen, isAnswering):
    """Before the worker has answered, or while its libraries are loaded, when it knows of the processor alone."""
    panel, ui, known = chosen, chosen.ui, chosen.session.machine
    early = {**known, "complete": False}
    panel.session._heardMachine(early if isAnswering else None)
    assert ui.deviceCombo.currentText == "cuda:1"
    ui.qualityCombo.setCurrentIndex(1)
    assert options(panel) == ("quick", "cuda:1", "1")
    panel.session._heardMachine(early)
    panel.session._devicesChanged({"devices": [CARD, *known["devices"]]})
    assert ui.deviceCombo.currentText == "Second card" and ui.deviceCombo.count == 3
    ui.deviceCombo.setCurrentIndex(2)
    assert options(panel) == ("quick", "cpu", "1")


def test_a_device_that_this_machine_has_not_is_neither_shown_nor_asked_for(chosen, monkeypatch):
    """The scene keeps it for the machine that has it."""
    panel, asked = chosen, []
    assert panel.ui.deviceCombo.currentText == "Automatic"
    panel.ui.qualityCombo.setCurrentIndex(0)
    assert options(panel) == ("quick", "cuda:1", "0")
    monkeypatch.setattr(panel.logic, "segment", lambda volumes, **keys: asked.append(keys["device"]))
    panel.onApply()
    assert asked == ["auto"]


def test_a_quality_that_is_not_offered_is_shown_where_it_is_set(ready, pump):
    """As in a scene from Python: what is shown is what runs."""
    ready.parameters.set("Mirrorings", "3")
    combo = ready.ui.qualityCombo
    assert combo.currentText == "3 mirrorings (about 48 s)" and ready.parameters.mirrorings == 3
    pump(lambda: "about 48 s" in ready.ui.stateLabel.text)
    assert [combo.itemData(i) for i in range(combo.count)] == [0, 1, 3, 7]
    combo.setCurrentIndex(3)
    assert ready.parameters.mirrorings == 7
    assert [combo.itemData(i) for i in range(combo.count)] == [0, 1, 7]
