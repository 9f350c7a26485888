"""The report that a user copies into a question: versions, settings, the last of the log, and nothing of a patient."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import slicer
import vtk

from .volumes.dicomtags import dicomTags

REPORT_LINES = 50
_SECRET_LENGTH = 3  # shorter words hide too much else
_KEPT = {"nii", "gz", "nrrd", "home", "data", "tmp", "temp", "users", "desktop", "documents", "mrhead", "segmamba"}
# addresses; in quotes; from the root on to the end of the clause, for names have spaces; or any word with a slash
_PATH = re.compile(
    r"""\bhttps?://[^\s"'<>]*"""
    r"""|(["'])(?:[A-Za-z]:|~|\.+)?[\\/].*?\1(?!\w)"""
    r"""|(?<![\w.])(?:[A-Za-z]:|~|\.+)?[\\/](?=\S)(?:(?:[^\n"<>]|<name>)*[\\/])?(?:[^\n"<>;:,]|<name>)*"""
    r"""|(?<![^\s"'<>\\/,;])(?:[^\s"'<>\\/,;]|(?<=\w)'(?=\w))*[\w.][\\/](?:[^\s"'<>,;]|(?<=\w)'(?=\w))*"""
)


def makeReport(lines: list[str], facts: dict[str, object], words: set[str] = frozenset()) -> str:
    """Text for the clipboard. lines: of the log; facts: title -> value, each on a line of its own.

    words: `secrets` of what is no longer in the scene.
    """
    app = slicer.app
    head = {
        "Slicer": f"{app.applicationVersion} (revision {app.revision})",
        "System": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        **facts,
    }
    text = "\n".join(f"{title}: {value}" for title, value in head.items())
    return scrub(text + "\n\n" + "\n".join(list(lines)[-REPORT_LINES:]), secrets() | words) + "\n"


def secrets() -> set[str]:
    """Words of the scene that may tell who the patient is: names of nodes, of patients, and of files and folders."""
    words: set[str] = set()
    scene = slicer.mrmlScene
    for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode"):
        words.add(node.GetName() or "")
        if node.IsA("vtkMRMLScalarVolumeNode"):
            tags = dicomTags(node)
            words |= {tags.get(name, "") for name in ("PatientID", "SeriesDescription", "StudyInstanceUID")}
    for node in slicer.util.getNodesByClass("vtkMRMLStorageNode"):
        if node.GetFileName():
            path = Path(node.GetFileName())
            words |= {path.name, path.name.partition(".")[0], *path.parts}
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is not None:
        items = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
        words |= {hierarchy.GetItemName(items.GetId(index)) for index in range(items.GetNumberOfIds())}
    # what is asked for must not be hidden by the name of a folder such as /home
    return {word for word in words if len(word) >= _SECRET_LENGTH and word.lower() not in _KEPT}


def scrub(text: str, words: set[str] = frozenset()) -> str:
    """`text` without paths (of the engine's own sources the end stays) and without `words`, in any case of letters."""
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "<name>", text, flags=re.IGNORECASE)
    return _PATH.sub(_pathText, text)


def _pathText(match: re.Match) -> str:
    own = re.search(r"segmamba[\\/][\w\\/]+\.py", match[0])
    return own[0] if own else "<path>" if len(match[0]) > 1 else match[0]
