"""What a person is asked before a case is kept for training, once for each site folder, and what was answered."""

from __future__ import annotations

import json
from pathlib import Path

import qt
import slicer

from ..i18n import _

SETTING = "SegMamba/ConsentFolders"  # a list in JSON


def consentText(folder: str | Path) -> str:
    """The question. folder: where the cases go."""
    text = _(
        "Corrected cases are copied to\n{folder}\n\nEach copy holds the four images, the corrected labels, what the "
        "model had proposed, and a salted hash that stands for the patient. Names, dates and DICOM attributes are left "
        "out. Whoever can read that folder can see the images, and models are trained on them.\n\nThe images must be "
        "de-identified. Faces identify people: of raw series only the brain is kept, other images must be "
        "skull-stripped already.\n\nMay the cases that you add be used for training, and are "
        "their images de-identified? This is asked once for this folder."
    )
    return text.format(folder=folder)


def hasConsented(folder: str | Path) -> bool:
    """Whether a person has agreed for this folder on this computer."""
    return str(folder) in _folders()


def keepConsent(folder: str | Path) -> None:
    """Keeps that a person has agreed; who and when is not kept."""
    if not hasConsented(folder):
        qt.QSettings().setValue(SETTING, json.dumps([*_folders(), str(folder)]))


def _folders() -> list[str]:
    try:
        folders = json.loads(slicer.util.settingsValue(SETTING, "[]", converter=str))
    except (ValueError, RecursionError):
        return []
    return [folder for folder in folders if isinstance(folder, str)] if isinstance(folders, list) else []
