"""What name and DICOM attributes say of one volume: its modality, and which examination it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..i18n import _
from .dicomtags import dicomTags, judgeTags
from .names import examinationIn, judgeName
from .scene import DERIVED

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
MINIMUM_SCORE = 1.0  # below this nothing speaks for a volume


@dataclass(frozen=True)
class Candidate:
    """A volume; scores: of each modality, log odds, roughly; examination: a sign of it, see `isOfAnother`."""

    node: object
    scores: dict[str, float]
    reasons: list[str]
    examination: tuple[str, str]

    @property
    def modality(self) -> str | None:
        """The one that fits best; None where none does."""
        best = max(self.scores, key=self.scores.get)
        return best if self.scores[best] >= MINIMUM_SCORE else None


def judge(node) -> Candidate:
    """Adds up what name and DICOM attributes say. Raises InputError where the engine's files are missing."""
    tags = dicomTags(node)
    evidence = [judgeName(node.GetName() or "")]
    description = tags.get("SeriesDescription", "")
    if description and description.lower() not in (node.GetName() or "").lower():
        evidence.append(judgeName(description))
    evidence.append(judgeTags(tags))
    scores = {modality: sum(scores.get(modality, 0.0) for scores, _reasons in evidence) for modality in MODALITIES}
    reasons = list(dict.fromkeys(reason for _scores, found in evidence for reason in found))
    study = tags.get("StudyInstanceUID")
    examination = ("study", study) if study else ("name", examinationIn(node.GetName() or ""))
    return Candidate(node, scores, reasons or [_("a guess")], examination)


def isOfAnother(candidate: Candidate, chosen: Mapping[str, Candidate], candidates: Sequence[Candidate]) -> bool:
    """Whether a volume is of another patient or date than those `chosen` (modality -> volume), also in `candidates`.

    Its sign is that of none of them, but of another volume for a modality of theirs. The volumes of one examination may
    have unlike names, so a sign that one volume alone has, of whichever side, says nothing.
    """

    def fellows(one):
        return [other for other in candidates if other.examination == one.examination and other.node is not one.node]

    if any(one.examination == candidate.examination for one in chosen.values()):
        return False
    rivals = [chosen[other.modality] for other in fellows(candidate) if other.modality in chosen]
    return any(fellows(rival) for rival in rivals)


def isPlainVolume(node) -> bool:
    """Whether it may be an image of a patient: one value a voxel, not computed here, not hidden."""
    if node.IsA("vtkMRMLLabelMapVolumeNode") or not node.IsA("vtkMRMLScalarVolumeNode"):
        return False
    if node.GetAttribute(DERIVED):
        return False
    image = node.GetImageData()
    return image is not None and image.GetNumberOfScalarComponents() == 1 and not node.GetHideFromEditors()
