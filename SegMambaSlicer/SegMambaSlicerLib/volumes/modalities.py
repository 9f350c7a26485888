"""Which volume is which: guesses from names and DICOM attributes, each with how sure it is and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import slicer

from ..i18n import _
from .checks import Problem, checkVolumes
from .dicomtags import dicomTags
from .intensities import guessByIntensities
from .judging import MINIMUM_SCORE, MODALITIES, Candidate, isOfAnother, isPlainVolume, judge
from .names import stemOf
from .scene import ijkToRas
from .swaps import swapWarnings

__all__ = ["MODALITIES", "Guess", "Problem", "checkVolumes", "guessModalities", "swapWarnings"]

INTENSITY_CONFIDENCE = 0.5  # of what the images alone say


@dataclass(frozen=True)
class Guess:
    """node: the volume; confidence: 0 to 1, below about 0.6 it should be looked at; reason: what speaks for it."""

    node: object
    confidence: float
    reason: str
    isByIntensity: bool = False  # nothing but the image speaks for it


def guessModalities(volumeNodes: Iterable | None = None, fixed: Mapping[str, object] | None = None) -> dict[str, Guess]:
    """The most plausible volume for each modality (t1n, t1c, t2w, t2f); a modality that none fits is left out.

    volumeNodes: all scalar volumes of the scene unless given. Volumes that belong together (one study, one name but
    for the modality, one grid) are preferred over a mixture, so that two patients in a scene do not become one.
    fixed: modality -> volume of those that are chosen already; they are not guessed, and others go with them; those of
    another examination are left out.
    What names and DICOM attributes leave open is told by the images, where they say it clearly.
    """
    if volumeNodes is None:
        volumeNodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    fixed = dict(fixed or {})
    nodes = [node for node in volumeNodes if node is not None and isPlainVolume(node)]
    candidates = [judge(node) for node in nodes]
    chosen = {modality: judge(node) for modality, node in fixed.items()}
    candidates = [one for one in candidates if one.node in fixed.values() or not isOfAnother(one, chosen, candidates)]
    best, bestRank = {}, None
    for strength, group in _groups(candidates):
        kept = sum(candidate.node in fixed.values() for candidate in group)
        choice = _assign([candidate for candidate in group if candidate.node not in fixed.values()], fixed)
        scores = sum(candidate.scores[modality] for modality, candidate in choice.items())
        rank = (kept, len(choice), strength, scores)
        if choice and (bestRank is None or rank > bestRank):
            best, bestRank = choice, rank
    rivals = [candidate for candidate in candidates if candidate.node not in [c.node for c in best.values()]]
    guesses = {
        modality: Guess(candidate.node, _confidence(modality, best, rivals), "; ".join(candidate.reasons))
        for modality, candidate in best.items()
    }
    known = {**fixed, **{modality: guess.node for modality, guess in guesses.items()}}
    left = [c.node for c in rivals if c.node not in fixed.values() and max(c.scores.values()) > -MINIMUM_SCORE]
    for modality, node in guessByIntensities(left, known).items():
        reason = _("chosen by its intensities alone: check it")
        guesses[modality] = Guess(node, INTENSITY_CONFIDENCE, reason, isByIntensity=True)
    return {modality: guesses[modality] for modality in MODALITIES if modality in guesses}


def undecidedVolumes(volumes: Mapping[str, object]) -> list:
    """Volumes of the scene that may be those which are None in `volumes` (modality -> node), in the scene's order.

    What was computed from images is none of them, nor is a volume whose name or DICOM attributes speak against it.
    """
    missing = [modality for modality, node in volumes.items() if node is None]
    taken = [node for node in volumes.values() if node is not None]
    nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isPlainVolume(node)]
    return [node for node in nodes if node not in taken and _mayBe(judge(node), missing)]


def _mayBe(candidate: Candidate, modalities: Iterable[str]) -> bool:
    return any(candidate.scores[modality] > -MINIMUM_SCORE for modality in modalities)


def _groups(candidates: list[Candidate]):
    """(strength of the sign, volumes that it holds together) for each sign, and (0, all of them) last.

    One study or one name but for the modality says more than one grid or transform, which whole data sets share.
    """
    groups: dict[tuple, list[Candidate]] = {}
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


def _assign(candidates: list[Candidate], fixed: Mapping[str, object]) -> dict[str, Candidate]:
    """At most one volume for each modality that is not `fixed`: most of them filled, the scores' sum the largest."""
    best = {frozenset(): (0.0, {})}  # modalities filled -> (sum, choice)
    for candidate in candidates:
        for filled, (total, choice) in list(best.items()):
            for modality, score in candidate.scores.items():
                if modality in fixed or modality in filled or score < MINIMUM_SCORE:
                    continue
                key, value = filled | {modality}, total + score
                if value > best.get(key, (-math.inf,))[0]:
                    best[key] = (value, {**choice, modality: candidate})
    return max(best.items(), key=lambda item: (len(item[0]), item[1][0]))[1][1]


def _confidence(modality: str, choice: dict[str, Candidate], rivals: list[Candidate]) -> float:
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
