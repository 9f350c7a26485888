"""Which volume is which: guesses from names and DICOM attributes, each with how sure it is and why."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import slicer

from ..i18n import _
from .checks import Problem, checkVolumes
from .dicomtags import dicomTags, judgeTags
from .names import judgeName, stemOf
from .scene import ijkToRas
from .swaps import swapWarnings

__all__ = ["MODALITIES", "Guess", "Problem", "checkVolumes", "guessModalities", "swapWarnings"]

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
MINIMUM_SCORE = 1.0  # below this nothing speaks for a volume


@dataclass(frozen=True)
class Guess:
    """node: the volume; confidence: 0 to 1, below about 0.6 it should be looked at; reason: what speaks for it."""

    node: object
    confidence: float
    reason: str


@dataclass(frozen=True)
class _Candidate:
    node: object
    scores: dict[str, float]
    reasons: list[str]


def guessModalities(volumeNodes: Iterable | None = None) -> dict[str, Guess]:
    """The most plausible volume for each modality (t1n, t1c, t2w, t2f); a modality that none fits is left out.

    volumeNodes: all scalar volumes of the scene unless given. Volumes that belong together (one study, one name but
    for the modality, one grid) are preferred over a mixture, so that two patients in a scene do not become one.
    """
    if volumeNodes is None:
        volumeNodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    candidates = [_judge(node) for node in volumeNodes if node is not None and _isPlainVolume(node)]
    best, bestRank = {}, None
    for strength, group in _groups(candidates):
        choice = _assign(group)
        rank = (len(choice), strength, sum(candidate.scores[modality] for modality, candidate in choice.items()))
        if choice and (bestRank is None or rank > bestRank):
            best, bestRank = choice, rank
    rivals = [candidate for candidate in candidates if candidate.node not in [c.node for c in best.values()]]
    return {
        modality: Guess(best[modality].node, _confidence(modality, best, rivals), "; ".join(best[modality].reasons))
        for modality in MODALITIES
        if modality in best
    }


def _isPlainVolume(node) -> bool:
    if node.IsA("vtkMRMLLabelMapVolumeNode") or not node.IsA("vtkMRMLScalarVolumeNode"):
        return False
    image = node.GetImageData()
    return image is not None and image.GetNumberOfScalarComponents() == 1 and not node.GetHideFromEditors()


def _judge(node) -> _Candidate:
    """Adds up what name and DICOM attributes say; scores are log odds, roughly."""
    tags = dicomTags(node)
    evidence = [judgeName(node.GetName() or "")]
    description = tags.get("SeriesDescription", "")
    if description and description.lower() not in (node.GetName() or "").lower():
        evidence.append(judgeName(description))
    evidence.append(judgeTags(tags))
    scores = {modality: sum(scores.get(modality, 0.0) for scores, _reasons in evidence) for modality in MODALITIES}
    reasons = list(dict.fromkeys(reason for _scores, found in evidence for reason in found))
    return _Candidate(node, scores, reasons or [_("a guess")])


def _groups(candidates: list[_Candidate]):
    """(strength of the sign, volumes that it holds together) for each sign, and (0, all of them) last.

    One study or one name but for the modality says more than one grid or transform, which whole data sets share.
    """
    groups: dict[tuple, list[_Candidate]] = {}
    for candidate in candidates:
        node = candidate.node
        grid = (node.GetImageData().GetDimensions(), tuple(ijkToRas(node).round(3).ravel()))
        signs = [(2, "name", stemOf(node.GetName() or "")), (2, "study", dicomTags(node).get("StudyInstanceUID"))]
        signs += [(1, "grid", grid), (1, "parent", node.GetTransformNodeID())]
        for sign in signs:
            if sign[-1]:
                groups.setdefault(sign, []).append(candidate)
    yield from ((sign[0], group) for sign, group in groups.items() if len(group) > 1)
    yield 0, candidates


def _assign(candidates: list[_Candidate]) -> dict[str, _Candidate]:
    """At most one volume for each modality, so that most modalities are filled and the scores' sum is largest."""
    best = {frozenset(): (0.0, {})}  # modalities filled -> (sum, choice)
    for candidate in candidates:
        for filled, (total, choice) in list(best.items()):
            for modality, score in candidate.scores.items():
                if modality in filled or score < MINIMUM_SCORE:
                    continue
                key, value = filled | {modality}, total + score
                if value > best.get(key, (-math.inf,))[0]:
                    best[key] = (value, {**choice, modality: candidate})
    return max(best.items(), key=lambda item: (len(item[0]), item[1][0]))[1][1]


def _confidence(modality: str, choice: dict[str, _Candidate], rivals: list[_Candidate]) -> float:
    """How far the volume's scores point to this modality, times how far the modality points to this volume."""
    own = choice[modality].scores
    among = 1 + sum(math.exp(score - own[modality]) for other, score in own.items() if other != modality)
    among += math.exp(-own[modality])  # none of the four
    others = [candidate for candidate in (*choice.values(), *rivals) if candidate is not choice[modality]]
    # another volume counts as a rival as far as it is not better placed elsewhere
    against = sum(
        math.exp(min(0.0, candidate.scores[modality] - max(candidate.scores.values())))
        * math.exp(min(0.0, candidate.scores[modality] - own[modality]))
        for candidate in others
        if candidate.scores[modality] >= MINIMUM_SCORE
    )
    return 1 / among / (1 + against)
