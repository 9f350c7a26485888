"""The "?" of the sections, and the tutorial: they speak of the panel that there is."""

import re
from pathlib import Path

import ctk
import pytest
import qt
import tutorial_pictures
from SegMambaSlicerLib.panel import help

ROOT = Path(__file__).resolve().parents[3]
UI = ROOT / "SegMambaSlicer" / "Resources" / "UI"
TUTORIAL = (ROOT / "TUTORIAL.md").read_text(encoding="utf-8")
CODE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "SegMambaSlicer").rglob("*.py"))


def slug(heading):
    """The address that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.fixture
def sections(module):
    """Those of the panel itself; what is folded inside one belongs to its help."""
    found = module.frame.findChildren(ctk.ctkCollapsibleButton)
    inner = {id(part) for section in found for part in section.findChildren(ctk.ctkCollapsibleButton)}
    return [section for section in found if id(section) not in inner]


def test_every_section_of_the_panel_has_its_help(sections):
    assert {section.objectName for section in sections} <= set(help.helpTexts()) == set(help.CHAPTERS)


def test_a_question_mark_shows_the_text_and_takes_it_away(module, sections):
    module.frame.show()
    for section in sections:
        section.setCollapsed(False)
        name = section.objectName
        buttons = [b for b in section.findChildren(qt.QToolButton) if b.objectName == f"{name}HelpButton"]
        label = next(x for x in section.findChildren(qt.QLabel) if x.objectName == f"{name}HelpText")
        assert len(buttons) == 1, name
        assert buttons[0].isVisible() and not label.isVisible(), name
        assert buttons[0].accessibleName.endswith(section.text)
        buttons[0].click()
        assert label.isVisible()
        assert help.helpTexts()[name] in label.text
        buttons[0].click()
        assert not label.isVisible()


def test_help_makes_the_panel_no_wider(module, sections):
    module.frame.show()
    for section in sections:
        section.setCollapsed(False)
    before = module.frame.minimumSizeHint().width()
    for button in module.frame.findChildren(qt.QToolButton):
        if button.objectName.endswith("HelpButton"):
            button.click()
    qt.QApplication.processEvents()
    assert module.frame.minimumSizeHint().width() == before


def test_help_leads_to_chapters_that_are_there():
    chapters = {slug(heading) for heading in re.findall(r"^#+ (.+)$", TUTORIAL, re.M)}
    assert set(help.CHAPTERS.values()) <= chapters
    assert help.TUTORIAL.startswith(help.REPOSITORY)


def panel_words():
    """What can be read on the panel: texts of the .ui files, and those that the code translates."""
    words = set()
    for path in UI.glob("*.ui"):
        words |= set(re.findall(r"<string>([^<]+)</string>", path.read_text(encoding="utf-8")))
    return {word.rstrip(".") for word in words | set(re.findall(r'\b_\(\s*"([^"]+)"', CODE))}


@pytest.mark.parametrize("name", ["TUTORIAL.md", "README.md"])
def test_what_is_bold_in_the_texts_for_people_is_on_the_panel(name):
    """A button that was renamed is renamed there too."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    said = {word.rstrip(".:") for word in re.findall(r"\*\*([^*\n]+)\*\*", text)}
    other = {
        "The gate is strict",
        "What the gate's evidence is worth",
        "Research use only. Not a medical device",
        "State",
    }  # emphasis in README
    assert said - other - panel_words() == set()


PICTURES = sorted(set(re.findall(r"Screenshots/tutorial/(\w+\.png)", TUTORIAL)))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_the_panel_that_there_is(module, name):
    """Else: make pictures."""
    shown = tutorial_pictures.readWords(tutorial_pictures.FOLDER / name)
    assert shown
    now = tutorial_pictures.wordsOf(module.frame)
    assert {section: now.get(section) for section in shown} == shown


def test_every_picture_is_in_the_tutorial():
    assert {path.name for path in tutorial_pictures.FOLDER.iterdir()} == set(PICTURES)
