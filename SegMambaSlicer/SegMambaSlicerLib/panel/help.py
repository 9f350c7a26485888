"""The "?" of each section of the panel: what the section is for, shown in place, and where the tutorial goes on."""

from __future__ import annotations

import qt
import slicer

from ..i18n import _

REPOSITORY = "https://github.com/SegMambaSlicer/SlicerSegMamba"  # see Testing/index/dry_run.py, which moves it
TUTORIAL = REPOSITORY + "/blob/main/TUTORIAL.md"
# section -> the heading of the tutorial that is about it, as an address
CHAPTERS = {
    "inputsSection": "1-load-the-four-volumes",
    "runSection": "2-segment",
    "resultSection": "3-check-and-correct-the-result",
    "followUpSection": "follow-up",
    "correctionsSection": "4-add-the-case-to-training",
    "trainingSection": "5-improve-the-model",
    "modelsSection": "6-decide-which-model-is-used",
    "optionsSection": "options",
    "setupSection": "setup",
    "logSection": "when-something-fails",
}
# rows with room at their right end, so that the "?" takes no height of its own
_ROWS = {
    "inputsSection": "inputButtons",
    "runSection": "applyRow",
    "resultSection": "modeLayout",
    "followUpSection": "",
    "correctionsSection": "caseCheckRow",
    "trainingSection": "",
    "modelsSection": "backRow",
    "optionsSection": "postprocessRow",
    "setupSection": "setupButtons",
    "logSection": "logButtons",
}


def helpTexts() -> dict[str, str]:
    """Section of the panel -> a few sentences about it."""
    return {
        "inputsSection": _(
            "The four MRI volumes of one examination: T1, T1 with contrast agent, T2, FLAIR. They are found by their "
            "names and DICOM attributes; check each, and choose another where one is wrong. Volumes as they come from "
            "the scanner are fine: they are registered to T1c and the brain is extracted before the model sees them. A "
            "volume that is missing can often be done without, at a cost that is shown. No images at hand? Load a "
            "sample case."
        ),
        "runSection": _(
            "Runs the model on this computer, in a separate process: Slicer stays usable, and Cancel stops it within "
            "two seconds. A button that is gray says why in its tooltip. Model, quality and device are under Options."
        ),
        "resultSection": _(
            "The segments, their volumes and diameters. This is a first draft: look at every slice, and correct it in "
            "the Segment Editor. Correct the labels, which do not overlap; regions (whole tumor, tumor core, "
            "enhancing tumor) are sums of labels. The places to check are those where the model was least certain, "
            "the most uncertain first; it can be wrong elsewhere too."
        ),
        "followUpSection": _(
            "Measures the lesions of one date, or of several: two diameters and the volume of each, their sums over "
            "time, and the category that the RANO rules suggest. It is a suggestion; each rule is printed with its "
            "numbers. Lines can be moved."
        ),
        "correctionsSection": _(
            "Keeps a corrected case so that the model can learn from it. The images, the labels before and after, and "
            "a hash instead of the patient ID are copied into a folder that you choose, without names or dates. "
            "Nothing is kept before you agree, and nothing leaves the folder."
        ),
        "trainingSection": _(
            "Trains a candidate from the model in use and your corrected cases, here or on a server. It goes on when "
            "Slicer is closed. The model in use stays in use until somebody promotes the candidate."
        ),
        "modelsSection": _(
            "Compares the candidate with the model in use on cases that neither has learned from. Promote it, refuse "
            "it, or go back to the model before; every decision is kept with its reason, and no model is deleted."
        ),
        "optionsSection": _(
            "The model, and how it runs: better quality also runs on mirrored images and takes longer; the device is "
            "the graphics card or the processor. Prepare says whether raw volumes are registered and the brain "
            "extracted. Look closer says what each volume is taken for and what would be done to it. Where the box is "
            "checked, spots below the model's limits are left out: small spots, and edema without a tumor core, up to "
            "10 mL with the model that comes with the extension. Most of them are no tumor."
        ),
        "setupSection": _(
            "Which Python runs the engine and which packages it has. Nothing is installed before you are asked. A "
            "Python of your own (conda, venv) can be chosen instead of Slicer's."
        ),
        "logSection": _(
            "What the engine said. When something fails, copy the report: it names versions, settings and the last "
            "lines, and no paths or patients. Then see the list of failures in the tutorial."
        ),
    }


def addHelp(uiWidget) -> None:
    """Puts a "?" into every section of the panel; pressed, it shows and hides what the section is for."""
    texts = helpTexts()
    ui = slicer.util.childWidgetVariables(uiWidget)  # once: going through all widgets takes a while
    sections = {name: getattr(ui, name) for name in CHAPTERS if hasattr(ui, name)}
    for name, section in sections.items():
        label = qt.QLabel()
        label.setObjectName(f"{name}HelpText")
        label.setWordWrap(True)
        label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)  # long, and no reason to be wide
        link = _("Tutorial")
        label.setText(f'{texts[name]} <a href="{TUTORIAL}#{CHAPTERS[name]}">{link}</a>')
        label.setOpenExternalLinks(True)
        button = qt.QToolButton()
        button.setObjectName(f"{name}HelpButton")
        button.setText("?")
        button.setCheckable(True)
        button.setAutoRaise(True)
        button.setToolTip(_("What this section is for"))
        button.setAccessibleName(_("Help: {section}").format(section=section.text))
        button.toggled.connect(label.setVisible)
        _rowOf(section, _ROWS[name]).addWidget(button)
        section.layout().addWidget(label)
        label.setVisible(False)  # now, so that the section knows of it and does not show it when it is unfolded


def _rowOf(section, name: str):
    """The row `name` of a section or, where it has none, one of its own at the end."""
    for row in section.findChildren(qt.QHBoxLayout):
        if name and row.objectName == name:
            return row
    row = qt.QHBoxLayout()
    row.addStretch(1)
    section.layout().addLayout(row)
    return row
